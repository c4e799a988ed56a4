"""Convolution and normalisation functions that are fast on every platform.

XLA's CPU back end is slow at exactly what MobileNet is made of: a grouped convolution takes a
generic path there, many times slower than its arithmetic needs, and so does the kernel gradient of
a convolution over three channels. On the CPU the depthwise convolution is therefore a sum of
shifted images and the others are matrix products; on a GPU or TPU the native convolution is used.
Functions with their own gradient (``custom_vjp``) give up forward-mode differentiation and
gradients of gradients.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]


def same_padding(height: int, width: int, kernel_size: int, stride: int) -> Padding:
    """Returns TensorFlow's ``same`` padding ((top, bottom), (left, right)), in pixels."""

    def one_side(size: int) -> tuple[int, int]:
        total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
        return total // 2, total - total // 2

    return one_side(height), one_side(width)


# --- depthwise convolution ------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int, padding: Padding
) -> Float[Array, "b oh ow c"]:
    """Convolves every channel with its own kernel.

    Args:
        x: the input.
        kernel: one k x k filter a channel, in lax's grouped layout.
        stride: 1 or more, the same for both axes.
        padding: zeros around the input, ((top, bottom), (left, right)).
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_shifted_forward, stride=stride, padding=padding),
        default=partial(_native_depthwise, stride=stride, padding=padding),
    )


def native_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k g d"],
    *,
    stride: int,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "b oh ow d"]:
    """Convolves as XLA does it; arguments as in :func:`depthwise_conv`."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _native_depthwise(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    return native_conv(x, kernel, stride=stride, padding=padding, groups=x.shape[-1])


def _taps(
    x: Array, kernel_size: int, stride: int, padding: Padding
) -> Iterator[tuple[int, int, Array]]:
    """Yields (i, j, the pixels of x that kernel tap (i, j) meets), x of shape [..., h, w, c]."""
    lead = x.ndim - 3
    x = jnp.pad(x, ((0, 0),) * lead + (*padding, (0, 0)))
    *_, height, width, _ = x.shape
    span = lambda size: (size - kernel_size) // stride * stride + 1  # noqa: E731
    for i in range(kernel_size):
        for j in range(kernel_size):
            rows = lax.slice_in_dim(x, i, i + span(height), stride, axis=lead)
            yield i, j, lax.slice_in_dim(rows, j, j + span(width), stride, axis=lead + 1)


