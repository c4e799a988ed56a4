"""Images made worse on purpose, to ask how accuracy falls (paper 2 §V.C and Figure 8).

Paper 2 speaks of a robustness evaluation and shows its curve, but states neither the disturbances
nor their strengths: the table below is ours. Severity 0 is the unchanged image, 1 is what a scanner
or an export may well do, and 5 is worse than anything that should be read at all.
"""

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np

from msa_flax.data.augment import Transform, warp
from msa_flax.data.examples import DataError

SEVERITIES = range(6)  # 0: unchanged, 5: the worst
_REFERENCE_SIDE = 224  # pixels: what a length in the table refers to
_STREAM = 0xC022  # keeps these draws apart from those of training

Apply = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """A disturbance of one image and its five strengths."""

    levels: tuple[float, float, float, float, float]  # of the severities 1 to 5
    unit: str  # of the levels
    apply: Apply  # image uint8 [h, w], level, the image's own generator -> uint8 [h, w]


def corrupt(images: np.ndarray, name: str, severity: int, *, seed: int) -> np.ndarray:
    """Returns disturbed copies: a pure function of images, name, severity and seed.

    The noise and the direction of a rotation are drawn from (seed, place among the images) and are
    the same for every severity: a higher one is more of the same.

    Args:
        images: uint8 [n, h, w], preprocessed for the network.
        name: key of :data:`CORRUPTIONS`.
        severity: 0 (an unchanged copy) to 5.
        seed: >= 0.

    Returns:
        uint8 [n, h, w].

    Raises:
        DataError: another dtype or shape, an unknown name or severity.
    """
    if name not in CORRUPTIONS:
        raise DataError(f"corruption: expected one of {', '.join(CORRUPTIONS)}; got {name!r}")
    if severity not in SEVERITIES:
        raise DataError(f"severity: expected a whole number from 0 to 5, got {severity!r}")
    if images.dtype != np.uint8 or images.ndim != 3:
        raise DataError(
            f"images: expected uint8 [n, h, w], got {images.dtype} {list(images.shape)}"
        )
    result = images.copy()
    if severity == 0:
        return result
    chosen = CORRUPTIONS[name]
    level = chosen.levels[int(severity) - 1]
    for i, image in enumerate(images):
        result[i] = chosen.apply(image, level, np.random.default_rng([seed, i, _STREAM]))
    return result


def describe() -> list[str]:
    """Returns one line per corruption: its levels from severity 1 to 5, and their unit."""
    return [
        f"{name}: {', '.join(f'{level:g}' for level in chosen.levels)} ({chosen.unit})"
        for name, chosen in CORRUPTIONS.items()
    ]


def _noise(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return _to_uint8(image + level * rng.standard_normal(image.shape, np.float32))


def _blur(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    sigma = level * max(image.shape) / _REFERENCE_SIDE
    return cv2.GaussianBlur(image, (0, 0), sigma)


def _contrast(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    mean = image.mean()
    return _to_uint8(mean + level * (image - mean))


def _rotation(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return warp(image, Transform(degrees=level if rng.random() < 0.5 else -level))


def _jpeg(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    encoded = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, int(level)))[1]
    decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    return decoded


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


CORRUPTIONS = {
    "noise": Corruption(
        levels=(5, 10, 20, 30, 45),
        unit="grey values of 255, standard deviation of Gaussian noise",
        apply=_noise,
    ),
    # In proportion to the side, so that runs of different sizes see the same neck; for images below
    # about 100 pixels the first level is too weak to change anything.
    "blur": Corruption(
        levels=(1, 1.5, 2, 3, 4.5),
        unit="pixels at a side of 224, standard deviation of a Gaussian",
        apply=_blur,
    ),
    "contrast": Corruption(
        levels=(0.8, 0.6, 0.4, 0.25, 0.15),
        unit="factor on the distance from the image's mean",
        apply=_contrast,
    ),
    # The middle level is the largest rotation that augmentation in training makes.
    "rotation": Corruption(
        levels=(5, 10, 15, 25, 40), unit="degrees, either way, corners black", apply=_rotation
    ),
    "jpeg": Corruption(levels=(60, 30, 15, 8, 4), unit="quality of libjpeg, 0 to 100", apply=_jpeg),
}
