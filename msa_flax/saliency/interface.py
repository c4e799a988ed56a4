"""The one interface of everything that explains a single logit by a map.

A network is given in two halves and needs no hooks: ``features_fn`` takes images to feature maps,
``head_fn`` takes feature maps to the logit of fracture. Between them lies the layer that is
explained. One logit speaks for both classes: the score of "fracture" is the logit, the score of
"normal" is the logit with the other sign.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from msa_flax.files import UserError
from msa_flax.saliency import checks

FeaturesFn = Callable[[Any], Float[Array, "b h w c"]]  # of images [b, ...]
HeadFn = Callable[[Float[Array, "b h w c"]], Float[Array, " b"]]
Target = Literal["fracture", "normal"] | Array

TARGETS: tuple[Literal["fracture"], Literal["normal"]] = ("fracture", "normal")
SIGNS = {"fracture": 1.0, "normal": -1.0}


class SaliencyError(UserError):
    """A method, a layer, a map or a picture is not as expected; the message says how."""


@runtime_checkable
class SaliencyMethod(Protocol):
    """Explains images by maps; what else a method needs are keyword arguments with defaults."""

    def __call__(
        self, features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target
    ) -> Float32[Array, "b h w"]:
        """Returns raw maps [b, h, w], at the resolution of the features or of the images."""


def signs(target: Target, logits: Float[Array, " b"]) -> Float[Array, " b"]:
    """Returns +1 for each image whose fracture is explained, -1 where it is the normal class.

    Args:
        target: one class for all images, or an array [b] of +1 and -1.
        logits: [b].

    Raises:
        ValueError: the target is an unknown name, or does not have one sign per image.
    """
    if isinstance(target, str):
        if target not in SIGNS:
            raise ValueError(f"target: expected one of {', '.join(SIGNS)}; got {target!r}")
        return jnp.full_like(logits, SIGNS[target])
    given = jnp.asarray(target, logits.dtype)
    if given.shape != logits.shape:
        raise ValueError(f"target: expected one sign per image, {logits.shape}; got {given.shape}")
    return given


def gradients(
    head_fn: HeadFn, features: Float[Array, "b h w c"], target: Target
) -> Float[Array, "b h w c"]:
    """Returns the gradient of each image's score with respect to its features.

    The whole batch is differentiated at once. That gives each image its own gradient, because no
    image influences the logit of another one (BatchNorm is in inference mode).

    Args:
        head_fn: feature maps to logits.
        features: [b, h, w, c].
        target: the class whose score is differentiated.

    Raises:
        ValueError: the target is unknown, or the shapes are not as described.
    """
    logits, pull_back = jax.vjp(head_fn, checks.features(features))
    (slopes,) = pull_back(signs(target, checks.logits(logits, features)))
    return slopes


def widened(values: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Returns values of fewer than 32 bits as float32, others as they are."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
