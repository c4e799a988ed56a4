"""A network's maps put to every test: what ``explain --faithfulness`` does with some images."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from msa_flax.saliency.assessment import Settings, assess
from msa_flax.saliency.comparisons import Measure, Result
from msa_flax.saliency.controls import attention_maps, random_map
from msa_flax.saliency.explanations import Explanations
from msa_flax.saliency.methods import CONTROLS, METHODS
from msa_flax.saliency.removal import ScoreFn
from msa_flax.saliency.render import SaliencyError
from msa_flax.saliency.sanity import Agreement, agreement, rank_correlation
from msa_flax.saliency.stability import RADIUS, sensitivity_max
from msa_flax.saliency.verdicts import RULE, rows, table

FINE = "random_pixels"  # the reference of maps as fine as the image
_AT_ONCE = 8  # explanations, where images are few
STABILITY_SAMPLES = 4  # perturbations an image; each costs an explanation

Explainer = Callable[[np.ndarray, Sequence[str]], Explanations]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What came of testing some methods on the same images."""

    results: list[Result]
    agreement: Agreement
    insensitive: Mapping[str, float]  # rank correlation with the maps of random weights

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON can hold it; what is undefined is None."""
        matrices = {"correlation": self.agreement.correlation, "overlap": self.agreement.overlap}
        return {
            "rows": rows(self.results),
            "random_weights": {name: _plain(value) for name, value in self.insensitive.items()},
            "agreement": {
                "methods": list(self.agreement.names),
                "top": self.agreement.top,
                **{
                    name: [[_plain(value) for value in line] for line in matrix]
                    for name, matrix in matrices.items()
                },
            },
        }

    def text(self) -> str:
        """Returns the tables in Markdown."""
        names = self.agreement.names
        head = ["rank correlation", *names]
        lines = [
            [name, *(_shown(value) for value in line)]
            for name, line in zip(names, self.agreement.correlation, strict=True)
        ]
        lines.append(["**random weights**", *(_shown(self.insensitive.get(n)) for n in names)])
        cells = [head, ["---"] * len(head), *lines]
        beside = "\n".join("| " + " | ".join(line) + " |" for line in cells)
        return (
            f"{table(self.results)}\nMaps beside each other, and beside those of the same method "
            f"with random weights; mean over the images.\n\n{beside}\n"
        )


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
    stability_images: int = 32,
    settings: Settings | None = None,
) -> Examination:
    """Tests the maps of the class that was called, of every method and of the attention.

    Methods whose maps are fine (``Method.fine``) are held against random pixels, all others, and
    the attention, against a random map as coarse as features; both against the centre prior. So
    fine methods are to be examined apart from the others.

    Args:
        explain: (images, methods) -> their explanations.
        randomised: idem, of the same network with random weights.
        score_fn: see :func:`msa_flax.saliency.assessment.assess`.
        found: explanations of the n images; the references are added here.
        images: uint8 [n, s, s].
        signs: +1 where fracture was called, -1 where normal was, [n].
        groups: patient or series, [n], "" unknown.
        masks: [n, s, s], not 0 on the fracture; used where fracture was called. None: unknown.
        at_layer: whether ``explain`` explains another layer than the backbone's last. Random maps
            are then made here, as coarse as those of ``found``, since ``explain`` has no layer for
            them, and the attention, which belongs to the last layer, is left out.
        stability_images: images on which sensitivity-max is measured, evenly spaced; half of them
            for methods that are ``forward_only``, at their cost.
        settings: of the measures.
    """
    settings = settings or Settings()
    if at_layer:
        explain = _with_controls(explain, found)
        found = dataclasses.replace(found, attention={})
    found = found.with_maps(explain(images, CONTROLS).maps)
    maps = {name: _called(by_class, signs) for name, by_class in found.maps.items()}
    references = list(CONTROLS)
    if all(METHODS[name].fine for name in found.maps if name not in CONTROLS):
        # Pixels removed here and there are to a network what no removed region is.
        del maps["random_map"]
        maps[FINE] = np.asarray(random_map(_pixels, _no_head, images, "fracture"))
        references = [FINE, "centre_prior"]
    else:
        of_attention = attention_maps(found.attention)
        maps |= {name: np.asarray(values) for name, values in of_attention.items()}
    methods = [name for name in found.maps if name not in CONTROLS]
    fresh = randomised(images, methods)
    correlation = {
        name: float(np.nanmean(ranks)) if np.isfinite(ranks).any() else np.nan
        for name in methods
        for ranks in [rank_correlation(maps[name], _called(fresh.maps[name], signs))]
    }
    moved = _stability(
        explain,
        images,
        signs,
        [*methods, *CONTROLS],
        count=stability_images,
        settings=settings,
    )
    moved[FINE] = moved["random_map"]  # another image has another map, whatever its resolution
    unknown = np.full(len(images), np.nan)
    results = assess(
        maps,
        images,
        score_fn,
        signs=signs,
        groups=groups,
        masks=None if masks is None else masks * (signs > 0)[:, None, None].astype(masks.dtype),
        references=references,
        weights_correlation=correlation,
        further={
            Measure(
                name="sensitivity-max",
                better=-1,
                settings=f"{STABILITY_SAMPLES} perturbations of up to {RADIUS:g} grey values",
            ): {name: moved.get(name, unknown) for name in maps}
        },
        settings=settings,
    )
    beside = agreement(maps, size=images.shape[1])
    return Examination(results=results, agreement=beside, insensitive=correlation)


def examination_json(examinations: Sequence[Examination]) -> dict[str, Any]:
    """Returns what ``faithfulness.json`` holds of some examinations, with the rule of verdicts."""
    return {"schema_version": 1, "rule": RULE, "tables": [one.to_dict() for one in examinations]}


def _with_controls(explain: Explainer, found: Explanations) -> Explainer:
    """Returns ``explain`` but for the controls, of which the random one is as coarse as ``found``.

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
        made = {
            name: np.asarray(METHODS[name].explain(cells, _no_head, images, "fracture"))
            for name in methods
        }
        maps = {name: {"fracture": values, "normal": values} for name, values in made.items()}
        return Explanations(logit=np.full(len(images), np.nan), maps=maps, attention={})

    return answer


def _called(by_class: Mapping[str, np.ndarray], signs: np.ndarray) -> np.ndarray:
    """Returns each image's map of the class that was called."""
    return np.where((signs > 0)[:, None, None], by_class["fracture"], by_class["normal"])


def _stability(
    explain: Explainer,
    images: np.ndarray,
    signs: np.ndarray,
    methods: Sequence[str],
    *,
    count: int,
    settings: Settings,
) -> dict[str, np.ndarray]:
    """Returns sensitivity-max of every method, NaN where not measured."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(np.intp))
    found = {}
    for name in methods:
        found[name] = np.full(len(images), np.nan)
        measured = chosen[::2] if METHODS[name].forward_only else chosen
        for sign, target in ((1, "fracture"), (-1, "normal")):
            rows_ = measured[signs[measured] == sign]

            def maps(batch: np.ndarray, name: str = name, target: str = target) -> np.ndarray:
                return explain(batch, [name]).maps[name][target]

            if len(rows_):
                found[name][rows_] = sensitivity_max(
                    maps,
                    images[rows_],
                    samples=STABILITY_SAMPLES,
                    seed=settings.seed,
                    batch_size=_AT_ONCE,
                )
    return found


def _pixels(images: Any) -> Any:
    return jnp.asarray(images)[..., None]


def _no_head(features: Any) -> Any:
    return features[:, 0, 0, 0]


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _shown(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.2f}"
