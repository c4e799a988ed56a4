"""Cutting any Flax Linen network in two at a named layer, for methods that explain that layer.

A layer is a submodule. Its name is the path of the modules that contain it, such as
``backbone/conv_dw_6``. The network itself is not changed: :func:`flax.linen.intercept_methods`
reads the layer's output as it passes by, or puts another output in its place.
"""

import collections
import dataclasses
import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from msa_flax.saliency.interface import SaliencyError

CHOICES = 5  # layers that a refusal names

Prepare = Callable[[Any], Any]


def _unchanged(images: Any) -> Any:
    return images


def layer_names(
    model: Any,
    variables: Any,
    image_shape: Sequence[int],
    *,
    prepare: Prepare = _unchanged,
    method: Any = None,
) -> list[str]:
    """Returns the layers that :func:`at_layer` takes, in the order of execution.

    They are the layers whose output is a feature map [b, h, w, c] and that are used once. A module
    comes after the modules that it contains. Nothing is computed.

    Args:
        model: a ``flax.linen.Module``.
        variables: its variables, arrays or shapes.
        image_shape: of a batch of images, [b, ...].
        prepare: images to what the model takes.
        method: the model's method, as ``Module.apply`` takes it; ``__call__`` by default.
    """
    images = jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32)
    return _used_once(_Network(model, variables, prepare, method).map_shapes(images))


