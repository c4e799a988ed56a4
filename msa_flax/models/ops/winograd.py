"""Convolution as 36 matrix products on tiles: 3 x 3 and 5 x 5 pixels, with stride 1.

Winograd's algorithm, as in Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural
Networks", Section 4. A tile of 6 x 6 input pixels gives 4 x 4 output pixels for a kernel of 3 x 3
and 2 x 2 for one of 5 x 5. The tile and the kernel are both turned into 6 x 6 values, these are
multiplied one by one (summed over the channels: a matrix product for each of the 36 places), and
the products are turned into the output. That takes 4 times fewer multiplications than a sum over a
kernel of 3 x 3, and 2.8 times fewer for 5 x 5.

Each of the three transforms works along one axis after the other. The six lines of places are
computed in a loop, so that what belongs to a line stays in the cache, and so that there is little
to compile.
"""

import functools
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from msa_flax.models.ops.native import Padding
from msa_flax.models.ops.pointwise import matmul

TILE = 6  # pixels of the input along one axis
SIZES = (3, 5)  # of kernels for which this is faster than sums over the kernel

# Where the polynomials that stand for a tile and for the kernel are multiplied; the sixth point is
# infinity. The points decide how much rounding grows: with the usual 0, 1, -1, 2 and -2 the errors
# in float32 are twice as large as with these, whose errors are about three times those of a sum.
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)

NO_PADDING = ((0, 0), (0, 0))


