"""Ranking pixels by a map, removing them from an image, and asking a model about the result."""

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import cv2
import numpy as np

from msa_flax.files import batches
from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.masks import upsample

ScoreFn = Callable[[np.ndarray], Any]  # images float32 [b, s, s], 0..255 -> logits [b]
Fill = Literal["blur", "black"]

NOISE = 2.55  # of imputed pixels, grey levels: 1 % of the range, as in ROAD's own code
BLUR = 1 / 16  # standard deviation of the blur, share of the image's side

# Rong et al. 2022: a pixel is the mean of its neighbours, those at its sides counting double.
_NEIGHBOURS = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]], np.float32) / 12
_ACCURACY = 1e-4  # of the linear system: at most 0.3 grey levels, a tenth of the noise


def impute(
    image: np.ndarray, removed: np.ndarray, *, noise: float = NOISE, rng: np.random.Generator
) -> np.ndarray:
    """Returns the image with removed pixels replaced by noisy linear imputation, float32 [s, s].

    Each removed pixel is the weighted mean of its eight neighbours, removed ones included, plus
    noise (Rong et al. 2022, section 4.3): a linear system, symmetric and positive definite, solved
    by conjugate gradients without forming its matrix.

    Args:
        image: [s, s], 0..255.
        removed: bool [s, s], not all.
        noise: standard deviation, grey levels.
        rng: of the noise.

    Raises:
        SaliencyError: nothing is left to impute from, or the system was not solved.
    """
    from scipy.sparse.linalg import LinearOperator, cg

    image, gone = image.astype(np.float32), removed.astype(np.float32)
    if removed.all():
        raise SaliencyError("removed: expected a pixel that is left, got none")
    weight = _neighbours(np.ones_like(image))  # below 1 at the image's edges
    middle = float(image[~removed].mean())  # solving for the distance from it takes fewer rounds
    known = (image - middle) * (1 - gone)

    def matrix(flat: np.ndarray) -> np.ndarray:
        values = flat.reshape(image.shape) * gone
        return (gone * (weight * values - _neighbours(values))).ravel()

    system = LinearOperator((image.size, image.size), matvec=matrix, dtype=np.float32)
    solution, unsolved = cg(system, (gone * _neighbours(known)).ravel(), rtol=_ACCURACY)
    if unsolved:
        raise SaliencyError(f"imputation: expected a solution, got none in {unsolved} rounds")
    values = solution.reshape(image.shape) + middle + noise * rng.standard_normal(image.shape)
    return np.where(removed, values, image).astype(np.float32)


def filled(image: np.ndarray, fill: Fill) -> np.ndarray:
    """Returns what replaces the pixels of an image, float32 [s, s].

    Args:
        image: [s, s], 0..255.
        fill: "blur", the image blurred by ``BLUR`` of its side, or "black".

    Raises:
        SaliencyError: there is no such fill.
    """
    image = image.astype(np.float32)
    if fill == "blur":
        return cv2.GaussianBlur(image, (0, 0), BLUR * len(image))
    if fill != "black":
        raise SaliencyError(f"fill: expected blur or black, got {fill!r}")
    return np.zeros_like(image)


def order(saliency: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the pixels of the image, the most salient first, int [size * size].

    Equal ones come in random order. By position, an all-zero map would remove the top first, and
    every map that is zero somewhere would favour the top there.

    Args:
        saliency: [h, w].
        size: the image's side.
        rng: decides ties.
    """
    shuffled = rng.permutation(size * size)
    values = upsample(saliency, size).ravel()[shuffled]
    ranked: np.ndarray = shuffled[np.argsort(-values, kind="stable")]
    return ranked


def most_salient(ranked: np.ndarray, fraction: float, size: int) -> np.ndarray:
    """Returns the first share of ranked pixels as bool [size, size]."""
    chosen = np.zeros(size * size, np.bool_)
    chosen[ranked[: round(fraction * len(ranked))]] = True
    return chosen.reshape(size, size)


def own_rng(picture: np.ndarray, seed: int) -> np.random.Generator:
    """Returns a picture's own random numbers: they do not depend on its place among others."""
    return np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(picture).data)])


def logits_of(score_fn: ScoreFn, pictures: Iterable[np.ndarray], batch_size: int) -> np.ndarray:
    """Returns the logit of each picture, float64 [n]; see :func:`in_batches`.

    Raises:
        SaliencyError: the model does not give one finite logit per picture.
    """
    logits = [np.asarray(x, np.float64) for x in in_batches(score_fn, pictures, batch_size)]
    if any(value.shape or not np.isfinite(value) for value in logits):
        raise SaliencyError("score_fn: expected one finite logit per image, got something else")
    return np.array(logits, np.float64)


def in_batches(
    function: Callable[[np.ndarray], Any], pictures: Iterable[np.ndarray], batch_size: int
) -> Iterator[np.ndarray]:
    """Yields a batched function's output for each picture, calling it with one shape only.

    Args:
        function: float32 [batch_size, s, s] -> [batch_size, ...].
        pictures: [s, s] each; taken as they are needed, so that they need not fit in memory.
        batch_size: pictures per call.
    """
    waiting = iter(pictures)
    while taken := list(itertools.islice(waiting, batch_size)):
        for batch, count in batches(np.asarray(taken, np.float32), batch_size):
            yield from np.asarray(function(batch))[:count]


def check_maps(images: np.ndarray, maps: np.ndarray, signs: np.ndarray) -> None:
    """Checks that images, maps and signs belong together.

    Raises:
        SaliencyError: they do not.
    """
    if images.ndim != 3 or images.shape[1] != images.shape[2] or not len(images):
        raise SaliencyError(f"images: expected [n, s, s] with an image or more, got {images.shape}")
    if maps.ndim != 3 or len(maps) != len(images):
        raise SaliencyError(f"maps: expected [{len(images)}, h, w], got {maps.shape}")
    if np.shape(signs) != (len(images),) or not np.isin(signs, (-1, 1)).all():
        raise SaliencyError(f"signs: expected +1 or -1 for each of {len(images)} images")


def _neighbours(values: np.ndarray) -> np.ndarray:
    """Returns the weighted sum of each pixel's neighbours, nothing outside the image."""
    return cv2.filter2D(values, -1, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT)
