"""Images that are told apart by their noise, as slices of a scanner are, and turned copies."""

import cv2
import numpy as np


def noisy_slice(seed, *, label=0, size=128):
    """Returns a bright ellipse under noise, uint8 [size, size]; label 1 has a dark line in it."""
    rng = np.random.default_rng([7, seed])
    rows, columns = np.mgrid[:size, :size] - size / 2
    width, height = rng.uniform(0.25, 0.45, 2) * size
    image = np.where((columns / width) ** 2 + (rows / height) ** 2 < 1, 120.0, 20.0)
    if label:
        image[int(0.45 * size) : int(0.55 * size)] -= 60
    return np.clip(image + rng.normal(0, 10, (size, size)), 0, 255).astype(np.uint8)


def write_slices(root, slices):
    """Writes {name below the root: image}; returns the root."""
    for name, image in slices.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return root


def turned_copies(root, *, count=16):
    """Writes a data set whose val images are its train images, turned; names tell nothing."""
    slices = {}
    for i in range(count):
        name, image = ("normal", "fracture")[i % 2], noisy_slice(i, label=i % 2)
        slices |= {f"train/{name}/a{i}.png": image, f"val/{name}/b{i}.png": np.rot90(image)}
    return write_slices(root, slices)
