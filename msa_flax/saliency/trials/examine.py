"""A network's maps put to every trial: what ``explain --faithfulness`` does with some images."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from msa_flax.saliency.controls import attention_maps, random_map
from msa_flax.saliency.explain import Explanations
from msa_flax.saliency.interface import SIGNS, SaliencyError
from msa_flax.saliency.methods import METHODS
from msa_flax.saliency.titles import CONTROLS
from msa_flax.saliency.trials.agreement import Agreement, agreement, rank_correlation
from msa_flax.saliency.trials.localisation import localise
from msa_flax.saliency.trials.pixels import ScoreFn, check_maps
from msa_flax.saliency.trials.removal import DEFAULT, Settings, removal_scores
from msa_flax.saliency.trials.stability import RADIUS, infidelity, sensitivity_max
from msa_flax.saliency.trials.verdicts import Measure, MethodScore, check_controls, judge

RANDOM_PIXELS = "random_pixels"  # the random map that is a control of maps as fine as the image
STABILITY_IMAGES = 32  # on which sensitivity-max is measured; half of them for costly methods
STABILITY_SAMPLES = 4  # perturbations per image; each costs an explanation
_AT_ONCE = 8  # explanations, where images are few

Explainer = Callable[[np.ndarray, Sequence[str]], Explanations]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What came of testing some methods on the same images.

    Attributes:
        results: of every method and measure, with verdicts.
        agreement: of the methods' maps with each other.
        random_weights: method -> rank correlation with its maps of random weights.
    """

    results: list[MethodScore]
    agreement: Agreement
    random_weights: Mapping[str, float]


def examine(
    explain: Explainer,
    randomised: Explainer,
    score_fn: ScoreFn,
    found: Explanations,
    *,
    images: np.ndarray,
    signs: np.ndarray,
    groups: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    at_layer: bool = False,
    settings: Settings = DEFAULT,
) -> Examination:
    """Tests the maps of the predicted class, of every method and of the attention.

    Methods whose maps are fine (``MethodEntry.fine``) are compared with random pixels, all others,
    and the attention, with a random map as coarse as the features; both with the centre prior. So
    fine methods are to be examined apart from the others.

    Args:
        explain: (images, methods) -> their explanations.
        randomised: the same for the network with random weights.
        score_fn: see :func:`assess`.
        found: explanations of the n images; the controls are added here.
        images: uint8 [n, s, s].
        signs: +1 where fracture was predicted, -1 where normal was, [n].
        groups: patient or series, [n], "" unknown.
        masks: [n, s, s], not 0 on the fracture; used where fracture was predicted. None: unknown.
        at_layer: whether ``explain`` explains another layer than the backbone's last. Random maps
            are then made here, as coarse as those of ``found``, since ``explain`` has no layer for
            them, and the attention, which belongs to the last layer, is left out.
        settings: of the measures.
    """
    methods = [name for name in found.maps if name not in CONTROLS]
    attention = {} if at_layer else attention_maps(found.attention)
    if at_layer:
        explain = _with_controls(explain, found)
    by_class = {**found.maps, **explain(images, CONTROLS).maps}
    maps = {name: _of_predicted(both, signs) for name, both in by_class.items()}
    controls = list(CONTROLS)
    if all(METHODS[name].fine for name in methods):
        # To a network, pixels missing here and there are not what a missing region is.
        del maps["random_map"]
        maps[RANDOM_PIXELS] = np.asarray(random_map(_pixels, _no_head, images, "fracture"))
        controls = [RANDOM_PIXELS, "centre_prior"]
    else:
        maps |= {name: np.asarray(values) for name, values in attention.items()}
    fresh = randomised(images, methods)
    correlation = {
        name: float(np.nanmean(ranks)) if np.isfinite(ranks).any() else np.nan
        for name in methods
        for ranks in [rank_correlation(maps[name], _of_predicted(fresh.maps[name], signs))]
    }
    moved = _stability(explain, images, signs, [*methods, *CONTROLS], settings)
    moved[RANDOM_PIXELS] = moved["random_map"]  # another image has another map, at any resolution
    unknown = np.full(len(images), np.nan)
    how = f"{STABILITY_SAMPLES} perturbations of up to {RADIUS:g} grey values"
    stability = Measure(name="sensitivity-max", better=-1, settings=how)
    results = assess(
        maps,
        images,
        score_fn,
        signs=signs,
        groups=groups,
        masks=None if masks is None else masks * (signs > 0)[:, None, None].astype(masks.dtype),
        controls=controls,
        weights_correlation=correlation,
        further={stability: {name: moved.get(name, unknown) for name in maps}},
        settings=settings,
    )
    beside = agreement(maps, size=images.shape[1])
    return Examination(results=results, agreement=beside, random_weights=correlation)


