"""The step that explains this package's classifiers, which have ``features`` and ``head``."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from msa_flax.saliency.explain import Explain, make_explain_step
from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.methods import choose
from msa_flax.saliency.network import at_layer


def make_classifier_step(
    model: Any,
    prepare: Callable[[Any], jax.Array],
    methods: Sequence[str],
    *,
    layer: str | None = None,
) -> Explain:
    """Returns the pure step of :func:`msa_flax.saliency.make_explain_step` for a classifier.

    Args:
        model: a Linen module with the methods ``features`` and ``head``.
        prepare: images uint8 [b, s, s] to what the model takes.
        methods: keys of :data:`msa_flax.saliency.METHODS`.
        layer: the layer to explain; by default the last one of the backbone.
    """
    chosen = choose(methods, layer=layer)

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
        forward = [name for name, method in chosen.items() if method.forward_only]
        if forward and not split.is_cut:
            raise SaliencyError(
                f"layer: {', '.join(forward)} needs one that everything passes; paths lead around "
                f"{layer!r}; take the block's output, or another method"
            )
        return split.features_fn, split.head_fn

    return make_explain_step(features, head, chosen, layer_fn=halves if layer else None)
