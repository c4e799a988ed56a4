"""Maxima: of windows along one axis, as a maximum of shifted images, and over the channels."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def max_along(x: Array, axis: int, size: int, stride: int, padding: tuple[int, int]) -> Array:
    """Returns the maximum of every window along one axis.

    XLA's own pooling is slow on the CPU, and its gradient more so: it visits the windows one by
    one. Along one axis after the other, 3 x 3 pixels take 4 maxima, not 8.

    Args:
        x: the input.
        axis: along which the windows are, 0-based.
        size: of a window.
        stride: between two windows.
        padding: values before and after that are never the maximum; no window lies in them alone.
    """
    before, after = padding
    count = (x.shape[axis] + before + after - size) // stride + 1
    # Rows of `stride` values each: window r begins with row r, so no tap needs a strided slice,
    # whose gradient would be slow.
    rows = count + (size - 1) // stride
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (before, rows * stride - x.shape[axis] - before, 0)  # below 0: left out
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
    """Gives the gradient to one of the two, always.

    JAX's own rule asks which one equals the maximum. XLA may compute the two again for that, with
    another rounding, and then none would.
    """
    (a, b), (da, db) = primals, tangents
    return _larger(a, b), jnp.where(a < b, db, da)


@jax.custom_jvp
def max_over_channels(x: Float[Array, "b h w c"]) -> Float[Array, "b h w 1"]:
    """Returns the maximum over the channels of every pixel.

    Channels that share the maximum share its gradient, as in TensorFlow. JAX's own rule divides by
    how many there are, and where XLA has computed x again with another rounding there is none: the
    gradient would be NaN. Here it is then lost for that pixel.
    """
    return jnp.max(x, axis=-1, keepdims=True)


@max_over_channels.defjvp
def _max_over_channels_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    maximum = max_over_channels(x)
    shared = (x == maximum).astype(x.dtype)
    count = jnp.maximum(jnp.sum(shared, axis=-1, keepdims=True), 1)
    return maximum, jnp.sum(shared / count * dx, axis=-1, keepdims=True)
