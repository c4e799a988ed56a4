"""What every method checks: the shapes of images, features and logits."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


def features(given: Any) -> Any:
    """Returns features, or refuses those that are not shaped [b, h, w, c]."""
    if given.ndim != 4:
        raise ValueError(f"features: expected [b, h, w, c], got {given.shape}")
    return given


def logits(given: Any, batch: Any) -> Any:
    """Returns logits, or refuses them if there is not exactly one per image of the batch."""
    if given.shape != batch.shape[:1]:
        raise ValueError(
            f"head_fn: expected one logit per image, {batch.shape[:1]}; got {given.shape}"
        )
    return given


def images(given: Any) -> Array:
    """Returns images as an array, or refuses those that have neither 3 nor 4 axes."""
    array = jnp.asarray(given)
    if array.ndim not in (3, 4):
        raise ValueError(f"images: expected [b, h, w] or [b, h, w, c], got {array.shape}")
    return array


def floats(given: Any) -> Float[Array, "b h w *c"]:
    """Returns checked images as floats; those that are floats already keep their type."""
    array = images(given)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.float32)
