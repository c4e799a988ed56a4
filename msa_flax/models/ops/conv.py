"""Ordinary convolution: matrix products on the CPU, XLA's own convolution elsewhere.

Inside a loop, such as one over training steps, XLA's CPU back end computes an ordinary convolution
a hundred times slower than outside; matrix products are as fast there as anywhere.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from msa_flax.models.ops.native import Padding, by_platform, native_conv
from msa_flax.models.ops.pointwise import matmul
from msa_flax.models.ops.winograd import SIZES, winograd_conv, winograd_kernel_gradient

FEWEST_CHANNELS = 16  # of input and output; with fewer, Winograd's products are too thin
FEW_TAPS = 144  # values under a kernel; with as few, one product is faster than one for each row
VALID = ((0, 0), (0, 0))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"], stride: int, padding: Padding
) -> Float[Array, "b oh ow d"]:
    """Convolves all channels with each of the filters.

    On the CPU narrow types are computed in float32. The arguments are those of
    :func:`~msa_flax.models.ops.depthwise_conv`. The gradient is defined here, so neither
    forward-mode differentiation nor a gradient of the gradient is available.
    """
    products, native = _forms(stride, padding)
    return by_platform(x, kernel, cpu=products, default=native)


def _forward(
    x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return conv(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: Padding, saved: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    def gradients(form: partial, x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        found: tuple[Array, Array] = jax.vjp(form, x, kernel)[1](g)
        return found

    products, native = (partial(gradients, form) for form in _forms(stride, padding))
    return by_platform(*saved, g, cpu=products, default=native)


conv.defvjp(_forward, _backward)


def _forms(stride: int, padding: Padding) -> tuple[partial, partial]:
    """Returns the two functions (input, kernel) -> output: by products, and XLA's own."""
    ours = partial(_by_products, stride=stride, padding=padding)
    return ours, partial(native_conv, stride=stride, padding=padding)


def _by_products(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    wide, filters = (a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in (x, kernel))
    if stride > 1:
        wide, filters = _in_blocks(wide, filters, stride, padding)
        padding = VALID
    return _dense(wide, filters, padding).astype(x.dtype)


def _in_blocks(x: Array, kernel: Array, stride: int, padding: Padding) -> tuple[Array, Array]:
    """Returns input and kernel of the same convolution with stride 1 and without padding.

    Blocks of stride x stride pixels become one pixel with the channels of all of them, in the input
    and in the kernel, which is filled up with zeros.
    """
    b, height, width, c = x.shape
    size, _, _, features = kernel.shape
    blocks = -(-size // stride)
    edges, counts = [(0, 0, 0)], []
    for length, (before, after) in zip((height, width), padding, strict=True):
        counts.append((length + before + after - size) // stride + blocks)
        edges.append((before, counts[-1] * stride - length - before, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), [*edges, (0, 0, 0)])
    x = x.reshape(b, counts[0], stride, counts[1], stride, c).transpose(0, 1, 3, 2, 4, 5)
    more = (0, blocks * stride - size)
    kernel = jnp.pad(kernel, (more, more, (0, 0), (0, 0)))
    kernel = kernel.reshape(blocks, stride, blocks, stride, c, features)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(blocks, blocks, -1, features)
    return lax.optimization_barrier(x.reshape(b, *counts, -1)), kernel


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense(x: Array, kernel: Array, padding: Padding) -> Array:
    """Convolves with stride 1."""
    if _is_for_winograd(kernel):
        return winograd_conv(x, kernel, padding)
    strips = _strips(x, kernel.shape[0], padding)
    kernels = kernel.reshape(len(strips), -1, kernel.shape[-1])
    products = [matmul(_pixels(strip), rows) for strip, rows in zip(strips, kernels, strict=True)]
    return sum(products[1:], products[0]).reshape(*strips[0].shape[:3], -1)


def _dense_forward(x: Array, kernel: Array, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _dense(x, kernel, padding), (x, kernel)


def _dense_backward(padding: Padding, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    size = kernel.shape[0]
    # Without the barrier XLA computes g anew for each product that it is part of.
    g = lax.optimization_barrier(g)
    (top, bottom), (left, right) = padding
    reach = size - 1
    around = (reach - top, reach - bottom), (reach - left, reach - right)
    if _is_for_winograd(kernel):
        dx = winograd_conv(g, kernel, around, turned=True)
        return dx, winograd_kernel_gradient(x, g, padding, size)
    dx = _dense(g, kernel[::-1, ::-1].swapaxes(2, 3), around)
    products = [matmul(_pixels(strip), _pixels(g), (0, 0)) for strip in _strips(x, size, padding)]
    return dx, jnp.stack(products).reshape(kernel.shape)


_dense.defvjp(_dense_forward, _dense_backward)


def _is_for_winograd(kernel: Array) -> bool:
    return kernel.shape[0] in SIZES and min(kernel.shape[2:]) >= FEWEST_CHANNELS


def _strips(x: Array, size: int, padding: Padding) -> list[Array]:
    """Returns for each row of the kernel the pixels that it meets, [b, oh, ow, size * c].

    Where a row meets few values, all rows are together, in one strip [b, oh, ow, size * size * c].

    Args:
        x: the input.
        size: height and width of the kernel.
        padding: zeros around the input; negative numbers cut pixels off.
    """
    edges = ((0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    height, width = (x.shape[axis] - size + 1 for axis in (1, 2))
    beside = jnp.concatenate([x[:, :, j : j + width] for j in range(size)], axis=-1)
    beside = lax.optimization_barrier(beside)  # otherwise XLA puts it together for each row
    strips = [beside[:, i : i + height] for i in range(size)]
    if size * beside.shape[-1] > FEW_TAPS:
        return strips
    return [lax.optimization_barrier(jnp.concatenate(strips, axis=-1))]


def _pixels(x: Array) -> Array:
    """Returns x with one row for each pixel of each image."""
    return x.reshape(-1, x.shape[-1])
