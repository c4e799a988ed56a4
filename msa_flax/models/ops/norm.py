"""Batch normalisation with the activation after it, and normalisation by neighbouring channels."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Statistics, sums and coefficients are float32, even where x is bfloat16.


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize(
    x: Float[Array, "b h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
    bounds: tuple[float, float],
) -> tuple[Float[Array, "b h w c"], Float[Array, " c"], Float[Array, " c"]]:
    """Normalises over batch and pixels, scales, shifts and clips to ``bounds`` in one pass.

    The gradient is defined here, so neither forward-mode differentiation nor a gradient of the
    gradient is available.

    Returns:
        The activations, and the mean and (biased) variance of the batch per channel. The last two
        are for the running averages; no gradient flows through these two outputs.
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
    """Returns the gain and the shift per channel that normalise with these statistics.

    Both formulas end in a division, because XLA computes a division once per channel but would
    repeat a product at each pixel.
    """
    deviation = jnp.sqrt(variance + epsilon)
    return scale / deviation, (bias * deviation - mean * scale) / deviation


def affine(
    x: Float[Array, "b h w c"], gain: Float[Array, " c"], shift: Float[Array, " c"]
) -> Float[Array, "b h w c"]:
    """Returns x * gain + shift, with one gain and one shift per channel."""
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
    # The clipped values are recomputed from x, which costs less than storing and reading them.
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
    offset = (mean * scale * d_scale / deviation - scale * d_bias) / (count * deviation)
    dx = g * gain[None, None, None] + affine(x, slope, offset)
    return dx.astype(narrow.dtype), d_scale, d_bias


normalize.defvjp(_normalize_forward, _normalize_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def local_response_norm(
    x: Float[Array, "b h w c"], size: int, k: float, alpha: float
) -> Float[Array, "b h w c"]:
    """Divides by (k + alpha * s) ** 0.75, s being the sum of squares over neighbouring channels.

    Krizhevsky et al. 2012, Section 3.3. Every network that has this layer uses the exponent 0.75.
    Computed in float32, whatever the type of ``x``. The gradient is defined here, because JAX's own
    takes ten times as long on the CPU; so neither forward-mode differentiation nor a gradient of
    the gradient is available.

    Args:
        x: the input.
        size: how many channels s is summed over: the channel itself and its neighbours, odd.
        k: keeps the divisor away from zero.
        alpha: the weight of s. (Caffe divides the number that it is given by ``size``.)
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide * _damping(wide, size, k, alpha)[0]).astype(x.dtype)


def _respond(x: Array, size: int, k: float, alpha: float) -> tuple[Array, Array]:
    return local_response_norm(x, size, k, alpha), x


def _response_gradient(size: int, k: float, alpha: float, x: Array, g: Array) -> tuple[Array]:
    wide, high = (a.astype(jnp.promote_types(x.dtype, jnp.float32)) for a in (x, g))
    damping, inverse = _damping(wide, size, k, alpha)
    # Without the barrier XLA computes the product anew for each neighbour.
    product = lax.optimization_barrier(high * wide * damping * inverse)
    dx = high * damping - 1.5 * alpha * wide * _neighbours(product, size)
    return (dx.astype(x.dtype),)


local_response_norm.defvjp(_respond, _response_gradient)


def _damping(x: Array, size: int, k: float, alpha: float) -> tuple[Array, Array]:
    """Returns the divisor's powers of -0.75 and of -1, at each pixel and channel."""
    root = lax.rsqrt(k + alpha * _neighbours(jnp.square(x), size))
    return root * jnp.sqrt(root), jnp.square(root)


def _neighbours(x: Array, size: int) -> Array:
    """Returns the sum over each channel and its neighbours, ``size`` channels in all."""
    half = size // 2
    channels = x.shape[-1]
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (half, half)))
    shifted = [x[..., i : i + channels] for i in range(size)]
    return sum(shifted[1:], shifted[0])
