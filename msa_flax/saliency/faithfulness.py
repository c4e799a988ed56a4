"""Does a map show what the model uses? Deletion, insertion and ROAD: remove pixels, ask the model.

Pixels are ranked by a map and removed from the image; the logit of the class that is explained is
followed. That a removed pixel leaves something behind that no CT shows, is the weakness of all of
these: deletion and insertion fill in a blurred or a black image, ROAD what the pixels around say.

One logit speaks for both classes, and its sigmoid saturates: of a model that is sure, a probability
stays at 1 until most of what it uses is gone. So curves keep the logit, and their areas are given
on either scale; comparisons between maps should use the logit.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from msa_flax.saliency.removal import (
    Fill,
    ScoreFn,
    check,
    evaluate,
    filled,
    first,
    generator,
    impute,
    pixel_order,
)
from msa_flax.saliency.render import SaliencyError

Unit = Literal["logit", "probability"]

STEPS = 20
FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the pixels, removed by ROAD
NOISE = 2.55  # grey levels: 1 % of the range, as in ROAD's own code


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curves:
    """The logit of the explained class while pixels come or go.

    Attributes:
        fractions: share of the pixels that are filled in (deletion) or shown (insertion), [k].
        logits: float64 [n, k].
    """

    fractions: np.ndarray
    logits: np.ndarray

    def area(self, unit: Unit = "logit") -> np.ndarray:
        """Returns the area under each image's curve, float64 [n], by the trapezoid rule."""
        return np.trapezoid(_in_unit(self.logits, unit), self.fractions, axis=1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Road:
    """The logit of the explained class, pixels removed from either end of the ranking.

    Attributes:
        fractions: share of the pixels that are removed, [k].
        most: logits where the most salient pixels are removed, float64 [n, k].
        least: logits where the least salient ones are.
    """

    fractions: np.ndarray
    most: np.ndarray
    least: np.ndarray

    def gap(self, unit: Unit = "logit") -> np.ndarray:
        """Returns half the mean of (least - most) over the fractions, float64 [n].

        Above 0 where the map ranks pixels as the model does; a random map's is 0 on average.
        """
        return (_in_unit(self.least, unit) - _in_unit(self.most, unit)).mean(axis=1) / 2


def deletion(
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
    """Returns deletion curves (Petsiuk et al. 2018): the most salient pixels go first.

    The smaller the area, the better the map. Costs steps + 1 calls of the model an image.

    Args:
        score_fn: float32 [batch_size, s, s], grey levels 0..255 -> logits of fracture
            [batch_size]; always called with that many images, so that it compiles once.
        images: uint8 or float [n, s, s], 0..255.
        maps: [n, h, w] of any resolution, resized to the images.
        signs: +1 where the map explains "fracture", -1 where "normal", [n].
        fill: what replaces a removed pixel: "blur", "black" or "mean", see
            :func:`msa_flax.saliency.removal.filled`.
        steps: the curve has steps + 1 points, from nothing to everything removed.
        seed: of the order of pixels that a map does not tell apart.
        batch_size: images a call.

    Raises:
        SaliencyError: shapes, signs or values are not as described.
    """
    return _curves(
        score_fn,
        images,
        maps,
        signs=signs,
        fill=fill,
        steps=steps,
        seed=seed,
        batch_size=batch_size,
        insert=False,
    )


def insertion(
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
    """Returns insertion curves (Petsiuk et al. 2018): into the fill, the most salient come first.

    The larger the area, the better the map. Arguments, cost and errors as in :func:`deletion`.
    """
    return _curves(
        score_fn,
        images,
        maps,
        signs=signs,
        fill=fill,
        steps=steps,
        seed=seed,
        batch_size=batch_size,
        insert=True,
    )


def road(
    score_fn: ScoreFn,
    images: np.ndarray,
    maps: np.ndarray,
    *,
    signs: np.ndarray,
    fractions: Sequence[float] = FRACTIONS,
    noise: float = NOISE,
    seed: int = 0,
    batch_size: int = 32,
) -> Road:
    """Returns what ROAD measures (Rong et al. 2022), most and least salient pixels first.

    Removed pixels get what those around them say, :func:`msa_flax.saliency.removal.impute`, so that
    the shape of what was removed tells the model little.

    Costs two calls of the model and two imputations an image and a fraction. An imputation of 224 x
    224 pixels takes 0.01 s (scattered pixels) to 0.2 s (large holes) on a CPU core; so here, unlike
    in deletion, the model may not be the bottleneck: with the default fractions, 0.5 s an image and
    a map of 7 x 7, 0.1 s where a map has no regions.

    Args:
        score_fn: as in :func:`deletion`.
        images: as in :func:`deletion`.
        maps: as in :func:`deletion`.
        signs: as in :func:`deletion`.
        fractions: shares of the pixels, above 0 and below 1.
        noise: standard deviation of the noise on imputed pixels, grey levels.
        seed: of the noise and of the order of pixels that a map does not tell apart.
        batch_size: images a call.

    Raises:
        SaliencyError: shapes, signs, fractions or values are not as described.
    """
    check(images, maps, signs)
    if not fractions or not all(0 < fraction < 1 for fraction in fractions):
        raise SaliencyError(f"fractions: expected values between 0 and 1, got {tuple(fractions)}")

    def pictures() -> Iterator[np.ndarray]:
        for image, saliency in zip(images, maps, strict=True):
            rng = generator(image, seed)
            order = pixel_order(saliency, len(image), rng)
            for ranked, fraction in itertools.product((order, order[::-1]), fractions):
                removed = first(ranked, fraction, len(image))
                yield impute(image, removed, noise=noise, rng=rng)

    found = evaluate(score_fn, pictures(), batch_size).reshape(len(images), 2, len(fractions))
    most, least = np.moveaxis(found * np.asarray(signs)[:, None, None], 1, 0)
    return Road(fractions=np.array(fractions), most=most, least=least)


def _curves(
    score_fn: ScoreFn,
    images: np.ndarray,
    maps: np.ndarray,
    *,
    signs: np.ndarray,
    fill: Fill,
    steps: int,
    seed: int,
    batch_size: int,
    insert: bool,
) -> Curves:
    check(images, maps, signs)
    if steps < 1:
        raise SaliencyError(f"steps: expected 1 or more, got {steps}")
    fractions = np.arange(steps + 1) / steps

    def pictures() -> Iterator[np.ndarray]:
        for image, saliency in zip(images, maps, strict=True):
            order = pixel_order(saliency, len(image), generator(image, seed))
            empty = filled(image, fill)
            changed, rest = (image, empty) if insert else (empty, image)
            for fraction in fractions:
                yield np.where(first(order, fraction, len(image)), changed, rest)

    found = evaluate(score_fn, pictures(), batch_size).reshape(len(images), steps + 1)
    return Curves(fractions=fractions, logits=found * np.asarray(signs)[:, None])


def _in_unit(logits: np.ndarray, unit: Unit) -> np.ndarray:
    from scipy.special import expit

    if unit not in ("logit", "probability"):
        raise SaliencyError(f"unit: expected logit or probability, got {unit!r}")
    return logits if unit == "logit" else np.asarray(expit(logits))
