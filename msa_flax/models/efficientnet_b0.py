"""EfficientNetB0 as in ``keras.applications.EfficientNetB0`` (Tan and Le 2019, Table 1).

Layers have the names that Keras gives them. Where Keras departs from the paper or says more, this
file follows Keras, because the ImageNet weights are those of Keras:

- Images are 0..255. The network itself scales them: by 1 / 255, then with the mean and the variance
  that its first layer holds (0 and 1 until weights are loaded).
- With ``weights="imagenet"`` Keras divides once more, by the square root of ImageNet's standard
  deviations, because its file holds deviations where variances belong. Here the variances are
  corrected when the file is loaded (:mod:`msa_flax.weights.rules.efficientnet_b0`), so that one
  network serves both cases.
- Squeeze and excitation narrows to a quarter of the block's input channels, not of the expanded
  ones, and its convolutions have biases.
- Kernels start truncated-normal with the variance 2 / fan-out. Keras takes the fan-out of a
  depthwise kernel to be that of one channel.
- BatchNorm has momentum 0.99 and epsilon 1e-3, the defaults of Keras.
- Keras pads explicitly before a strided convolution. At a known image size this is ``same``. (A
  Keras model of unknown image size pads odd sizes as if they were even; this one does not.)

Without top the network has 4,049,571 parameters, 7 of them in the first layer.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from msa_flax.models.layers import COLOURS, BatchNorm, Conv, DepthwiseConv, PointwiseConv

STEM_CHANNELS = 32
TOP_CHANNELS = 1280
SQUEEZE = 0.25  # channels between squeeze and excitation, as a share of the block's input channels
DROP_RATE = 0.2  # of the last residual branch; it grows linearly from 0 at the first block

# (kernel size, blocks, output channels, expansion, stride of the first block), one row per stage
STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)

KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
# What Keras takes for the fan-out of a depthwise kernel is its fan-in in lax's layout.
DEPTHWISE_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")

Pointwise = functools.partial(PointwiseConv, kernel_init=KERNEL_INIT)
Depthwise = functools.partial(DepthwiseConv, kernel_init=DEPTHWISE_INIT)


class EfficientNetB0(nn.Module):
    """The backbone: scaling, a stem, sixteen inverted residual blocks, one wide layer; stride 32.

    Training needs the random stream ``dropout``, which drops residual branches of whole images.

    Attributes:
        momentum: of the running averages of BatchNorm (Keras default 0.99).
    """

    momentum: float = 0.99

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w colours"], *, train: bool
    ) -> Float[Array, "b fh fw c"]:
        """Returns the last feature map of images 0..255; 7 x 7 x 1280 at 224 pixels."""
        norm = functools.partial(BatchNorm, momentum=self.momentum)
        x = Normalization(name="normalization")(images)
        x = Conv(STEM_CHANNELS, 3, 2, use_bias=False, kernel_init=KERNEL_INIT, name="stem_conv")(x)
        x = nn.silu(norm(name="stem_bn")(x, train=train))
        total, done = sum(blocks for _, blocks, *_ in STAGES), 0
        for stage, (size, blocks, channels, expansion, first_stride) in enumerate(STAGES, start=1):
            for letter in "abcd"[:blocks]:
                name, inputs = f"block{stage}{letter}", x
                stride = first_stride if letter == "a" else 1
                if expansion > 1:
                    x = Pointwise(expansion * x.shape[-1], name=f"{name}_expand_conv")(x)
                    x = nn.silu(norm(name=f"{name}_expand_bn")(x, train=train))
                x = Depthwise(size, stride, name=f"{name}_dwconv")(x)
                x = nn.silu(norm(name=f"{name}_bn")(x, train=train))
                x = x * _excitation(x, int(inputs.shape[-1] * SQUEEZE), name)
                x = Pointwise(channels, name=f"{name}_project_conv")(x)
                x = norm(name=f"{name}_project_bn")(x, train=train)
                if x.shape == inputs.shape:
                    # drops the branch of a whole image, and divides what it keeps by 1 - rate
                    rate = DROP_RATE * done / total
                    drop = nn.Dropout(rate, broadcast_dims=(1, 2, 3), name=f"{name}_drop")
                    x = inputs + drop(x, deterministic=not train)
                done += 1
        x = Pointwise(TOP_CHANNELS, name="top_conv")(x)
        return nn.silu(norm(name="top_bn")(x, train=train))


class Normalization(nn.Module):
    """Keras ``Rescaling(1 / 255)`` and ``Normalization``; not trained.

    The ``count`` of Keras is kept as well, so that its files are read completely; nothing uses it.
    """

    @nn.compact
    def __call__(self, images: Float[Array, "b h w colours"]) -> Float[Array, "b h w 3"]:
        """Returns (images / 255 - mean) / deviation, computed in float32."""
        shape = (COLOURS,)
        mean = jnp.asarray(self.variable("batch_stats", "mean", jnp.zeros, shape).value)
        variance = jnp.asarray(self.variable("batch_stats", "var", jnp.ones, shape).value)
        self.variable("batch_stats", "count", jnp.zeros, ())
        deviation = jnp.maximum(jnp.sqrt(variance), 1e-7)  # the smallest that Keras divides by
        x = images.astype(jnp.float32) / 255 - mean[None, None, None]
        return (x / deviation[None, None, None]).astype(images.dtype)


def _excitation(x: Float[Array, "b h w c"], channels: int, name: str) -> Float[Array, "b 1 1 c"]:
    """Returns a factor 0..1 for each channel of each image, from the means of the channels.

    Its layers belong to the module that calls this.
    """
    gate = jnp.mean(x, axis=(1, 2), keepdims=True)
    gate = nn.silu(Pointwise(channels, use_bias=True, name=f"{name}_se_reduce")(gate))
    return nn.sigmoid(Pointwise(x.shape[-1], use_bias=True, name=f"{name}_se_expand")(gate))
