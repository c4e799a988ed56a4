"""Does a map show what the model uses? Deletion, insertion and ROAD: remove pixels, ask the model.

A map ranks the pixels; they are removed from the image in that order, and the logit of the
explained class is followed. All of these have one weakness: what replaces a removed pixel is
something that no CT shows. Deletion and insertion fill in a blurred or black image, ROAD what the
pixels around suggest.

One logit speaks for both classes, and its sigmoid saturates: for a model that is sure, the
probability stays at 1 until most of what it uses is gone. So curves keep the logit, and their areas
are given on either scale. Comparisons between maps should use the logit.
"""

import dataclasses
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import cv2
import numpy as np

from msa_flax.files import batches
from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.masks import upsample

ScoreFn = Callable[[np.ndarray], Any]  # images float32 [b, s, s], 0..255 -> logits [b]
Fill = Literal["blur", "black", "mean"]
Unit = Literal["logit", "probability"]

STEPS = 20
FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the pixels, removed by ROAD
NOISE = 2.55  # of ROAD, grey levels: 1 % of the range, as in ROAD's own code
BLUR = 1 / 16  # standard deviation of the blur, share of the image's side

# Rong et al. 2022: a pixel is the mean of its neighbours, those at its sides counting double.
_NEIGHBOURS = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]], np.float32) / 12
_ACCURACY = 1e-4  # of the linear system: at most 0.3 grey levels, a tenth of the noise


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curves:
    """The logit of the explained class while pixels come or go.

    Attributes:
        fractions: share of the pixels that are filled in (deletion) or shown (insertion), [k].
        logits: float64 [n, k].
    """

    fractions: np.ndarray
    logits: np.ndarray

    def auc(self, unit: Unit = "logit") -> np.ndarray:
        """Returns the area under each image's curve, float64 [n], by the trapezoid rule."""
        return np.trapezoid(_in_unit(self.logits, unit), self.fractions, axis=1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Road:
    """The logit of the explained class with pixels removed from either end of the ranking.

    Attributes:
        most: logits where the most salient pixels are removed, float64 [n, fractions].
        least: logits where the least salient ones are.
    """

    most: np.ndarray
    least: np.ndarray

    def gap(self, unit: Unit = "logit") -> np.ndarray:
        """Returns half the mean of (least - most) over the fractions, float64 [n].

        Above 0 where the map ranks pixels as the model does; 0 on average for a random map.
        """
        return (_in_unit(self.least, unit) - _in_unit(self.most, unit)).mean(axis=1) / 2


def removal_curves(
    kind: Literal["deletion", "insertion"],
    score_fn: ScoreFn,
    images: np.ndarray,
    maps: np.ndarray,
    *,
    signs: np.ndarray,
    fill: Fill = "blur",
    steps: int = STEPS,
    seed: int = 0,
    batch_size: int = 32,
) -> Curves:
    """Returns deletion or insertion curves (Petsiuk et al. 2018).

    In "deletion" the most salient pixels of the image are filled in first: the smaller the area,
    the better the map. In "insertion" they are the first to appear in the filled image: the larger
    the area, the better. Costs steps + 1 calls of the model per image.

    Args:
        kind: "deletion" or "insertion".
        score_fn: float32 [batch_size, s, s], grey levels 0..255 -> logits of fracture
            [batch_size]; always called with that many images, so that it compiles once.
        images: uint8 or float [n, s, s], 0..255.
        maps: [n, h, w] of any resolution, resized to the images.
        signs: +1 where the map explains "fracture", -1 where "normal", [n].
        fill: what replaces a removed pixel: "blur", "black" or "mean", see :func:`filled`.
        steps: the curve has steps + 1 points, from nothing to everything removed.
        seed: of the order of pixels that a map does not tell apart.
        batch_size: images per call.

    Raises:
        SaliencyError: shapes, signs or values are not as described.
    """
    check_maps(images, maps, signs)
    if steps < 1:
        raise SaliencyError(f"steps: expected 1 or more, got {steps}")
    fractions = np.arange(steps + 1) / steps

    def pictures() -> Iterator[np.ndarray]:
        for image, saliency in zip(images, maps, strict=True):
            order = pixel_order(saliency, len(image), picture_rng(image, seed))
            empty = filled(image, fill)
            changed, rest = (empty, image) if kind == "deletion" else (image, empty)
            for fraction in fractions:
                yield np.where(most_salient(order, fraction, len(image)), changed, rest)

    logits = logits_of(score_fn, pictures(), batch_size).reshape(len(images), steps + 1)
    return Curves(fractions=fractions, logits=logits * np.asarray(signs)[:, None])


def road(
    score_fn: ScoreFn,
    images: np.ndarray,
    maps: np.ndarray,
    *,
    signs: np.ndarray,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    batch_size: int = 32,
) -> Road:
    """Returns what ROAD measures (Rong et al. 2022), most and least salient pixels first.

    Removed pixels are imputed from those around them, :func:`impute`, so that the shape of what was
    removed tells the model little.

    Costs two calls of the model and two imputations per image and fraction. An imputation of 224 x
    224 pixels takes 0.01 s (scattered pixels) to 0.2 s (large holes) on a CPU core. So here, unlike
    in deletion, the model may not be the bottleneck: with the default fractions it is 0.5 s per
    image for a map of 7 x 7, and 0.1 s for a map without regions.

    Args:
        score_fn: as in :func:`removal_curves`.
        images: as in :func:`removal_curves`.
        maps: as in :func:`removal_curves`.
        signs: as in :func:`removal_curves`.
        fractions: shares of the pixels, above 0 and below 1.
        seed: of the noise and of the order of pixels that a map does not tell apart.
        batch_size: images per call.

    Raises:
        SaliencyError: shapes, signs, fractions or values are not as described.
    """
    check_maps(images, maps, signs)
    if not fractions or not all(0 < fraction < 1 for fraction in fractions):
        raise SaliencyError(f"fractions: expected values between 0 and 1, got {tuple(fractions)}")

    def pictures() -> Iterator[np.ndarray]:
        for image, saliency in zip(images, maps, strict=True):
            rng = picture_rng(image, seed)
            order = pixel_order(saliency, len(image), rng)
            for ranked, fraction in itertools.product((order, order[::-1]), fractions):
                yield impute(image, most_salient(ranked, fraction, len(image)), rng=rng)

    logits = logits_of(score_fn, pictures(), batch_size).reshape(len(images), 2, len(fractions))
    most, least = np.moveaxis(logits * np.asarray(signs)[:, None, None], 1, 0)
    return Road(most=most, least=least)


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
        fill: "blur", the image blurred by ``BLUR`` of its side; "black"; or "mean", the image's.

    Raises:
        SaliencyError: there is no such fill.
    """
    image = image.astype(np.float32)
    if fill == "blur":
        return cv2.GaussianBlur(image, (0, 0), BLUR * len(image))
    if fill not in ("black", "mean"):
        raise SaliencyError(f"fill: expected blur, black or mean, got {fill!r}")
    return np.full_like(image, 0 if fill == "black" else image.mean())


def pixel_order(saliency: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
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
    order: np.ndarray = shuffled[np.argsort(-values, kind="stable")]
    return order


def most_salient(order: np.ndarray, fraction: float, size: int) -> np.ndarray:
    """Returns the first share of the pixels in an order as bool [size, size]."""
    chosen = np.zeros(size * size, np.bool_)
    chosen[order[: round(fraction * len(order))]] = True
    return chosen.reshape(size, size)


def picture_rng(picture: np.ndarray, seed: int) -> np.random.Generator:
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


def _in_unit(logits: np.ndarray, unit: Unit) -> np.ndarray:
    from scipy.special import expit

    return logits if unit == "logit" else np.asarray(expit(logits))
