"""Explanations of this package's classifiers, which have ``features`` and ``head``."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from msa_flax.saliency.explanations import Explain, make_explain_step
from msa_flax.saliency.layers import at_layer
from msa_flax.saliency.methods import METHODS, choose
from msa_flax.saliency.render import SaliencyError


def make_classifier_step(
    model: Any,
    prepare: Callable[[Any], jax.Array],
    methods: Sequence[str],
    *,
    layer: str | None = None,
) -> Explain:
    """Returns :func:`make_explain_step`'s pure step for a classifier.

    Args:
        model: a Linen module with the methods ``features`` and ``head``.
        prepare: images uint8 [b, s, s] to what the model takes.
        methods: keys of :data:`msa_flax.saliency.METHODS`.
        layer: the layer to explain; by default the last one of the backbone.
    """

    def features(variables: Any, images: Any) -> jax.Array:
        maps: Any = model.apply(variables, prepare(images), method="features")
        return maps

    def head(variables: Any, maps: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        logit, sown = model.apply(variables, maps, method="head", mutable=["intermediates"])
        attention = sown.get("intermediates", {}).get("attention", {})
        return logit, {name: values[0] for name, values in attention.items()}

    def halves(variables: Any, images: Any) -> tuple[Any, Any]:
        assert layer is not None
        split = at_layer(model, variables, layer, images, prepare=prepare)
        forward = [name for name in methods if METHODS[name].forward_only]
        if forward and not split.is_cut:
            raise SaliencyError(
                f"layer: {', '.join(forward)} needs one that everything passes; ways lead around "
                f"{layer!r}; take the block's output, or another method"
            )
        return split.features_fn, split.head_fn

    return make_explain_step(features, head, choose(methods), layer_fn=halves if layer else None)
