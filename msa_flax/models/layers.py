"""Layers that behave as Keras's do: names, padding, constants, initial values.

A layer computes in the type of its input (float32 or bfloat16); parameters and the statistics of
BatchNorm are float32. What makes the layers fast is in :mod:`msa_flax.models.ops`.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from msa_flax.models import ops
from msa_flax.models.ops import Padding

Initializer = nn.initializers.Initializer

# Keras initialises a kernel Glorot-uniform, where nothing else is said, and a bias with zeros.
kernel_init = glorot_uniform = nn.initializers.glorot_uniform()

FEW_CHANNELS = 4  # up to here, and with more going out, a convolution is that of an image
MOST_TAPS = (
    48  # of a kernel, times channels: from here on XLA's own convolution of an image is faster
)

# name -> the interval that the activation clips to
ACTIVATIONS = {
    "linear": (-jnp.inf, jnp.inf),
    "relu": (0.0, jnp.inf),
    "relu6": (0.0, 6.0),
}


class Conv(nn.Module):
    """An ordinary convolution, Keras ``Conv2D``.

    Attributes:
        features: output channels.
        kernel_size: pixels, square.
        stride: pixels.
        use_bias: whether a bias is added.
        padding: explicit zeros ((top, bottom), (left, right)), or None for ``same``.
        kernel_init: initial values of the kernel.
    """

    features: int
    kernel_size: int
    stride: int = 1
    use_bias: bool = True
    padding: Padding | None = None
    kernel_init: Initializer = glorot_uniform

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow d"]:
        """Returns the convolved input."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(x.dtype)
        padding = self.padding
        if padding is None:
            padding = ops.same_padding(x.shape[1], x.shape[2], self.kernel_size, self.stride)
        taps = self.kernel_size**2 * x.shape[-1]
        if x.shape[-1] <= FEW_CHANNELS < self.features and taps <= MOST_TAPS:
            x = ops.thin_conv(x, kernel, self.stride, padding)
        else:
            x = ops.native_conv(x, kernel, stride=self.stride, padding=padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(x.dtype)
            x = x + bias[None, None, None]
        return x


class DepthwiseConv(nn.Module):
    """A depthwise convolution, Keras ``DepthwiseConv2D``; without bias unless asked for.

    Attributes:
        kernel_size: pixels, square.
        stride: pixels.
        padding: explicit zeros ((top, bottom), (left, right)), or None for ``same``.
        kernel_init: initial values of the kernel.
        use_bias: whether a bias is added.
    """

    kernel_size: int = 3
    stride: int = 1
    padding: Padding | None = None
    kernel_init: Initializer = glorot_uniform
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow c"]:
        """Returns the convolved input."""
        shape = (self.kernel_size, self.kernel_size, 1, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape).astype(x.dtype)
        padding = self.padding
        if padding is None:
            padding = ops.same_padding(x.shape[1], x.shape[2], self.kernel_size, self.stride)
        x = ops.depthwise_conv(x, kernel, self.stride, padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],)).astype(x.dtype)
            x = x + bias[None, None, None]
        return x