def winograd_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k i o"],
    padding: Padding,
    *,
    turned: bool = False,
) -> Float[Array, "b oh ow d"]:
    """Convolves with stride 1.

    Args:
        x: the input, float32 or float64; anything narrower loses too much here.
        kernel: the filters, i being c and o being d unless it is to be turned; k is one of SIZES.
        padding: zeros around the input; negative numbers cut pixels off.
        turned: whether to turn the kernel by 180 degrees and to swap i and o, which is what the
            gradient for the input takes.
    """
    size = kernel.shape[0]
    step = TILE + 1 - size  # output pixels of a tile, along one axis
    height, width = (x.shape[axis] + sum(padding[axis - 1]) - size + 1 for axis in (1, 2))
    counts = -(-height // step), -(-width // step)
    of_input, of_kernel, of_output = transforms(size)

    both_axes = np.kron(of_kernel, of_kernel)[:, :: -1 if turned else 1]
    kernels = matmul(jnp.asarray(both_axes, x.dtype), kernel.reshape(size * size, -1))
    kernels = kernels.reshape(TILE, TILE, *kernel.shape[2:])

    def line(operands: tuple[Array, Array]) -> Array:
        rows, met = operands
        products = _products(_across(rows, of_input, counts[1]), met, (2, 2 if turned else 1))
        places = _apart(products)
        return jnp.concatenate([_weighted(weights, places) for weights in of_output])

    lines = lax.map(line, (_down(x, of_input, padding, counts, step), kernels))
    lines = _apart(lines)
    pixels = jnp.concatenate([_weighted(weights, lines) for weights in of_output])
    y = pixels.reshape(step, step, x.shape[0], *counts, -1).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(x.shape[0], step * counts[0], step * counts[1], -1)[:, :height, :width]


def winograd_kernel_gradient(
    x: Float[Array, "b h w c"], g: Float[Array, "b oh ow d"], padding: Padding, size: int
) -> Float[Array, "k k c d"]:
    """Returns the gradient of :func:`winograd_conv` for the kernel, from that of its output.

    Args:
        x: the input of the convolution.
        g: the gradient of its output.
        padding: zeros around the input.
        size: height and width of the kernel.
    """
    step = TILE + 1 - size
    counts = -(-g.shape[1] // step), -(-g.shape[2] // step)
    of_input, of_kernel, of_output = transforms(size)
    back = of_output.T

    def line(operands: tuple[Array, Array]) -> Array:
        seen, wanted = operands
        places = _across(seen, of_input, counts[1])
        return _products(places, _across(wanted, back, counts[1]), (1, 1))

    inputs = _down(x, of_input, padding, counts, step)
    gradients = _down(g, back, NO_PADDING, counts, step)
    products = lax.map(line, (inputs, gradients)).reshape(TILE * TILE, -1)
    both_axes = jnp.asarray(np.kron(of_kernel, of_kernel), x.dtype)
    found = matmul(both_axes, products, (0, 0))
    return found.reshape(size, size, x.shape[-1], g.shape[-1])


@functools.cache
def transforms(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the paper's matrices B^T [6, 6], G [6, size] and A^T [7 - size, 6], for one axis.

    They follow from multiplying polynomials by their values at POINTS (the algorithm of Toom and
    Cook): G evaluates that of the kernel, A evaluates that of the output's gradient, and B
    interpolates. The divisors of the interpolation are with G, which is applied to least.
    """
    step = TILE + 1 - size
    others = [[q for q in POINTS if q != p] for p in POINTS]
    divisors = [np.prod([p - q for q in rest]) for p, rest in zip(POINTS, others, strict=True)]
    powers = np.vander([*POINTS], TILE, increasing=True)
    infinity = np.eye(TILE)[-1]
    of_kernel = np.vstack([powers[:, :size] / np.array(divisors)[:, None], infinity[-size:]])
    of_output = np.vstack([powers[:, :step], infinity[-step:]]).T
    rows = [[*np.poly(rest)[::-1], 0.0] for rest in others]
    return np.array([*rows, np.poly(POINTS)[::-1]]), of_kernel, of_output


def _down(
    x: Array, transform: np.ndarray, padding: Padding, counts: tuple[int, int], step: int
) -> Array:
    """Transforms the rows of all tiles: [places, step, b, rows, columns and more, c].

    Column j of tile t is found at [.., j % step, :, :, t + j // step], so that a slice of tiles is
    contiguous.
    """
    taps = transform.shape[1]
    more = (taps - 1) // step
    (top, _), (left, _) = padding
    rows, columns = (step * (count + more) for count in counts)
    edges = ((0, 0, 0), (top, rows - x.shape[1] - top, 0), (left, columns - x.shape[2] - left, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), (*edges, (0, 0, 0)))
    x = x.reshape(x.shape[0], counts[0] + more, step, counts[1] + more, step, -1)
    x = lax.optimization_barrier(x.transpose(2, 4, 0, 1, 3, 5))  # otherwise made for each place
    seen = _apart(x)
    pixels = [
        lax.slice_in_dim(seen[i % step], i // step, i // step + counts[0], axis=3)
        for i in range(taps)
    ]
    return lax.optimization_barrier(
        jnp.concatenate([_weighted(weights, pixels) for weights in transform])
    )


def _across(rows: Array, transform: np.ndarray, count: int) -> Array:
    """Transforms the columns of a line of :func:`_down`; returns [places, tiles, c]."""
    step, c = len(rows), rows.shape[-1]
    taps, seen = range(transform.shape[1]), _apart(rows)
    columns = [lax.slice_in_dim(seen[j % step], j // step, j // step + count, axis=3) for j in taps]
    places = jnp.concatenate([_weighted(weights, columns) for weights in transform])
    return lax.optimization_barrier(places).reshape(len(places), -1, c)


def _products(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """Returns the product of two matrices for each place, summed over these axes of a and b."""
    return lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((0,), (0,))))


def _apart(x: Array) -> Sequence[Array]:
    """Returns x[0], x[1] and so on, each [1, ...], in one operation to trace."""
    return lax.split(x, (1,) * len(x))


def _weighted(weights: np.ndarray, terms: Iterable[Array]) -> Array:
    """Returns the weighted sum, without the terms whose weight is zero."""
    used = [
        term if weight == 1 else lax.mul(term, term.dtype.type(weight))
        for weight, term in zip(weights, terms, strict=True)
        if weight
    ]
    return functools.reduce(lax.add, used)
