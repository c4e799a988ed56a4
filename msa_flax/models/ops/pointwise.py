"""Pointwise (1 x 1) convolution as a matrix product over all pixels."""

import jax
from jax import lax
from jaxtyping import Array, Float


@jax.custom_vjp
def pointwise_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "1 1 c d"]
) -> Float[Array, "b h w d"]:
    """Convolves with a 1 x 1 kernel.

    The gradient is defined here, so neither forward-mode differentiation nor a gradient of the
    gradient is available.
    """
    return matmul(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:-1], -1)


def matmul(a: Array, b: Array, contract: tuple[int, int] = (1, 0)) -> Array:
    """Returns the product of two matrices, summed over axis ``contract[0]`` of a and [1] of b."""
    return lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return pointwise_conv(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    pixels = x.reshape(-1, x.shape[-1])
    # Without the barrier the backward pass of the BatchNorm writes g a second time, transposed.
    g = lax.optimization_barrier(g.reshape(-1, g.shape[-1]))
    dx = matmul(g, kernel[0, 0], (1, 1)).reshape(x.shape)
    d_kernel = matmul(pixels, g, (0, 0))
    return dx, d_kernel.reshape(kernel.shape)


pointwise_conv.defvjp(_forward, _backward)
