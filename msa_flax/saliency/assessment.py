"""Everything that is measured of maps, put together: what a command calls."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.saliency.comparisons import Measure, Result, check_references, compare
from msa_flax.saliency.faithfulness import (
    FRACTIONS,
    NOISE,
    STEPS,
    Unit,
    deletion,
    insertion,
    road,
)
from msa_flax.saliency.localisation import check_masks, localise
from msa_flax.saliency.removal import Fill, ScoreFn, check
from msa_flax.saliency.stability import SAMPLES, infidelity
from msa_flax.saliency.verdicts import REFERENCES, judge


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How maps are measured; everything is described where it is used.

    Attributes:
        fill: what replaces removed pixels in deletion, insertion and infidelity.
        steps: of deletion and insertion.
        fractions: of the pixels, removed by ROAD.
        noise: of ROAD, grey levels.
        samples: patches of infidelity.
        seed: of everything that is random.
        batch_size: images a call of the model.
    """

    fill: Fill = "blur"
    steps: int = STEPS
    fractions: Sequence[float] = FRACTIONS
    noise: float = NOISE
    samples: int = SAMPLES
    seed: int = 0
    batch_size: int = 32


def assess(
    maps: Mapping[str, np.ndarray],
    images: np.ndarray,
    score_fn: ScoreFn,
    *,
    signs: np.ndarray,
    groups: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    references: Sequence[str] = REFERENCES,
    weights_correlation: Mapping[str, float] | None = None,
    further: Mapping[Measure, Mapping[str, np.ndarray]] | None = None,
    settings: Settings = Settings(),
) -> list[Result]:
    """Measures maps by deletion, insertion, ROAD and infidelity, and judges their methods.

    An image and a map cost 2 (steps + 1) + 2 len(fractions) calls of the model and 2 len(fractions)
    imputations (see :func:`msa_flax.saliency.faithfulness.road`); an image, samples + 1 calls more.

    To a network, pixels missing here and there are not what a missing region is; so references
    should be as coarse as the maps. Where maps of several resolutions are judged together, give
    references of each: a method has to be better than all.

    Args:
        maps: name -> [n, h, w] of any resolution; among them the references.
        images: uint8 [n, s, s].
        score_fn: as in :func:`msa_flax.saliency.faithfulness.deletion`.
        signs: +1 where maps explain "fracture", -1 where "normal", [n].
        groups: patient or series of each image, [n]; "" is unknown, and None all unknown.
        masks: [n, s, s], not 0 on the fracture; None where fractures are not outlined.
        references: names of maps that know nothing of the network.
        weights_correlation: name -> mean rank correlation of a method's maps with those of random
            weights (:func:`msa_flax.saliency.sanity.rank_correlation`); NaN if undefined.
        further: scores that were measured elsewhere, method -> [n], such as those of
            :func:`msa_flax.saliency.stability.sensitivity_max`; references among them.
        settings: of the measures.

    Returns:
        results with verdicts, all measures of a method together.

    Raises:
        SaliencyError: a reference is missing, or shapes or values are not as described.
    """
    check_references(references, maps)
    for values in maps.values():
        check(images, values, signs)
    if masks is not None:
        check_masks(masks, images.shape)
    common: dict[str, Any] = {
        "signs": signs,
        "seed": settings.seed,
        "batch_size": settings.batch_size,
    }
    scores: dict[Measure, dict[str, np.ndarray]] = {}
    reach = 0.0
    for name, values in maps.items():
        found, reach = _curves(score_fn, images, values, settings, common)
        if masks is not None:
            placed = localise(values, masks, size=images.shape[1], seed=settings.seed)
            found |= {Measure(name=kind, better=1): score for kind, score in placed.items()}
        for measure, score in found.items():
            scores.setdefault(measure, {})[name] = score
    how = f"{settings.samples} patches, filled by {settings.fill}"
    scores[Measure(name="infidelity", better=-1, settings=how)] = infidelity(
        score_fn, images, maps, fill=settings.fill, samples=settings.samples, **common
    )
    results = [
        result
        for measure, by_method in (*scores.items(), *(further or {}).items())
        for result in compare(measure, by_method, references=references, groups=groups)
    ]
    return judge(
        results, references=references, reach=reach, weights_correlation=weights_correlation
    )


def _curves(
    score_fn: ScoreFn,
    images: np.ndarray,
    maps: np.ndarray,
    settings: Settings,
    common: Mapping[str, Any],
) -> tuple[dict[Measure, np.ndarray], float]:
    """Returns the scores of one method's maps by everything that removes pixels, and the reach."""
    filling: dict[str, Any] = {"fill": settings.fill, "steps": settings.steps, **common}
    removed = deletion(score_fn, images, maps, **filling)
    shown = insertion(score_fn, images, maps, **filling)
    ranked = road(
        score_fn, images, maps, fractions=settings.fractions, noise=settings.noise, **common
    )
    how = f"{settings.steps} steps, filled by {settings.fill}"
    shares = ", ".join(f"{fraction:g}" for fraction in settings.fractions)
    found = {}
    units: tuple[Unit, ...] = ("logit", "probability")
    for unit in units:
        for kind, better, described, scores in (
            ("deletion", -1, how, removed.area(unit)),
            ("insertion", 1, how, shown.area(unit)),
            ("ROAD", 1, f"{shares} of pixels, noise {settings.noise:g}", ranked.gap(unit)),
        ):
            name = f"{kind} ({unit})"
            key = Measure(name=name, better=better, decides=unit == "logit", settings=described)
            found[key] = scores
    return found, float(np.abs(removed.logits[:, 0] - removed.logits[:, -1]).mean())
