"""Layers that behave like those of Keras: names, padding, constants, initial values.

A layer computes in the type of its input (float32 or bfloat16). Parameters and the statistics of
BatchNorm are float32. What makes the layers fast is in :mod:`msa_flax.models.ops`.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from msa_flax.models import ops
from msa_flax.models.ops import Padding

Initializer = nn.initializers.Initializer

# What Keras takes unless it is told otherwise; a bias starts at zero.
glorot_uniform = nn.initializers.glorot_uniform()

VALID = ((0, 0), (0, 0))  # no padding
COLOURS = 3  # channels of an image; one channel stands for three equal ones

# Convolutions of images use thin_conv on the CPU: those of at most FEW_CHANNELS input channels and
# more output channels, unless the kernel has more than MOST_TAPS values per output channel, which
# would be slow to compile, or meets each pixel only once.
FEW_CHANNELS = 4
MOST_TAPS = 48

# name -> the interval that the activation clips its input to
ACTIVATIONS = {
    "linear": (-jnp.inf, jnp.inf),
    "relu": (0.0, jnp.inf),
    "relu6": (0.0, 6.0),
}


class Conv(nn.Module):
    """An ordinary convolution, Keras ``Conv2D``.

    Attributes:
        features: output channels.
        kernel_size: height and width of the kernel, in pixels.
        stride: pixels.
        use_bias: whether a bias is added.
        padding: zeros around the input ((top, bottom), (left, right)), or None for ``same``.
        kernel_init: draws the initial values of the kernel.
        channels: of the kernel, or None for those of the input. One channel of the input may stand
            for several equal ones, as in a grey image; the kernel is then summed over them.
    """

    features: int
    kernel_size: int
    stride: int = 1
    use_bias: bool = True
    padding: Padding | None = None
    kernel_init: Initializer = glorot_uniform
    channels: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow d"]:
        """Returns the convolved input."""
        channels = self.channels or x.shape[-1]
        shape = (self.kernel_size, self.kernel_size, channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        if x.shape[-1] == 1 < channels:
            kernel = jnp.sum(kernel, axis=2, keepdims=True)
        kernel = kernel.astype(x.dtype)
        padding = resolve_padding(self.padding, x, self.kernel_size, self.stride)
        taps, overlaps = self.kernel_size**2 * x.shape[-1], self.kernel_size > self.stride
        thin = x.shape[-1] <= FEW_CHANNELS < self.features and taps <= MOST_TAPS and overlaps
        x = (ops.thin_conv if thin else ops.conv)(x, kernel, self.stride, padding)
        return add_bias(self, x) if self.use_bias else x


class DepthwiseConv(nn.Module):
    """A depthwise convolution, Keras ``DepthwiseConv2D``; without a bias unless asked for one.

    Attributes:
        kernel_size: height and width of the kernel, in pixels.
        stride: pixels.
        padding: zeros around the input ((top, bottom), (left, right)), or None for ``same``.
        kernel_init: draws the initial values of the kernel.
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
        padding = resolve_padding(self.padding, x, self.kernel_size, self.stride)
        x = ops.depthwise_conv(x, kernel, self.stride, padding)
        return add_bias(self, x) if self.use_bias else x


class PointwiseConv(nn.Module):
    """A 1 x 1 convolution, Keras ``Conv2D``; without a bias unless asked for one.

    Attributes:
        features: output channels.
        stride: pixels.
        use_bias: whether a bias is added.
        kernel_init: draws the initial values of the kernel.
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
        return add_bias(self, x) if self.use_bias else x


def add_bias(
    module: nn.Module, x: Float[Array, "b h w c"], name: str = "bias"
) -> Float[Array, "b h w c"]:
    """Returns x plus a trainable number per channel, zero at first.

    Args:
        module: whose parameter the bias becomes; called while that module computes.
        x: the input.
        name: of the parameter.
    """
    bias = module.param(name, nn.initializers.zeros, (x.shape[-1],)).astype(x.dtype)
    return x + bias[None, None, None]


def resolve_padding(
    padding: Padding | None, x: Float[Array, "b h w c"], size: int, stride: int
) -> Padding:
    """Returns the padding as it is given, or in pixels what Keras calls ``same`` for None."""
    if padding is None:
        return ops.same_padding(x.shape[1], x.shape[2], size, stride)
    return padding


class BatchNorm(nn.Module):
    """Batch normalisation followed by an activation, Keras ``BatchNormalization``.

    The running variance averages the biased variance of the batches, as in Keras 3. (The fused
    kernel of Keras 2 used the unbiased one; with 10^3 values per channel or more the two agree to
    0.1 %.)

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
        """Normalises with the statistics of the batch in training, with the running ones otherwise.

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
                jnp.asarray(scale),  # the variables of a caller may be NumPy arrays
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
        """Whether :func:`~msa_flax.models.fold.fold_batch_norm` has left nothing but the shift."""
        missing = ("params", "scale"), ("batch_stats", "mean")
        return not self.is_initializing() and not any(self.has_variable(*v) for v in missing)


class LayerNorm(nn.Module):
    """Normalisation of each pixel over its channels, Keras ``LayerNormalization``.

    Attributes:
        epsilon: added to the variance (Keras default 1e-3).
    """

    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Normalises; computed in float32, whatever the type of ``x``."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        wide = x.astype(scale.dtype)
        centred = wide - jnp.mean(wide, -1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), -1, keepdims=True)
        y = centred * lax.rsqrt(variance + self.epsilon)
        return ops.affine(y, scale, bias).astype(x.dtype)


def max_pool(
    x: Float[Array, "b h w c"], size: int, stride: int, padding: Padding | None = None
) -> Float[Array, "b oh ow c"]:
    """Returns the maximum of each window, Keras ``MaxPooling2D``.

    Where several pixels share the maximum, the first one of the first column receives its gradient;
    in TensorFlow it is the first one of the first row.

    Args:
        x: the input.
        size: height and width of a window, in pixels.
        stride: pixels.
        padding: pixels ((top, bottom), (left, right)) that are never the maximum, or None for
            ``same``.
    """
    return ops.max_pool(x, size, stride, resolve_padding(padding, x, size, stride))
