"""Explaining many images: batches in, maps, a table and files out."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from msa_flax.saliency.gradcam import FeaturesFn, gradcam
from msa_flax.saliency.render import area_share, mass_inside, safe_stem, write_explanation

COLUMNS = (
    "example_id",
    "label",
    "probability",
    "stem",
    "maximum_fracture",
    "maximum_normal",
    "mass_inside",
    "area_share",
)
DILATE_FRACTION = 0.06  # masks are widened by this share of the image's side before mass is counted

Explain = Callable[[Any, np.ndarray], Mapping[str, jax.Array]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanations:
    """What a model says about n images, and where it looked; maps are raw, of feature size."""

    logit: np.ndarray  # float32 [n], of fracture
    fracture: np.ndarray  # float32 [n, h, w], Grad-CAM for fracture
    normal: np.ndarray  # float32 [n, h, w], Grad-CAM for normal
    attention: dict[int, np.ndarray]  # kernel size -> [n, h, w] in 0..1; empty without attention

    def mass(self, masks: np.ndarray) -> np.ndarray:
        """Returns [n, 2]: the share of the fracture map's mass on the mask, and the mask's area.

        Masks are widened by ``DILATE_FRACTION``. NaN where a map is all zero or a mask is empty.

        Args:
            masks: uint8 [n, s, s], not 0 on the fracture.
        """
        dilate = round(DILATE_FRACTION * masks.shape[-1])
        return np.array(
            [
                (mass_inside(saliency, mask, dilate=dilate), area_share(mask, dilate=dilate))
                for saliency, mask in zip(self.fracture, masks, strict=True)
            ]
        ).reshape(-1, 2)


def make_explain_step(
    features_fn: Callable[[Any, Any], jax.Array],
    head_fn: Callable[[Any, jax.Array], tuple[jax.Array, Mapping[str, jax.Array]]],
) -> Explain:
    """Builds the pure step (variables, images) -> logit, both Grad-CAM maps, attention maps.

    Args:
        features_fn: (variables, images) -> feature maps [b, h, w, c].
        head_fn: (variables, feature maps) -> (logits [b], {"attention_<k>": maps [b, h, w]}).
    """

    def step(variables: Any, images: Any) -> Mapping[str, jax.Array]:
        features = features_fn(variables, images)
        logit, attention = head_fn(variables, features)

        def head(x: jax.Array) -> jax.Array:
            return head_fn(variables, x)[0]

        same: FeaturesFn = lambda x: x  # noqa: E731  (the features are computed once for both)
        return {
            "logit": logit,
            "fracture": gradcam(same, head, features, "fracture"),
            "normal": gradcam(same, head, features, "normal"),
            **attention,
        }

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
    whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    attention = {
        int(key.removeprefix("attention_")): whole.pop(key)
        for key in sorted(whole)
        if key.startswith("attention_")
    }
    return Explanations(**whole, attention=attention)


def write_explanations(
    out_dir: pathlib.Path,
    found: Explanations,
    *,
    example_id: np.ndarray,
    label: np.ndarray,
    probability: np.ndarray,
    images: np.ndarray,
    masks: np.ndarray | None = None,
) -> str:
    """Writes the files of every image and returns the table ``explanations.csv`` as text.

    Args:
        out_dir: the folder; made if it is not there.
        found: explanations of n images.
        example_id: str [n].
        label: [n]; below 0 if unknown.
        probability: [n], of fracture.
        images: uint8 [n, s, s].
        masks: uint8 [n, s, s]; None where fractures are not outlined.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    mass = None if masks is None else found.mass(masks)
    for i, name in enumerate(example_id.tolist()):
        stem = safe_stem(name)
        write_explanation(
            out_dir,
            stem,
            image=images[i],
            fracture=found.fracture[i],
            normal=found.normal[i],
            attention={k: maps[i] for k, maps in found.attention.items()},
        )
        peaks = [f"{maps[i].max():.6g}" for maps in (found.fracture, found.normal)]
        shares = ["", ""] if mass is None or np.isnan(mass[i, 1]) else [f"{v:.6f}" for v in mass[i]]
        known = "" if label[i] < 0 else int(label[i])
        writer.writerow([name, known, f"{probability[i]:.6f}", stem, *peaks, *shares])
    return text.getvalue()
