"""Explaining many images: the step that is compiled, and the maps of all batches."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from msa_flax.files import batches
from msa_flax.saliency.interface import SIGNS, TARGETS, FeaturesFn, HeadFn, SaliencyError
from msa_flax.saliency.masks import DILATE_FRACTION, area_share, mass_inside
from msa_flax.saliency.methods import MethodEntry, choose
from msa_flax.saliency.network import at_layer

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


def make_explain_step(
    features_fn: Callable[[Any, Any], jax.Array],
    head_fn: Callable[[Any, jax.Array], tuple[jax.Array, Mapping[str, jax.Array]]],
    methods: Mapping[str, MethodEntry],
    *,
    layer_fn: Callable[[Any, Any], tuple[FeaturesFn, HeadFn]] | None = None,
) -> Explain:
    """Returns the pure step (variables, images) -> logit, maps of both classes, attention maps.

    Its keys are "logit", "<method>/<target>" and "attention_<k>".

    Args:
        features_fn: (variables, images) -> feature maps [b, h, w, c]; images are uint8 [b, s, s],
            or float32 for methods that vary them.
        head_fn: (variables, feature maps) -> (logits [b], {"attention_<k>": maps [b, h, w]}).
        methods: from :func:`msa_flax.saliency.choose`.
        layer_fn: (variables, images) -> the two halves of the network at another layer, which the
            methods then explain.
    """

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
            to_layer, rest = layer_fn(variables, images)
            explained = to_layer(images)
        maps: dict[str, jax.Array] = {}
        both = jnp.stack([jnp.full_like(logit, sign) for sign in SIGNS.values()])
        for name, method in methods.items():
            explain = functools.partial(method.explain, same, rest, explained)
            if method.from_image:
                given = images.astype(jnp.float32)
                explain = functools.partial(method.explain, whole, head, given)
            if method.antisymmetric:
                fracture = explain("fracture")
                pair = [fracture, -fracture]
            elif method.forward_only:
                # Mapped over the signs alone, what does not depend on them is computed once.
                pair = list(jax.vmap(explain)(both))
            else:
                pair = [explain(target) for target in TARGETS]
            maps |= {f"{name}/{target}": pair[i] for i, target in enumerate(TARGETS)}
        return {"logit": logit, **maps, **attention}

    return step


def make_classifier_step(
    model: Any,
    prepare: Callable[[Any], jax.Array],
    methods: Sequence[str],
    *,
    layer: str | None = None,
) -> Explain:
    """Returns the step of :func:`make_explain_step` for one of this package's classifiers.

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


def explain_images(
    step: Callable[[np.ndarray], Mapping[str, Any]], images: np.ndarray, *, batch_size: int
) -> Explanations:
    """Returns the explanations of images, made in batches of one size.

    Args:
        step: compiled, with the variables bound: images uint8 [batch_size, s, s] -> what
            :func:`make_explain_step` returns.
        images: uint8 [n, s, s], n >= 1.
        batch_size: images per call.
    """
    parts = [
        {key: np.asarray(value)[:count] for key, value in step(batch).items()}
        for batch, count in batches(images, batch_size)
    ]
    outputs = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    logit = outputs.pop("logit")
    maps: Maps = {}
    attention = {}
    for key, values in outputs.items():
        method, _, target = key.partition("/")
        if target:
            maps.setdefault(method, {})[target] = values
        else:
            attention[int(key.removeprefix("attention_"))] = values
    return Explanations(logit=logit, maps=maps, attention=dict(sorted(attention.items())))
