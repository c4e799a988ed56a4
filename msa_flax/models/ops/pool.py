"""Maxima of windows along one axis, as a maximum of shifted images, and maxima over channels."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from msa_flax.models.ops.native import Padding, is_native_everywhere


def max_pool(
    x: Float[Array, "b h w c"], size: int, stride: int, padding: Padding
) -> Float[Array, "b oh ow c"]:
    """Returns the maximum of each window of size x size pixels; padding is never the maximum."""
    if is_native_everywhere():
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
        return nn.max_pool(x, window_shape=(size, size), strides=(stride, stride), padding="VALID")
    rows, columns = padding
    return max_along(max_along(x, 1, size, stride, rows), 2, size, stride, columns)


def max_along(x: Array, axis: int, size: int, stride: int, padding: tuple[int, int]) -> Array:
    """Returns the maximum of each window along one axis.

    XLA's own pooling is slow on the CPU, and its gradient even slower, because it visits the
    windows one by one. One axis after the other, a window of 3 x 3 pixels takes 4 maxima, not 8.

    Args:
        x: the input.
        axis: along which the windows lie, 0-based.
        size: of a window.
        stride: between two windows.
        padding: how many values to add before and after; they are never the maximum, and no window
            may consist of them alone.
    """
    before, after = padding
    count = (x.shape[axis] + before + after - size) // stride + 1
    # The axis is cut into rows of `stride` values; window r begins with row r. So nothing needs a
    # strided slice, whose gradient would be slow.
    rows = count + (size - 1) // stride
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (before, rows * stride - x.shape[axis] - before, 0)  # negative numbers cut off
    x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)
    x = x.reshape(*x.shape[:axis], rows, stride, *x.shape[axis + 1 :])
    taps = []
    for i in range(size):
        column = lax.index_in_dim(x, i % stride, axis + 1, keepdims=False)
        taps.append(lax.slice_in_dim(column, i // stride, i // stride + count, axis=axis))
    return functools.reduce(_larger, taps)


@jax.custom_jvp
def _larger(a: Array, b: Array) -> Array:
    return jnp.maximum(a, b)


@_larger.defjvp
def _larger_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """Gives the gradient to exactly one of the two.

    JAX's own rule asks which of them equals the maximum. XLA may recompute them for that question
    with another rounding, and then neither would.
    """
    (a, b), (da, db) = primals, tangents
    return _larger(a, b), jnp.where(a < b, db, da)


@jax.custom_jvp
def max_over_channels(x: Float[Array, "b h w c"]) -> Float[Array, "b h w 1"]:
    """Returns the maximum over the channels at each pixel.

    Channels that share the maximum share its gradient, as in TensorFlow. JAX's own rule divides by
    the number of channels that equal the maximum. Where XLA has recomputed x with another rounding,
    that number is 0 and the gradient would be NaN; here such a pixel gets no gradient instead.
    """
    return jnp.max(x, axis=-1, keepdims=True)


@max_over_channels.defjvp
def _max_over_channels_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    maximum = max_over_channels(x)
    shared = (x == maximum).astype(x.dtype)
    count = jnp.maximum(jnp.sum(shared, axis=-1, keepdims=True), 1)
    return maximum, jnp.sum(shared / count * dx, axis=-1, keepdims=True)
