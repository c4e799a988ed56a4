"""A folder of simulated slices with the noise of a scanner, which an audit can tell apart."""

import cv2
import numpy as np

SIDE = 160  # pixels; below about 120 a copy's noise does not survive being enlarged to 224
FAMILY = r"^(?P<family>P\d+ \((?P<slice>\d+)\))"
GROUP = r"^(?P<group>P\d+)"


def slice_of(seed, side=SIDE):
    """Smooth shapes under a scanner's noise: any two of them are different slices."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    image = np.full((side, side), 60.0)
    for _ in range(4):
        across, down, width = *rng.uniform(-0.25, 0.25, 2), rng.uniform(0.05, 0.2)
        bump = np.exp(-((x - across) ** 2 + (y - down) ** 2) / (2 * width**2))
        image += rng.uniform(20, 70) * bump
    noise = cv2.GaussianBlur(rng.normal(0, 1, image.shape), (0, 0), 0.7)
    return np.clip(image + 8 * noise / noise.std(), 0, 255).astype(np.uint8)


def write_picture(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def write_slices(root, *, by_position=False):
    """80 slices: patients P10 to P16 in train/, P17 to P19 in val/, eight slices each.

    Half of each patient's slices are fractured: the first ones, or any.
    """
    for patient in range(10, 20):
        part = "train" if patient < 17 else "val"
        order = np.random.default_rng(patient).permutation(8)
        for i in range(8):
            name = "fracture" if (i if by_position else order[i]) < 4 else "normal"
            image = slice_of(100 * patient + i)
            write_picture(root / part / name / f"P{patient} ({i + 1}).png", image)
    return root
