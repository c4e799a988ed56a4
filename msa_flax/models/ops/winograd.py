"""3 x 3 convolution as 16 matrix products on tiles, with 2.25 times fewer multiplications.

Winograd's algorithm F(2 x 2, 3 x 3), as in Lavin and Gray 2016, "Fast Algorithms for Convolutional
Neural Networks", Section 4.1. A tile of 2 x 2 output pixels is made from 4 x 4 input pixels: both
the tile of the input and the kernel are turned into 4 x 4 values, these are multiplied one by one
(summed over the channels: a matrix product for each of the 16 places), and the products are turned
back into the 2 x 2 pixels.

The places are computed one after the other in a loop, so that what belongs to one place stays in
the cache, and so that there is little to compile.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from msa_flax.models.ops.native import Padding
from msa_flax.models.ops.pointwise import matmul

# The three matrices of the paper, each for one axis. Place a of a tile of the input is
# x[FIRST[a]] + SIGN[a] * x[SECOND[a]], which are the rows of B^T.
FIRST, SECOND, SIGN = (0, 1, 2, 1), (2, 2, 1, 3), (-1, 1, -1, -1)
KERNEL = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))  # G
OUTPUT = ((1.0, 1.0, 1.0, 0.0), (0.0, 1.0, -1.0, -1.0))  # A^T
PLACES = 16


def winograd_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "3 3 i o"],
    padding: Padding,
    *,
    turned: bool = False,
) -> Float[Array, "b oh ow d"]:
    """Convolves with stride 1.

    Args:
        x: the input, float32 or float64; anything narrower loses too much here.
        kernel: the filters, i being c and o being d unless it is to be turned.
        padding: zeros around the input; negative numbers cut pixels off.
        turned: whether to turn the kernel by 180 degrees and to swap i and o, which is what the
            gradient for the input takes.
    """
    height, width = (x.shape[axis] + sum(padding[axis - 1]) - 2 for axis in (1, 2))
    rows, columns = -(-height // 2), -(-width // 2)
    place = _input_places(x, padding, rows, columns)
    steps = np.kron(KERNEL, KERNEL)
    transform = jnp.asarray(steps[:, ::-1] if turned else steps, x.dtype)
    kernels = matmul(transform, kernel.reshape(9, -1)).reshape(PLACES, *kernel.shape[2:])

    def product(number: Array) -> Array:
        met = lax.dynamic_index_in_dim(kernels, number, 0, keepdims=False)
        return matmul(place(number), met, (1, 1 if turned else 0))

    products = lax.map(product, jnp.arange(PLACES))
    products = products.reshape(4, 4, x.shape[0], rows, columns, -1)
    narrow = [_output([products[a, b] for a in range(4)]) for b in range(4)]
    pixels = [_output([narrow[b][i] for b in range(4)]) for i in range(2)]
    y = jnp.stack([jnp.stack(row, axis=3) for row in pixels], axis=2)
    return y.reshape(x.shape[0], 2 * rows, 2 * columns, -1)[:, :height, :width]


def winograd_kernel_gradient(
    x: Float[Array, "b h w c"], g: Float[Array, "b oh ow d"], padding: Padding
) -> Float[Array, "3 3 c d"]:
    """Returns the gradient of :func:`winograd_conv` for the kernel, from that of its output."""
    _, height, width, features = g.shape
    rows, columns = -(-height // 2), -(-width // 2)
    place = _input_places(x, padding, rows, columns)
    pixels = _parities(g, ((0, 0), (0, 0)), rows, columns).reshape(4, -1, features)
    weights = jnp.asarray(np.kron(np.transpose(OUTPUT), np.transpose(OUTPUT)), x.dtype)

    def product(number: Array) -> Array:
        terms = [weights[number, i] * pixels[i] for i in range(4)]
        met = lax.optimization_barrier(terms[0] + terms[1] + terms[2] + terms[3])
        return matmul(place(number), met, (0, 0))

    products = lax.map(product, jnp.arange(PLACES)).reshape(PLACES, -1)
    transform = jnp.asarray(np.kron(KERNEL, KERNEL), x.dtype)
    return matmul(transform, products, (0, 0)).reshape(3, 3, x.shape[-1], features)


def _output(v: list[Array]) -> tuple[Array, Array]:
    """Returns A^T v."""
    return v[0] + v[1] + v[2], v[1] - v[2] - v[3]


def _parities(x: Array, padding: Padding, rows: int, columns: int) -> Array:
    """Pads x to 2 rows x 2 columns pixels; returns [2, 2, b, rows, columns, c]: even, odd ones."""
    (top, _), (left, _) = padding
    after = 2 * rows - x.shape[1] - top, 2 * columns - x.shape[2] - left
    edges = ((0, 0, 0), (top, after[0], 0), (left, after[1], 0), (0, 0, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    x = x.reshape(x.shape[0], rows, 2, columns, 2, -1).transpose(2, 4, 0, 1, 3, 5)
    return lax.optimization_barrier(x)  # otherwise XLA computes x anew for each place


def _input_places(x: Array, padding: Padding, rows: int, columns: int) -> Callable[[Array], Array]:
    """Returns the function from the number of a place to its values in all tiles, [tiles, c]."""
    parities = _parities(x, padding, rows + 1, columns + 1)
    sizes = (1, 1, x.shape[0], rows, columns, x.shape[-1])
    first, second, sign = jnp.asarray(FIRST), jnp.asarray(SECOND), jnp.asarray(SIGN, x.dtype)

    def pixels(i: Array, j: Array) -> Array:
        starts = (i % 2, j % 2, 0, i // 2, j // 2, 0)
        return lax.dynamic_slice(parities, starts, sizes).reshape(-1, x.shape[-1])

    def place(number: Array) -> Array:
        a, b = number // 4, number % 4
        above = pixels(first[a], first[b]) + sign[b] * pixels(first[a], second[b])
        below = pixels(second[a], first[b]) + sign[b] * pixels(second[a], second[b])
        return lax.optimization_barrier(above + sign[a] * below)

    return place