def assess(
    maps: Mapping[str, np.ndarray],
    images: np.ndarray,
    score_fn: ScoreFn,
    *,
    signs: np.ndarray,
    groups: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    controls: Sequence[str] = CONTROLS,
    weights_correlation: Mapping[str, float] | None = None,
    further: Mapping[Measure, Mapping[str, np.ndarray]] | None = None,
    settings: Settings = DEFAULT,
) -> list[MethodScore]:
    """Measures maps by deletion, insertion, ROAD and infidelity, and judges their methods.

    For each image and map this costs 2 (steps + 1) + 2 len(fractions) calls of the model and
    2 len(fractions) imputations (see :func:`msa_flax.saliency.trials.removal.road`); for each
    image, samples + 1 calls more.

    Controls should be as coarse as the maps. Where maps of several resolutions are judged together,
    give controls of each: a method has to be better than all of them.

    Args:
        maps: name -> [n, h, w] of any resolution; among them the controls.
        images: uint8 [n, s, s].
        score_fn: as in :func:`msa_flax.saliency.trials.removal.removal_curves`.
        signs: +1 where maps explain "fracture", -1 where "normal", [n].
        groups: patient or series of each image, [n]; "" is unknown, and None all unknown.
        masks: [n, s, s], not 0 on the fracture; None where fractures are not outlined.
        controls: names of maps that know nothing of the network.
        weights_correlation: name -> mean rank correlation of a method's maps with those of random
            weights (:func:`msa_flax.saliency.trials.agreement.rank_correlation`); NaN if undefined.
        further: scores that were measured elsewhere, method -> [n], such as those of
            :func:`msa_flax.saliency.trials.stability.sensitivity_max`; controls among them.
        settings: of the measures.

    Returns:
        results with verdicts, all measures of a method together.

    Raises:
        SaliencyError: a control is missing, or shapes or values are not as described.
    """
    check_controls(controls, maps)
    for values in maps.values():
        check_maps(images, values, signs)
    placed = {}  # first, since it costs little and refuses masks that do not fit
    if masks is not None:
        place = functools.partial(localise, masks=masks, size=images.shape[1], seed=settings.seed)
        placed = {name: place(values) for name, values in maps.items()}
    scores: dict[Measure, dict[str, np.ndarray]] = {}
    for name, values in maps.items():
        measured, reach = removal_scores(score_fn, images, values, signs=signs, settings=settings)
        for kind, score in placed.get(name, {}).items():
            measured[Measure(name=kind, better=1)] = score
        for measure, score in measured.items():
            scores.setdefault(measure, {})[name] = score
    how = f"{settings.samples} patches, filled by {settings.fill}"
    scores[Measure(name="infidelity", better=-1, settings=how)] = infidelity(
        score_fn, images, maps, signs=signs, settings=settings
    )
    return judge(
        {**scores, **(further or {})},
        controls=controls,
        groups=groups,
        reach=reach,
        weights_correlation=weights_correlation,
    )


def _with_controls(explain: Explainer, found: Explanations) -> Explainer:
    """Returns ``explain``, but the controls are made here, the random one as coarse as ``found``.

    Raises:
        SaliencyError: the maps have several resolutions.
    """
    sizes = {maps["fracture"].shape[1:] for maps in found.maps.values()}
    if len(sizes) != 1:
        raise SaliencyError(f"maps: expected those of one layer, got {len(sizes)} resolutions")
    (size,) = sizes

    def cells(images: Any) -> Any:
        return jnp.zeros((len(images), *size, 1))

    def answer(images: np.ndarray, methods: Sequence[str]) -> Explanations:
        if not set(methods) <= set(CONTROLS):
            return explain(images, methods)
        maps = {}
        for name in methods:
            values = METHODS[name].explain(cells, _no_head, images, "fracture")
            maps[name] = dict.fromkeys(SIGNS, np.asarray(values))
        return Explanations(logit=np.full(len(images), np.nan), maps=maps, attention={})

    return answer


def _of_predicted(by_class: Mapping[str, np.ndarray], signs: np.ndarray) -> np.ndarray:
    """Returns each image's map of the class that was predicted."""
    return np.where((signs > 0)[:, None, None], by_class["fracture"], by_class["normal"])


def _stability(
    explain: Explainer,
    images: np.ndarray,
    signs: np.ndarray,
    methods: Sequence[str],
    settings: Settings,
) -> dict[str, np.ndarray]:
    """Returns sensitivity-max of every method, NaN where not measured."""
    count = min(STABILITY_IMAGES, len(images))
    chosen = np.unique(np.linspace(0, len(images) - 1, count).astype(np.intp))
    measure = functools.partial(
        sensitivity_max, samples=STABILITY_SAMPLES, seed=settings.seed, batch_size=_AT_ONCE
    )
    moved = {}
    for name in methods:
        moved[name] = np.full(len(images), np.nan)
        measured = chosen[::2] if METHODS[name].forward_only else chosen
        for target, sign in SIGNS.items():
            rows = measured[signs[measured] == sign]

            def maps(batch: np.ndarray, name: str = name, target: str = target) -> np.ndarray:
                return explain(batch, [name]).maps[name][target]

            if len(rows):
                moved[name][rows] = measure(maps, images[rows])
    return moved


def _pixels(images: Any) -> Any:
    return jnp.asarray(images)[..., None]


def _no_head(features: Any) -> Any:
    return features[:, 0, 0, 0]