class PointwiseConv(nn.Module):
    """A 1 x 1 convolution, Keras ``Conv2D``, as a matrix product; without bias unless asked for.

    Attributes:
        features: output channels.
        stride: pixels.
        use_bias: whether a bias is added.
        kernel_init: initial values of the kernel.
    """

    features: int
    stride: int = 1
    use_bias: bool = False
    kernel_init: Initializer = glorot_uniform

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow d"]:
        """Returns the convolved input."""
        kernel = self.param("kernel", self.kernel_init, (1, 1, x.shape[-1], self.features))
        if self.stride > 1:
            x = x[:, :: self.stride, :: self.stride]
        x = ops.pointwise_conv(x, kernel.astype(x.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(x.dtype)
            x = x + bias[None, None, None]
        return x


class BatchNorm(nn.Module):
    """Batch normalisation followed by an activation, Keras ``BatchNormalization``.

    The running variance averages the biased batch variance, as Keras 3 does (the fused kernel of
    Keras 2 used the unbiased one; at 10^3 and more values a channel they agree to 0.1 %).

    Attributes:
        activation: a key of ``ACTIVATIONS``.
        momentum: of the running averages (Keras default 0.99).
        epsilon: added to the variance (Keras default 1e-3; PyTorch's is 1e-5).
    """

    activation: str = "linear"
    momentum: float = 0.99
    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        """Normalises by the batch's statistics in training, by the running ones otherwise.

        Statistics are computed and kept in float32, whatever the type of ``x``.
        """
        shape, bounds = (x.shape[-1],), ACTIVATIONS[self.activation]
        if self._is_folded():
            shift: Array = self.get_variable("params", "bias")
            return jnp.clip(x + shift.astype(x.dtype)[None, None, None], *bounds)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        variance = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            gain, shift = ops.coefficients(
                jnp.asarray(mean.value),
                jnp.asarray(variance.value),
                jnp.asarray(scale),  # the variables that a caller gives may be NumPy's
                jnp.asarray(bias),
                self.epsilon,
            )
            return jnp.clip(ops.affine(x, gain, shift), *bounds).astype(x.dtype)
        y, batch_mean, batch_variance = ops.normalize(x, scale, bias, self.epsilon, bounds)
        if not self.is_initializing():
            rate = 1 - self.momentum
            mean.value += rate * (batch_mean - mean.value)
            variance.value += rate * (batch_variance - variance.value)
        return y

    def _is_folded(self) -> bool:
        """Whether :func:`~msa_flax.models.fold.fold_batch_norm` has left a shift only."""
        missing = ("params", "scale"), ("batch_stats", "mean")
        return not self.is_initializing() and not any(self.has_variable(*v) for v in missing)


class LayerNorm(nn.Module):
    """Normalisation of every pixel over its channels, Keras ``LayerNormalization``.

    Attributes:
        epsilon: added to the variance (Keras default 1e-3).
    """

    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Normalises, in float32 whatever the type of ``x``."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        wide = x.astype(scale.dtype)
        centred = wide - jnp.mean(wide, -1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), -1, keepdims=True)
        y = centred * lax.rsqrt(variance + self.epsilon)
        return ops.affine(y, scale, bias).astype(x.dtype)


def local_response_norm(
    x: Float[Array, "b h w c"], *, size: int, k: float, alpha: float
) -> Float[Array, "b h w c"]:
    """Divides by (k + alpha * s) ** 0.75, s the sum of squares over the channels around.

    Krizhevsky et al. 2012, Section 3.3, with the exponent of every network that has the layer;
    computed in float32 whatever the type of ``x``.

    Args:
        x: the input.
        size: how many channels s is taken over, odd: the channel itself and its neighbours.
        k: keeps the divisor from zero.
        alpha: the weight of s (Caffe divides the one that it is given by ``size``).
    """
    wide, half = x.astype(jnp.promote_types(x.dtype, jnp.float32)), size // 2
    squares = jnp.pad(jnp.square(wide), ((0, 0), (0, 0), (0, 0), (half, half)))
    total = sum(squares[..., i : i + x.shape[-1]] for i in range(size))
    root = lax.rsqrt(k + alpha * total)
    return (wide * root * jnp.sqrt(root)).astype(x.dtype)


def max_pool(
    x: Float[Array, "b h w c"], size: int, stride: int, padding: Padding | None = None
) -> Float[Array, "b oh ow c"]:
    """Returns the maximum of every window, Keras ``MaxPooling2D``.

    Where several pixels share the maximum, the first of the first column has its gradient;
    TensorFlow gives it to the first of the first row.

    Args:
        x: the input.
        size: of a window in pixels, square.
        stride: pixels.
        padding: pixels that are never the maximum, ((top, bottom), (left, right)), or None for
            ``same``.
    """
    if padding is None:
        padding = ops.same_padding(x.shape[1], x.shape[2], size, stride)
    return ops.max_along(ops.max_along(x, 1, size, stride, padding[0]), 2, size, stride, padding[1])
