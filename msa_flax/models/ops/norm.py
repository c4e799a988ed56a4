"""Batch normalisation and the activation after it, with one gradient for both."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Statistics, sums and coefficients are float32, also where x is bfloat16.


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize(
    x: Float[Array, "b h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
    bounds: tuple[float, float],
) -> tuple[Float[Array, "b h w c"], Float[Array, " c"], Float[Array, " c"]]:
    """Normalises over batch and pixels, scales, shifts and clips to ``bounds`` in one pass.

    Has its own gradient, and so neither forward-mode differentiation nor a gradient of the
    gradient.

    Returns:
        The activations, and the batch's mean and (biased) variance a channel. The last two feed the
        running averages; no gradient flows through them as outputs.
    """
    axes, wide = tuple(range(x.ndim - 1)), x.astype(scale.dtype)
    mean = jnp.mean(wide, axes)
    variance = jnp.maximum(jnp.mean(jnp.square(wide), axes) - jnp.square(mean), 0)
    gain, shift = coefficients(mean, variance, scale, bias, epsilon)
    return jnp.clip(affine(wide, gain, shift), *bounds).astype(x.dtype), mean, variance


def coefficients(
    mean: Float[Array, " c"],
    variance: Float[Array, " c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Returns the gain and the shift a channel that normalisation with these statistics is.

    Both end in a division, which XLA does once a channel; a product it would do again at every
    pixel.
    """
    deviation = jnp.sqrt(variance + epsilon)
    return scale / deviation, (bias * deviation - mean * scale) / deviation


def affine(
    x: Float[Array, "b h w c"], gain: Float[Array, " c"], shift: Float[Array, " c"]
) -> Float[Array, "b h w c"]:
    """Returns x * gain + shift, a gain and a shift for each channel."""
    return x * gain[None, None, None] + shift[None, None, None]


def _normalize_forward(
    x: Array, scale: Array, bias: Array, epsilon: float, bounds: tuple[float, float]
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    y, mean, variance = normalize(x, scale, bias, epsilon, bounds)
    return (y, mean, variance), (x, scale, bias, mean, variance)


def _normalize_backward(
    epsilon: float,
    bounds: tuple[float, float],
    saved: tuple[Array, ...],
    gradients: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array]:
    # The clipped values are recomputed from x instead of stored: memory traffic costs more.
    narrow, scale, bias, mean, variance = saved
    x, upstream = narrow.astype(scale.dtype), gradients[0].astype(scale.dtype)
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    deviation = jnp.sqrt(variance + epsilon)
    gain, shift = coefficients(mean, variance, scale, bias, epsilon)
    y = affine(x, gain, shift)
    g = jnp.where((y > bounds[0]) & (y < bounds[1]), upstream, 0)
    d_bias = jnp.sum(g, axes)
    d_scale = (jnp.sum(g * x, axes) - mean * d_bias) / deviation
    slope = -scale * d_scale / (count * (variance + epsilon))
    shift = (mean * scale * d_scale / deviation - scale * d_bias) / (count * deviation)
    dx = g * gain[None, None, None] + affine(x, slope, shift)
    return dx.astype(narrow.dtype), d_scale, d_bias


normalize.defvjp(_normalize_forward, _normalize_backward)
