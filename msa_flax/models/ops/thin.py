"""Convolution of an input with few channels, such as an image."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from msa_flax.models.ops.depthwise import taps, total
from msa_flax.models.ops.native import Padding, by_platform, native_conv
from msa_flax.models.ops.pointwise import matmul


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def thin_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"], stride: int, padding: Padding
) -> Float[Array, "b oh ow d"]:
    """Convolves an input with few channels, such as an image.

    On the CPU this is a sum of k * k * c shifted grey images, each multiplied by its d weights. The
    gradient for the kernel is a matrix product with the k * k * c values under the kernel; as XLA's
    own convolution it would take longer than all other layers of a MobileNet together.

    The arguments are those of :func:`~msa_flax.models.ops.depthwise_conv`. The gradient is defined
    here, so neither forward-mode differentiation nor a gradient of the gradient is available.
    """
    return by_platform(
        x,
        kernel,
        cpu=partial(_shifted_forward, stride=stride, padding=padding),
        default=partial(native_conv, stride=stride, padding=padding),
    )


def _taps(
    x: Array, size: int, stride: int, padding: Padding
) -> Iterator[tuple[int, int, int, Array]]:
    """Yields (i, j, c, pixels): what kernel value (i, j) meets in channel c, [b, oh, ow, 1]."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    for c in range(x.shape[-1]):
        for i, j, pixels in taps(x[..., c : c + 1], size, stride):
            yield i, j, c, pixels


def _shifted_forward(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    found = _taps(x, kernel.shape[0], stride, padding)
    return total([pixels * kernel[i, j, c][None, None, None] for i, j, c, pixels in found])


def _forward(
    x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return thin_conv(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: Padding, saved: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    conv = partial(native_conv, stride=stride, padding=padding)

    def gathered(x: Array, kernel: Array, g: Array) -> Array:
        found = _taps(x, kernel.shape[0], stride, padding)
        values = jnp.stack([pixels[..., 0] for _, _, _, pixels in found])
        sums = matmul(values.reshape(len(values), -1), g.reshape(-1, g.shape[-1]))
        channels, size = x.shape[-1], kernel.shape[0]
        return sums.reshape(channels, size, size, -1).transpose(1, 2, 0, 3)

    def native(x: Array, kernel: Array, g: Array) -> Array:
        return jax.vjp(lambda kernel: conv(x, kernel), kernel)[1](g)[0]

    dx = jax.vjp(lambda x: conv(x, kernel), x)[1](g)[0]  # XLA removes this where x is an image
    return dx, by_platform(x, kernel, g, cpu=gathered, default=native)


thin_conv.defvjp(_forward, _backward)