def at_layer(
    model: Any,
    variables: Any,
    layer: str,
    images: Any,
    *,
    prepare: Prepare = _unchanged,
    method: Any = None,
) -> "SplitNetwork":
    """Cuts a network in two at a layer, for a batch of images.

    ``features_fn(images)`` is the layer's output F, and ``head_fn(F)`` is the network's output with
    F in place of what the layer computes; ``head_fn(features_fn(images))`` is the network. Where a
    path leads around the layer (the skip connection of a residual block, the other branches of an
    inception module), the head needs the images as well and takes the ones given here: a method
    then varies only the layer. So call this for every batch, inside the function that is compiled:
    a compiled head leaves out what its features replace.

        def explain(images):
            split = at_layer(model, variables, "backbone/conv_dw_6", images, prepare=scale)
            return gradcam(split.features_fn, split.head_fn, images, "fracture")

    Args:
        model: a ``flax.linen.Module`` whose output is one logit per image.
        variables: its variables.
        layer: a name from :func:`layer_names`.
        images: b images; may be traced.
        prepare: images to what the model takes.
        method: the model's method, as ``Module.apply`` takes it; ``__call__`` by default.

    Raises:
        SaliencyError: there is no such layer, its output is no feature map, or it is used more than
            once; names the closest choices.
    """
    network = _Network(model, variables, prepare, method)
    maps = network.map_shapes(_shape(images))
    shapes = [shape for name, shape in maps if name == layer]
    if not shapes:
        close = difflib.get_close_matches(layer, _used_once(maps), CHOICES, cutoff=0)
        raise SaliencyError(
            "layer: expected one with an output [b, h, w, c], such as "
            f"{', '.join(close) or '(this network has none)'}; got {layer!r}"
        )
    if len(shapes) > 1:
        raise SaliencyError(
            f"layer: expected one that is used once, got {layer!r}, which is used {len(shapes)} "
            "times; take a layer before or after it"
        )
    return SplitNetwork(layer=layer, shape=shapes[0], images=images, network=network)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SplitNetwork:
    """The two halves of a network, from :func:`at_layer`.

    Attributes:
        layer: the layer's name.
        shape: of its output, [b, h, w, c].
        images: what the head computes the paths around the layer from.
        network: the whole.
    """

    layer: str
    shape: tuple[int, ...]
    images: Any
    network: "_Network"

    def features_fn(self, images: Any) -> Float[Array, "b h w c"]:
        """Returns the layer's output for any images."""
        return self.network.features(self.layer, images)

    def head_fn(self, features: Float[Array, "n h w c"]) -> Float[Array, " n"]:
        """Returns the logits of the network with these features in place of the layer's.

        The features belong to the images given to :func:`at_layer`, in their order, or there are
        any number of them for one image; at a cut, they may belong to any images.

        Raises:
            SaliencyError: features of another size than the layer's, or for another number of
                images where that matters.
        """
        images, count = self.images, len(features)
        if features.shape[1:] != self.shape[1:]:
            raise SaliencyError(
                f"features: expected {self.shape} at {self.layer}, got {features.shape}"
            )
        if count != len(images):
            if len(images) != 1 and not self.is_cut:
                raise SaliencyError(
                    f"features: expected those of {len(images)} images, got {count}: paths lead "
                    f"around {self.layer} and need the images; explain one image at a time"
                )
            # At a cut nothing but the number of images is used.
            images = jnp.broadcast_to(jnp.asarray(images)[:1], (count, *jnp.shape(images)[1:]))
        return self.network.logits(self.layer, images, features)

    @functools.cached_property
    def is_cut(self) -> bool:
        """Whether everything that the logits depend on passes through the layer.

        Only then may a method give ``head_fn`` features of other images than those given to
        :func:`at_layer`, as Score-CAM does, or of the same images in another order, as Ablation-CAM
        does with more than one. Behind any other layer such features would meet the wrong images.
        """
        images = _shape(self.images)
        features = jax.eval_shape(self.features_fn, images)
        head = functools.partial(self.network.logits, self.layer)
        jaxpr = jax.make_jaxpr(head)(images, features).jaxpr
        # Backwards from the output. A nested function counts as using all of its arguments, so a
        # cut may be missed, but none is reported where there is none.
        used = {id(variable) for variable in jaxpr.outvars}
        for equation in reversed(jaxpr.eqns):
            if used & {id(variable) for variable in equation.outvars}:
                used |= {id(variable) for variable in equation.invars}
        return id(jaxpr.invars[0]) not in used


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Network:
    """A model with what it needs to be applied to images."""

    model: Any
    variables: Any
    prepare: Prepare
    method: Any

    def map_shapes(self, images: jax.ShapeDtypeStruct) -> list[tuple[str, tuple[int, ...]]]:
        """Returns names and shapes of all feature maps, in the order of execution."""
        shapes = []

        def note(name: str, call: Callable[[], Any]) -> Any:
            output = call()
            if getattr(output, "ndim", 0) == 4 and len(output) == images.shape[0]:
                shapes.append((name, output.shape))
            return output

        jax.eval_shape(functools.partial(self._apply, note), self.variables, images)
        return shapes

    def features(self, layer: str, images: Any) -> Array:
        """Returns the output of a layer."""
        outputs = {}

        def keep(name: str, call: Callable[[], Any]) -> Any:
            outputs[name] = call()
            return outputs[name]

        self._apply(keep, self.variables, images)
        return outputs[layer]

    def logits(self, layer: str, images: Any, features: Array) -> Array:
        """Returns the model's output with the given features in place of a layer's output."""

        def replace(name: str, call: Callable[[], Any]) -> Any:
            return features if name == layer else call()

        return self._apply(replace, self.variables, images)

    def _apply(
        self, visit: Callable[[str, Callable[[], Any]], Any], variables: Any, images: Any
    ) -> Any:
        """Applies the model, leaving the call of every submodule to ``visit``."""
        from flax import linen as nn  # the other methods do without

        def intercept(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
            bound = functools.partial(call, *arguments, **keywords)
            if context.method_name != "__call__" or not context.module.path:
                return bound()
            return visit("/".join(context.module.path), bound)

        with nn.intercept_methods(intercept):
            return self.model.apply(variables, self.prepare(images), method=self.method)


def _used_once(maps: Sequence[tuple[str, tuple[int, ...]]]) -> list[str]:
    times = collections.Counter(name for name, _ in maps)
    return [name for name, count in times.items() if count == 1]


def _shape(images: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(images), jnp.result_type(images))
