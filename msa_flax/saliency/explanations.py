"""Explaining many images: batches in, maps, a table and files out."""

import csv
import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from msa_flax.saliency.interface import SIGNS, TARGETS, FeaturesFn, HeadFn
from msa_flax.saliency.methods import METHODS, Method
from msa_flax.saliency.render import area_share, mass_inside, safe_stem, write_explanation

COLUMNS = (
    "example_id",
    "label",
    "probability",
    "stem",
    "method",
    "maximum_fracture",
    "maximum_normal",
    "mass_inside",
    "area_share",
)
DILATE_FRACTION = 0.06  # masks are widened by this share of the image's side before mass is counted

Explain = Callable[[Any, np.ndarray], Mapping[str, jax.Array]]
Maps = dict[str, dict[str, np.ndarray]]  # method -> "fracture" or "normal" -> float32 [n, h, w]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanations:
    """What a model says about n images, and where it looked.

    Maps are raw, neither normalised nor resized; those of image methods are of the image's size.
    """

    logit: np.ndarray  # float32 [n], of fracture
    maps: Maps
    attention: dict[int, np.ndarray]  # kernel size -> [n, h, w] in 0..1; empty without attention

    def mass(self, masks: np.ndarray, *, method: str = "gradcam") -> np.ndarray:
        """Returns [n, 2]: the share of the fracture map's mass on the mask, and the mask's area.

        Mass is what lies above 0. Masks are widened by ``DILATE_FRACTION``. NaN where a map has no
        mass or a mask is empty.

        Args:
            masks: uint8 [n, s, s], not 0 on the fracture.
            method: whose map.
        """
        dilate = round(DILATE_FRACTION * masks.shape[-1])
        maps = np.maximum(self.maps[method]["fracture"], 0)
        return np.array(
            [
                (mass_inside(saliency, mask, dilate=dilate), area_share(mask, dilate=dilate))
                for saliency, mask in zip(maps, masks, strict=True)
            ]
        ).reshape(-1, 2)

    def with_maps(self, more: Maps) -> "Explanations":
        """Returns the same with further maps of the same images."""
        return dataclasses.replace(self, maps={**self.maps, **more})


def make_explain_step(
    features_fn: Callable[[Any, Any], jax.Array],
    head_fn: Callable[[Any, jax.Array], tuple[jax.Array, Mapping[str, jax.Array]]],
    methods: Mapping[str, Method] | None = None,
    *,
    layer_fn: Callable[[Any, Any], tuple[FeaturesFn, HeadFn]] | None = None,
) -> Explain:
    """Builds the pure step (variables, images) -> logit, maps of both classes, attention maps.

    Its keys are "logit", "<method>/<target>" and "attention_<k>".

    Args:
        features_fn: (variables, images) -> feature maps [b, h, w, c]; images are uint8 [b, s, s],
            or float32 for methods that vary them.
        head_fn: (variables, feature maps) -> (logits [b], {"attention_<k>": maps [b, h, w]}).
        methods: of :data:`msa_flax.saliency.methods.METHODS`; Grad-CAM where nothing is named.
        layer_fn: (variables, images) -> the two halves of the network at another layer, which the
            methods then explain.
    """
    chosen = {"gradcam": METHODS["gradcam"]} if methods is None else methods

    def step(variables: Any, images: Any) -> Mapping[str, jax.Array]:
        features = features_fn(variables, images)
        logit, attention = head_fn(variables, features)

        def head(x: jax.Array) -> jax.Array:
            return head_fn(variables, x)[0]

        def whole(x: jax.Array) -> jax.Array:
            return features_fn(variables, x)

        def same(x: jax.Array) -> jax.Array:  # the features are computed once for all methods
            return x

        explained: jax.Array = features
        rest: HeadFn = head
        if layer_fn is not None:
            at_layer, rest = layer_fn(variables, images)
            explained = at_layer(images)
        maps: dict[str, jax.Array] = {}
        both = jnp.stack([jnp.full_like(logit, sign) for sign in SIGNS.values()])
        for name, method in chosen.items():
            explain = functools.partial(method.explain, same, rest, explained)
            if method.from_image:
                given = images.astype(jnp.float32)
                explain = functools.partial(method.explain, whole, head, given)
            if method.antisymmetric:
                fracture = explain("fracture")
                found = [fracture, -fracture]
            elif method.forward_only:
                # Mapped over the signs alone, what does not depend on them is computed once.
                found = list(jax.vmap(explain)(both))
            else:
                found = [explain(target) for target in TARGETS]
            maps |= {f"{name}/{target}": found[i] for i, target in enumerate(TARGETS)}
        return {"logit": logit, **maps, **attention}

    return step


