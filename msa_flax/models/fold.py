"""Batch normalisation folded into the convolutions that come before it, for faster inference."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

EPSILON = 1e-3  # of the BatchNorm layers of both MobileNets


def fold_batch_norm(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns variables with which the same model computes the same without normalising.

    In inference a BatchNorm layer multiplies each channel by a gain and adds a shift. The gain
    moves into the kernel of the convolution before it; the layer keeps the shift as its only
    parameter, ``bias``, by which :class:`~msa_flax.models.layers.BatchNorm` recognises that it was
    folded. Computed in float64; the logits agree to float32 rounding. Such variables cannot be
    trained.

    Args:
        variables: ``params`` and ``batch_stats``. A layer called ``<x>_bn``, ``<x>_BN`` or
            ``bn_<x>`` belongs to the convolution ``<x>`` beside it, which must have no bias, as in
            both MobileNets. All other layers stay as they are.
    """
    params, stats = _fold(variables["params"], variables.get("batch_stats", {}))
    return jax.tree.map(jnp.asarray, {**variables, "params": params, "batch_stats": stats})


def _fold(
    params: Mapping[str, PyTree], stats: Mapping[str, PyTree]
) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    folded, kept = dict(params), dict(stats)
    for name, values in stats.items():
        convolution = name.removesuffix("_bn").removesuffix("_BN").removeprefix("bn_")
        if "mean" not in values:
            folded[name], kept[name] = _fold(params[name], values)
        elif set(params.get(convolution, ())) == {"kernel"}:
            layer = {**params[name], **values, "kernel": params[convolution]["kernel"]}
            wide = {key: np.asarray(array, np.float64) for key, array in layer.items()}
            gain = wide["scale"] / np.sqrt(wide["var"] + EPSILON)
            folded[convolution] = {"kernel": (wide["kernel"] * gain).astype(np.float32)}
            folded[name] = {"bias": (wide["bias"] - wide["mean"] * gain).astype(np.float32)}
            del kept[name]
    return folded, kept
