"""Layers that behave as Keras's do: names, padding, constants, initial values.

What makes them fast is in :mod:`msa_flax.models.ops`.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from msa_flax.models import ops
from msa_flax.models.ops import Padding

# Keras initialises every kernel Glorot-uniform and every bias with zeros.
kernel_init = nn.initializers.glorot_uniform()

FEW_CHANNELS = 4  # up to here a convolution gathers patches on the CPU

# name -> the interval that the activation clips to
ACTIVATIONS = {
    "linear": (-jnp.inf, jnp.inf),
    "relu": (0.0, jnp.inf),
    "relu6": (0.0, 6.0),
}


class Conv(nn.Module):
    """An ordinary convolution, Keras ``Conv2D``: ``same`` padding, Glorot-uniform kernel.

    Attributes:
        features: output channels.
        kernel_size: pixels, square.
        stride: pixels.
        use_bias: whether a bias is added.
    """

    features: int
    kernel_size: int
    stride: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow d"]:
        """Returns the convolved input."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", kernel_init, shape)
        padding = ops.same_padding(x.shape[1], x.shape[2], self.kernel_size, self.stride)
        if x.shape[-1] <= FEW_CHANNELS:
            x = ops.thin_conv(x, kernel, self.stride, padding)
        else:
            x = ops.native_conv(x, kernel, stride=self.stride, padding=padding)
        if self.use_bias:
            x = x + self.param("bias", nn.initializers.zeros, (self.features,))[None, None, None]
        return x


class DepthwiseConv(nn.Module):
    """A depthwise convolution without bias, Keras ``DepthwiseConv2D``.

    Attributes:
        kernel_size: pixels, square.
        stride: pixels.
        padding: explicit zeros ((top, bottom), (left, right)), or None for ``same``.
    """

    kernel_size: int = 3
    stride: int = 1
    padding: Padding | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow c"]:
        """Returns the convolved input."""
        shape = (self.kernel_size, self.kernel_size, 1, x.shape[-1])
        kernel = self.param("kernel", kernel_init, shape)
        padding = self.padding
        if padding is None:
            padding = ops.same_padding(x.shape[1], x.shape[2], self.kernel_size, self.stride)
        return ops.depthwise_conv(x, kernel, self.stride, padding)


class PointwiseConv(nn.Module):
    """A 1 x 1 convolution without bias.

    Attributes:
        features: output channels.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """Returns the convolved input."""
        return ops.pointwise_conv(
            x, self.param("kernel", kernel_init, (1, 1, x.shape[-1], self.features))
        )


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
        """Normalises by the batch's statistics in training, by the running ones otherwise."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        variance = self.variable("batch_stats", "var", jnp.ones, shape)
        bounds = ACTIVATIONS[self.activation]
        if not train:
            statistics = (mean.value, variance.value)
            gain, shift = ops.coefficients(*statistics, scale, bias, self.epsilon)
            return jnp.clip(ops.affine(x, gain, shift), *bounds)
        y, batch_mean, batch_variance = ops.normalize(x, scale, bias, self.epsilon, bounds)
        if not self.is_initializing():
            rate = 1 - self.momentum
            mean.value += rate * (batch_mean - mean.value)
            variance.value += rate * (batch_variance - variance.value)
        return y