def explain_images(
    step: Callable[[np.ndarray], Mapping[str, Any]], images: np.ndarray, *, batch_size: int
) -> Explanations:
    """Explains images in batches of one size, the last one filled up and cut again.

    Args:
        step: compiled, with the variables bound: images uint8 [batch_size, s, s] -> what
            :func:`make_explain_step` returns.
        images: uint8 [n, s, s], n >= 1.
        batch_size: images a call.
    """
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        filler = np.zeros((batch_size - len(batch), *batch.shape[1:]), batch.dtype)
        outputs = step(np.concatenate([batch, filler]))
        parts.append({key: np.asarray(value)[: len(batch)] for key, value in outputs.items()})
    logit = np.concatenate([part["logit"] for part in parts])
    maps: Maps = {}
    attention = {}
    for key in parts[0]:
        values = np.concatenate([part[key] for part in parts])
        if key.startswith("attention_"):
            attention[int(key.removeprefix("attention_"))] = values
        elif "/" in key:
            method, target = key.split("/")
            maps.setdefault(method, {})[target] = values
    return Explanations(logit=logit, maps=maps, attention=dict(sorted(attention.items())))


def mass_report(found: Explanations, masks: np.ndarray, detected: np.ndarray) -> str:
    """Says how much of the Grad-CAM maps' mass lies on the fractures that were detected.

    Args:
        found: explanations of n images.
        masks: uint8 [n, s, s].
        detected: bool [n], fractures that are called so.
    """
    mass = found.mass(masks)[detected]
    defined = mass[~np.isnan(mass[:, 0])]
    if len(defined) == 0:
        return "Grad-CAM on detected fractures: none detected, nothing to measure"
    inside, area = defined.mean(axis=0)
    return (
        f"Grad-CAM on {len(mass)} detected fractures: {inside:.3f} of the map's mass lies inside "
        f"the widened fracture mask, which covers {area:.3f} of the image "
        f"(ratio {inside / area:.1f}); {len(mass) - len(defined)} maps are all zero"
    )


def write_explanations(
    out_dir: pathlib.Path,
    found: Explanations,
    *,
    example_id: np.ndarray,
    label: np.ndarray,
    probability: np.ndarray,
    images: np.ndarray,
    masks: np.ndarray | None = None,
) -> list[list[Any]]:
    """Writes the files of every image; returns rows for :func:`table`, one an image and method.

    Args:
        out_dir: the folder; made if it is not there.
        found: explanations of n images.
        example_id: str [n].
        label: [n]; below 0 if unknown.
        probability: [n], of fracture.
        images: uint8 [n, s, s].
        masks: uint8 [n, s, s]; None where fractures are not outlined.
    """
    rows: list[list[Any]] = []
    mass = {} if masks is None else {name: found.mass(masks, method=name) for name in found.maps}
    for i, name in enumerate(example_id.tolist()):
        stem = safe_stem(name)
        maps = {
            method: {target: values[i] for target, values in by_target.items()}
            for method, by_target in found.maps.items()
        }
        attention = {k: values[i] for k, values in found.attention.items()}
        write_explanation(out_dir, stem, image=images[i], maps=maps, attention=attention)
        known = "" if label[i] < 0 else int(label[i])
        for method, by_target in maps.items():
            peaks = [f"{by_target[target].max():.6g}" for target in SIGNS]
            shares = ["", ""]
            if method in mass and not np.isnan(mass[method][i, 1]):
                shares = [f"{value:.6f}" for value in mass[method][i]]
            rows.append([name, known, f"{probability[i]:.6f}", stem, method, *peaks, *shares])
    return rows


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Returns ``explanations.csv`` as text: :data:`COLUMNS`, then the rows."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    return text.getvalue()