def _shifted_forward(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    taps = _taps(x, kernel.shape[0], stride, padding)
    terms = [pixels * kernel[i, j][None, None] for i, j, pixels in taps]
    return sum(terms[1:], terms[0])


def _shifted_input_gradient(
    g: Array, kernel: Array, *, stride: int, padding: Padding, height: int, width: int
) -> Array:
    """Transposes the convolution without a dilated copy of ``g``.

    Row y of the padded input meets tap i of output row (y - i) / stride, where that is whole. So
    the rows y = stride * q + r (q = 0, 1, ...) of one remainder r see only the taps r, r + stride,
    ..., and form a plane that is an ordinary sum of shifted images; the planes are interleaved.
    """
    size = kernel.shape[0]
    (top, bottom), (left, right) = padding
    rows, columns = -(-(height + top + bottom) // stride), -(-(width + left + right) // stride)
    reach = (size - 1) // stride
    # Room for q - m < 0 before, and for rows that no output row reaches behind.
    g = jnp.pad(
        g,
        (
            (0, 0),
            (reach, max(rows - g.shape[1], 0)),
            (reach, max(columns - g.shape[2], 0)),
            (0, 0),
        ),
    )

    def plane(r: int, s: int) -> Array:
        terms = [
            g[:, reach - m : reach - m + rows, reach - n : reach - n + columns]
            * kernel[i, j][None, None]
            for m, i in enumerate(range(r, size, stride))
            for n, j in enumerate(range(s, size, stride))
        ]
        return sum(terms[1:], terms[0])

    if stride == 1:
        dx = plane(0, 0)
    else:
        planes = [[plane(r, s) for s in range(stride)] for r in range(stride)]
        dx = jnp.stack([jnp.stack(row, axis=3) for row in planes], axis=2)
        dx = dx.reshape(g.shape[0], rows * stride, columns * stride, g.shape[-1])
    return dx[:, top : top + height, left : left + width]


def _shifted_kernel_gradient(
    x: Array, g: Array, *, kernel_size: int, stride: int, padding: Padding
) -> Array:
    """Sums x * g over all positions for every tap, image by image: an image stays in cache."""

    def add_image(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        image, gradient = pair
        sums = [
            jnp.sum(pixels * gradient, axis=(0, 1))
            for _, _, pixels in _taps(image, kernel_size, stride, padding)
        ]
        return total + jnp.stack(sums), None

    total = jnp.zeros((kernel_size**2, x.shape[-1]), x.dtype)
    total, _ = lax.scan(add_image, total, (x, g))
    return total.reshape(kernel_size, kernel_size, 1, x.shape[-1])


def _depthwise_forward(
    x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return depthwise_conv(x, kernel, stride, padding), (x, kernel)


def _depthwise_backward(
    stride: int, padding: Padding, saved: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    def shifted(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        dx = _shifted_input_gradient(
            g, kernel, stride=stride, padding=padding, height=x.shape[1], width=x.shape[2]
        )
        size = kernel.shape[0]
        return dx, _shifted_kernel_gradient(x, g, kernel_size=size, stride=stride, padding=padding)

    def native(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        conv = partial(_native_depthwise, stride=stride, padding=padding)
        return jax.vjp(conv, x, kernel)[1](g)

    return lax.platform_dependent(*saved, g, cpu=shifted, default=native)


depthwise_conv.defvjp(_depthwise_forward, _depthwise_backward)


# --- pointwise convolution ------------------------------------------------------------------------


@jax.custom_vjp
def pointwise_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "1 1 c d"]
) -> Float[Array, "b h w d"]:
    """Convolves with a 1 x 1 kernel: one matrix product over all pixels."""
    return _matmul(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:-1], -1)


def _matmul(a: Array, b: Array, contract: tuple[int, int] = (1, 0)) -> Array:
    return lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())))


def _pointwise_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return pointwise_conv(x, kernel), (x, kernel)


def _pointwise_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    pixels = x.reshape(-1, x.shape[-1])
    # Without the barrier XLA writes g again, transposed, out of the BatchNorm's backward pass.
    g = lax.optimization_barrier(g.reshape(-1, g.shape[-1]))
    dx = _matmul(g, kernel[0, 0], (1, 1)).reshape(x.shape)
    return dx, _matmul(pixels, g, (0, 0)).reshape(kernel.shape)


pointwise_conv.defvjp(_pointwise_forward, _pointwise_backward)


# --- convolution of few channels ------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def thin_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"], stride: int, padding: Padding
) -> Float[Array, "b oh ow d"]:
    """Convolves an input of few channels, such as an image.

    On the CPU this is a product with the k * k * c values under the kernel, gathered for every
    output pixel: the kernel's gradient by XLA's own convolution would take longer than all other
    layers together. Arguments are those of :func:`depthwise_conv`.
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, k: pointwise_conv(
            _patches(x, k.shape[0], stride, padding), k.reshape(1, 1, -1, k.shape[-1])
        ),
        default=partial(native_conv, stride=stride, padding=padding),
    )


def _patches(x: Array, kernel_size: int, stride: int, padding: Padding) -> Array:
    return jnp.concatenate([t for _, _, t in _taps(x, kernel_size, stride, padding)], axis=-1)


def _thin_forward(
    x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return thin_conv(x, kernel, stride, padding), (x, kernel)


def _thin_backward(
    stride: int, padding: Padding, saved: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    conv = partial(native_conv, stride=stride, padding=padding)

    def gathered(x: Array, kernel: Array, g: Array) -> Array:
        patches = _patches(x, kernel.shape[0], stride, padding)
        pixels = patches.reshape(-1, patches.shape[-1])
        return _matmul(pixels, g.reshape(-1, g.shape[-1]), (0, 0)).reshape(kernel.shape)

    def native(x: Array, kernel: Array, g: Array) -> Array:
        return jax.vjp(lambda kernel: conv(x, kernel), kernel)[1](g)[0]

    dx = jax.vjp(lambda x: conv(x, kernel), x)[1](g)[0]  # left out by XLA where x is an image
    return dx, lax.platform_dependent(x, kernel, g, cpu=gathered, default=native)


thin_conv.defvjp(_thin_forward, _thin_backward)


# --- batch normalisation with activation ----------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize(
    x: Float[Array, "b h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
    bounds: tuple[float, float],
) -> tuple[Float[Array, "b h w c"], Float[Array, " c"], Float[Array, " c"]]:
    """Normalises over batch and pixels, scales, shifts and clips to ``bounds`` in one pass.

    Returns:
        The activations, and the batch's mean and (biased) variance a channel. The last two feed the
        running averages; no gradient flows through them as outputs.
    """
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    variance = jnp.maximum(jnp.mean(jnp.square(x), axes) - jnp.square(mean), 0)
    gain = scale * lax.rsqrt(variance + epsilon)
    return jnp.clip(affine(x, gain, bias - mean * gain), *bounds), mean, variance


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
    x, scale, bias, mean, variance = saved
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    inverse = lax.rsqrt(variance + epsilon)
    gain = scale * inverse
    y = affine(x, gain, bias - mean * gain)
    g = jnp.where((y > bounds[0]) & (y < bounds[1]), gradients[0], 0)
    d_bias = jnp.sum(g, axes)
    d_scale = (jnp.sum(g * x, axes) - mean * d_bias) * inverse
    slope = -gain * inverse * d_scale / count
    shift = -(gain * d_bias / count + mean * slope)
    dx = g * gain[None, None, None] + affine(x, slope, shift)
    return dx, d_scale, d_bias


normalize.defvjp(_normalize_forward, _normalize_backward)
