"""Layers that behave as Keras's do: names, padding, constants, initial values.

A layer computes in the type of its input (float32 or bfloat16); parameters and the statistics of
BatchNorm are float32. What makes the layers fast is in :mod:`msa_flax.models.ops`.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from msa_flax.models import ops
from msa_flax.models.ops import Padding

# Keras initialises every kernel Glorot-uniform and every bias with zeros.
kernel_init = nn.initializers.glorot_uniform()

FEW_CHANNELS = 4  # up to here, and with more going out, a convolution is that of an image

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
        kernel = self.param("kernel", kernel_init, shape).astype(x.dtype)
        padding = ops.same_padding(x.shape[1], x.shape[2], self.kernel_size, self.stride)
        if x.shape[-1] <= FEW_CHANNELS < self.features:
            x = ops.thin_conv(x, kernel, self.stride, padding)
        else:
            x = ops.native_conv(x, kernel, stride=self.stride, padding=padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(x.dtype)
            x = x + bias[None, None, None]
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
        kernel = self.param("kernel", kernel_init, shape).astype(x.dtype)
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
        kernel = self.param("kernel", kernel_init, (1, 1, x.shape[-1], self.features))
        return ops.pointwise_conv(x, kernel.astype(x.dtype))


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
