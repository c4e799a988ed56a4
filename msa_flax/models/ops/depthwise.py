"""Depthwise convolution: a sum of shifted images on the CPU, XLA's own convolution elsewhere."""

import functools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from msa_flax.models.ops.native import Padding, by_platform, native_conv

MOST_TERMS = 28  # products in one expression; with more, compilation becomes slow
MOST_ROWS = 5  # kernels with more rows are summed in a loop; written out they compile slowly


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int, padding: Padding
) -> Float[Array, "b oh ow c"]:
    """Convolves each channel with a kernel of its own.

    The gradient is defined here, so neither forward-mode differentiation nor a gradient of the
    gradient is available.

    Args:
        x: the input.
        kernel: one k x k filter per channel, in lax's grouped layout.
        stride: 1 or more, the same along both axes.
        padding: zeros around the input, ((top, bottom), (left, right)).
    """
    return _convolve(x, _pad(x, padding), kernel, stride, padding)


def _convolve(x: Array, padded: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Convolves; a platform uses ``x`` or its ``padded`` copy, and XLA removes the other."""
    return by_platform(
        x,
        padded,
        kernel,
        cpu=lambda x, padded, kernel: _shifted_forward(padded, kernel, stride),
        default=lambda x, padded, kernel: _native(x, kernel, stride, padding),
    )


def _forward(
    x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    padded = _pad(x, padding)
    return _convolve(x, padded, kernel, stride, padding), (padded, kernel)


def _backward(
    stride: int, padding: Padding, saved: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    def shifted(padded: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        height, width = _unpad(padded, padding).shape[1:3]
        return _shifted_backward(
            padded, kernel, g, stride=stride, padding=padding, height=height, width=width
        )

    def native(padded: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        conv = partial(_native, stride=stride, padding=padding)
        return jax.vjp(conv, _unpad(padded, padding), kernel)[1](g)

    return by_platform(*saved, g, cpu=shifted, default=native)


depthwise_conv.defvjp(_forward, _backward)


def _native(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return native_conv(x, kernel, stride=stride, padding=padding, groups=x.shape[-1])


def _pad(x: Array, padding: Padding) -> Array:
    # Without the barrier XLA recomputes x from its own inputs for the taps that need no padding, so
    # that x is computed twice.
    return lax.optimization_barrier(jnp.pad(x, ((0, 0), *padding, (0, 0))))


def _unpad(x: Array, padding: Padding) -> Array:
    (top, bottom), (left, right) = padding
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]


def taps(x: Float[Array, "b h w c"], size: int, stride: int) -> Iterator[tuple[int, int, Array]]:
    """Yields (i, j, pixels): what kernel value (i, j) is multiplied with, [b, oh, ow, c].

    Args:
        x: the padded input.
        size: height and width of the kernel.
        stride: of the convolution.
    """
    span = lambda length: (length - size) // stride * stride + 1  # noqa: E731
    for i in range(size):
        for j in range(size):
            rows = slice(i, i + span(x.shape[1]), stride)
            yield i, j, x[:, rows, j : j + span(x.shape[2]) : stride]


def _shifted_forward(padded: Array, kernel: Array, stride: int) -> Array:
    found = taps(padded, kernel.shape[0], stride)
    return total([pixels * kernel[i, j][None, None] for i, j, pixels in found])


def total(terms: list[Array]) -> Array:
    """Returns the sum of the terms, added from the first to the last."""
    return functools.reduce(lax.add, terms)


def _shifted_backward(
    padded: Array,
    kernel: Array,
    g: Array,
    *,
    stride: int,
    padding: Padding,
    height: int,
    width: int,
) -> tuple[Array, Array]:
    """Returns the gradients for input and kernel, from one padded copy of ``g``.

    Row y of the padded input takes part in output row (y - i) / stride, with row i of the kernel,
    if that number is whole. So the rows y = stride * q + r (q = 0, 1, ...) that share a remainder r
    meet only the kernel rows r, r + stride, ... Their gradient is an ordinary sum of shifted
    images, called a plane here; the planes of all remainders are interleaved at the end.
    """
    size = kernel.shape[0]
    reach = (size - 1) // stride
    (top, _), (left, _) = padding
    first, rows = _quotients(top, height, stride)
    second, columns = _quotients(left, width, stride)
    # Needed are the output rows first - reach ... first + rows - 1; those outside g are zero.
    above, beside = max(reach - first, 0), max(reach - second, 0)
    below = max(first + rows - g.shape[1], 0)
    beyond = max(second + columns - g.shape[2], 0)
    around = _pad(g, ((above, below), (beside, beyond)))
    d_kernel = _shifted_kernel_gradient(
        padded,
        around[:, above:, beside:],
        size=size,
        stride=stride,
        height=g.shape[1],
        width=g.shape[2],
    )

    def plane(r: int, s: int) -> Array:
        y, x = first + above, second + beside
        return total(
            [
                around[:, y - m : y - m + rows, x - n : x - n + columns] * kernel[i, j][None, None]
                for m, i in enumerate(range(r, size, stride))
                for n, j in enumerate(range(s, size, stride))
            ]
        )

    if stride == 1:
        dx = plane(0, 0)
    else:
        planes = [[plane(r, s) for s in range(stride)] for r in range(stride)]
        dx = jnp.stack([jnp.stack(row, axis=3) for row in planes], axis=2)
        dx = dx.reshape(g.shape[0], rows * stride, columns * stride, g.shape[-1])
    y, x = top - first * stride, left - second * stride
    return dx[:, y : y + height, x : x + width], d_kernel


def _quotients(offset: int, length: int, stride: int) -> tuple[int, int]:
    """Returns the first of y // stride for y = offset ... offset + length - 1, and how many."""
    first = offset // stride
    return first, (offset + length - 1) // stride - first + 1


def _shifted_kernel_gradient(
    padded: Array, g: Array, *, size: int, stride: int, height: int, width: int
) -> Array:
    """Returns for each value of the kernel the sum of x * g over all positions.

    The columns come first, written out as one sum of products per row. XLA turns that into vector
    code that reads both factors where they are. Its own reduction over all positions would first
    write the product, or nine shifted copies of x, to memory.
    """
    wide = jnp.promote_types(padded.dtype, jnp.float32)
    x, g = padded.astype(wide), g[:, :height, :width].astype(wide)

    def row(i: Any, factors: Sequence[Array]) -> Array:
        met = lax.dynamic_slice_in_dim(x, i, (height - 1) * stride + 1, axis=1)[:, ::stride]
        pixels = _columns(met)

        def tap(j: int) -> Array:
            terms = [lax.mul(pixels[w * stride + j], factors[w]) for w in range(width)]
            pieces = [total(terms[k : k + MOST_TERMS]) for k in range(0, width, MOST_TERMS)]
            return total([jnp.sum(_separate(piece), axis=(0, 1, 2)) for piece in pieces])

        return jnp.stack([tap(j) for j in range(size)])

    if size > MOST_ROWS:
        sums = lax.map(lambda i: row(i, _columns(g)), jnp.arange(size))
    else:
        factors = _columns(g)
        sums = jnp.stack([row(i, factors) for i in range(size)])
    return sums.reshape(size, size, 1, -1).astype(padded.dtype)


def _columns(x: Array) -> Sequence[Array]:
    """Returns the columns of images [b, h, w, c], each [b, h, 1, c], in one operation to trace."""
    return lax.split(x, (1,) * x.shape[2], axis=2)


def _separate(x: Array) -> Array:
    """Returns x; keeps XLA from fusing the computation of x with a sum over it."""
    return lax.clamp(jnp.array(-jnp.inf, x.dtype), x, jnp.array(jnp.inf, x.dtype))
