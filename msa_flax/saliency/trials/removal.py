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
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.trials import pixels
from msa_flax.saliency.trials.verdicts import Measure

Unit = Literal["logit", "probability"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How maps are measured.

    Attributes:
        fill: what replaces removed pixels in deletion, insertion and infidelity: "blur" or "black",
            see :func:`msa_flax.saliency.trials.pixels.filled`.
        steps: deletion and insertion curves have steps + 1 points, from nothing to everything.
        fractions: shares of the pixels that ROAD removes, above 0 and below 1.
        samples: squares per image that infidelity fills in.
        seed: of noise, of places, and of the order of pixels that a map does not tell apart.
        batch_size: images per call of the model.
    """

    fill: pixels.Fill = "blur"
    steps: int = 20
    fractions: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9)
    samples: int = 32
    seed: int = 0
    batch_size: int = 32


DEFAULT = Settings()


def removal_curves(
    kind: Literal["deletion", "insertion"],
    score_fn: pixels.ScoreFn,
    images: np.ndarray,
    maps: np.ndarray,
    *,
    signs: np.ndarray,
    settings: Settings = DEFAULT,
) -> np.ndarray:
    """Returns deletion or insertion curves (Petsiuk et al. 2018): logits, float64 [n, steps + 1].

    In "deletion" the most salient pixels of the image are filled in first: the smaller the area
    under the curve, the better the map. In "insertion" they are the first to appear in the filled
    image: the larger the area, the better. Costs steps + 1 calls of the model per image.

    Args:
        kind: "deletion" or "insertion".
        score_fn: float32 [batch_size, s, s], grey levels 0..255 -> logits of fracture
            [batch_size]; always called with that many images, so that it compiles once.
        images: uint8 or float [n, s, s], 0..255.
        maps: [n, h, w] of any resolution, resized to the images.
        signs: +1 where the map explains "fracture", -1 where "normal", [n].
        settings: fill, steps, seed and batch size.

    Raises:
        SaliencyError: shapes, signs or values are not as described.
    """
    pixels.check_maps(images, maps, signs)
    if settings.steps < 1:
        raise SaliencyError(f"steps: expected 1 or more, got {settings.steps}")

    def pictures() -> Iterator[np.ndarray]:
        for image, saliency in zip(images, maps, strict=True):
            rng = pixels.own_rng(image, settings.seed)
            ranked = pixels.order(saliency, len(image), rng)
            empty = pixels.filled(image, settings.fill)
            changed, rest = (empty, image) if kind == "deletion" else (image, empty)
            for step in range(settings.steps + 1):
                gone = pixels.most_salient(ranked, step / settings.steps, len(image))
                yield np.where(gone, changed, rest)

    logits = pixels.logits_of(score_fn, pictures(), settings.batch_size).reshape(len(images), -1)
    return logits * np.asarray(signs)[:, None]


def curve_auc(logits: np.ndarray, unit: Unit) -> np.ndarray:
    """Returns the area under each image's curve, float64 [n], by the trapezoid rule.

    Args:
        logits: [n, steps + 1], from :func:`removal_curves`.
        unit: whether the curve is that of the logit or of its probability.
    """
    steps = logits.shape[1] - 1
    return np.trapezoid(_in_unit(logits, unit), np.arange(steps + 1) / steps, axis=1)


def road(
    score_fn: pixels.ScoreFn,
    images: np.ndarray,
    maps: np.ndarray,
    *,
    signs: np.ndarray,
    settings: Settings = DEFAULT,
) -> np.ndarray:
    """Returns what ROAD measures (Rong et al. 2022): logits, float64 [2, n, fractions].

    First those with the most salient pixels removed, then those with the least salient ones
    removed. Removed pixels are imputed from those around them
    (:func:`msa_flax.saliency.trials.pixels.impute`), so that the shape of what was removed tells
    the model little.

    Costs two calls of the model and two imputations per image and fraction. An imputation of 224 x
    224 pixels takes 0.01 s (scattered pixels) to 0.2 s (large holes) on a CPU core. So here, unlike
    in deletion, the model may not be the bottleneck: with the default fractions it is 0.5 s per
    image for a map of 7 x 7, and 0.1 s for a map without regions.

    Args:
        score_fn: as in :func:`removal_curves`.
        images: as in :func:`removal_curves`.
        maps: as in :func:`removal_curves`.
        signs: as in :func:`removal_curves`.
        settings: fractions, seed and batch size.

    Raises:
        SaliencyError: shapes, signs, fractions or values are not as described.
    """
    pixels.check_maps(images, maps, signs)
    fractions = settings.fractions
    if not fractions or not all(0 < fraction < 1 for fraction in fractions):
        raise SaliencyError(f"fractions: expected values between 0 and 1, got {tuple(fractions)}")

    def pictures() -> Iterator[np.ndarray]:
        for image, saliency in zip(images, maps, strict=True):
            rng = pixels.own_rng(image, settings.seed)
            ranked = pixels.order(saliency, len(image), rng)
            for first, fraction in itertools.product((ranked, ranked[::-1]), fractions):
                removed = pixels.most_salient(first, fraction, len(image))
                yield pixels.impute(image, removed, rng=rng)

    logits = pixels.logits_of(score_fn, pictures(), settings.batch_size)
    logits = logits.reshape(len(images), 2, len(fractions)) * np.asarray(signs)[:, None, None]
    return np.moveaxis(logits, 1, 0)


def road_gap(logits: np.ndarray, unit: Unit) -> np.ndarray:
    """Returns half the mean of (least - most) over the fractions, float64 [n].

    Above 0 where the map ranks pixels as the model does; 0 on average for a random map.

    Args:
        logits: [2, n, fractions], from :func:`road`.
        unit: whether it is the gap of the logit or of its probability.
    """
    most, least = _in_unit(logits, unit)
    return (least - most).mean(axis=1) / 2


def removal_scores(
    score_fn: pixels.ScoreFn,
    images: np.ndarray,
    maps: np.ndarray,
    *,
    signs: np.ndarray,
    settings: Settings = DEFAULT,
) -> tuple[dict[Measure, np.ndarray], float]:
    """Returns the scores of maps by deletion, insertion and ROAD, and what there is to gain.

    The latter is the mean change of the logit when the whole image is filled in: the same for every
    map. Arguments and errors are those of :func:`removal_curves` and :func:`road`.
    """
    deletion, insertion = (
        removal_curves(kind, score_fn, images, maps, signs=signs, settings=settings)
        for kind in ("deletion", "insertion")
    )
    ranked = road(score_fn, images, maps, signs=signs, settings=settings)
    filling = f"{settings.steps} steps, filled by {settings.fill}"
    shares = ", ".join(f"{fraction:g}" for fraction in settings.fractions)
    scores = {}
    for unit in get_args(Unit):
        for kind, better, how, values in (
            ("deletion", -1, filling, curve_auc(deletion, unit)),
            ("insertion", 1, filling, curve_auc(insertion, unit)),
            ("ROAD", 1, f"{shares} of pixels, noise {pixels.NOISE:g}", road_gap(ranked, unit)),
        ):
            name, decides = f"{kind} ({unit})", unit == "logit"
            scores[Measure(name=name, better=better, decides=decides, settings=how)] = values
    return scores, float(np.abs(deletion[:, 0] - deletion[:, -1]).mean())


def _in_unit(logits: np.ndarray, unit: Unit) -> np.ndarray:
    from scipy.special import expit

    return logits if unit == "logit" else np.asarray(expit(logits))
