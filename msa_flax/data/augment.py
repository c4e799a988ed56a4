"""Rotation, flipping and scaling of training images (paper 2 §V.B), each drawn from a seed.

Paper 2 names the three operations but states neither ranges nor a border: the numbers below are
ours, small enough that a neck still looks like one in the scanner.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from msa_flax.data.examples import DataError

MAX_DEGREES = 15.0  # a rotation is drawn uniformly from -15..15 degrees (ours: none stated)
FLIP_PROBABILITY = 0.5  # of a left-right flip; a neck is nearly symmetric (ours: none stated)
SCALES = 0.9, 1.1  # a scale is drawn uniformly from this range (ours: none stated)
_STREAM = 0xA46  # keeps these draws apart from the order's and the splits', which use seed too


class Transform(NamedTuple):
    """What is done to an image, in this order; the defaults leave it as it is."""

    flip: bool = False  # left and right exchanged
    degrees: float = 0.0  # about the image's centre, positive is counter-clockwise as seen
    scale: float = 1.0  # about the image's centre, above 1 enlarges


def augment_batch(images: np.ndarray, rows: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Returns rotated, scaled and perhaps flipped copies of images.

    How an image is changed depends on (seed, epoch, its row) alone, not on its place in a batch.

    Args:
        images: uint8 [..., h, w], as the network is given them.
        rows: whole numbers [...], the rows of the images in the data set.
        seed: the run's seed, >= 0.
        epoch: >= 0.

    Returns:
        uint8 [..., h, w].

    Raises:
        DataError: another dtype or shape.
    """
    augmented = np.empty_like(images)
    for place in np.ndindex(rows.shape):
        augmented[place] = warp(images[place], draw_transform((seed, epoch, int(rows[place]))))
    return augmented


def draw_transform(seed: Sequence[int]) -> Transform:
    """Draws flip, rotation and scale, independently of each other, from a seed.

    Args:
        seed: whole numbers >= 0; (1,) and (1, 0) are different seeds.
    """
    # NumPy fills a short seed up with zeros; with the stream at its end, (1,) is not (1, 0).
    rng = np.random.default_rng([*seed, _STREAM])
    return Transform(
        flip=bool(rng.random() < FLIP_PROBABILITY),
        degrees=float(rng.uniform(-MAX_DEGREES, MAX_DEGREES)),
        scale=float(rng.uniform(*SCALES)),
    )


def warp(image: np.ndarray, transform: Transform) -> np.ndarray:
    """Applies a transform in one bilinear sampling, so that the image is blurred only once.

    The centre is that of the pixel grid, ((w - 1) / 2, (h - 1) / 2): the default transform gives
    exactly the image, and a flip alone exactly ``image[:, ::-1]``. Pixels from outside the image
    are black, like the air around a neck in a CT window and like the corners of the rotated copies
    in the public data set; replicated edges would draw streaks of skin and shoulder there.

    Args:
        image: uint8 [h, w].
        transform: flip, rotation and scale.

    Raises:
        DataError: another dtype or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 2:
        raise DataError(
            f"expected an image of uint8 [h, w], got {image.dtype} {list(image.shape)}; preprocess "
            "it first"
        )
    height, width = image.shape
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    angle = math.radians(transform.degrees)
    # From a place in the result to its source: unscale, turn back, then flip; y points down.
    cos, sin = math.cos(angle) / transform.scale, math.sin(angle) / transform.scale
    sign = -1.0 if transform.flip else 1.0
    linear = np.array([[sign * cos, sign * -sin], [sin, cos]])
    matrix = np.column_stack([linear, centre - linear @ centre])
    return cv2.warpAffine(
        image,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
