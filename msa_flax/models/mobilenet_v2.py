"""MobileNetV2 as in ``keras.applications.MobileNetV2`` (Sandler et al. 2018, Table 2).

Layer names are Keras's. Where Keras departs from the paper, Keras is followed, since its ImageNet
weights are: BatchNorm epsilon 1e-3 and momentum 0.999, channels rounded to multiples of 8, and
padding. The stem pads ``same``; a depthwise layer of stride 2 pads one row above and below and one
column left and right at odd sizes, at even ones only below and right. Without top and at alpha 1
the network has 2,257,984 parameters.
"""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from msa_flax.models.layers import BatchNorm, Conv, DepthwiseConv, PointwiseConv

STEM_CHANNELS = 32
LAST_CHANNELS = 1280  # not narrowed by an alpha below 1
EXPANSION = 6  # of every block but the first, which has none

# (output channels at alpha 1, stride of the depthwise layer), one row an inverted residual block
BLOCKS = (
    (16, 1),
    (24, 2),
    (24, 1),
    (32, 2),
    (32, 1),
    (32, 1),
    (64, 2),
    (64, 1),
    (64, 1),
    (64, 1),
    (96, 1),
    (96, 1),
    (96, 1),
    (160, 2),
    (160, 1),
    (160, 1),
    (320, 1),
)

Norm = functools.partial(BatchNorm, momentum=0.999)


class MobileNetV2(nn.Module):
    """The backbone: a stem, seventeen inverted residual blocks, one wide layer; total stride 32.

    Attributes:
        alpha: width multiplier.
    """

    alpha: float = 1.0

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w 3"], *, train: bool
    ) -> Float[Array, "b fh fw c"]:
        """Returns the last feature map; 7 x 7 x 1280 at 224 pixels and alpha 1."""
        channels = divisible(STEM_CHANNELS * self.alpha)
        x = Conv(channels, 3, 2, use_bias=False, name="Conv1")(images)
        x = Norm("relu6", name="bn_Conv1")(x, train=train)
        for i, (channels, stride) in enumerate(BLOCKS):
            inputs, prefix = x, f"block_{i}" if i else "expanded_conv"
            if i:
                x = PointwiseConv(EXPANSION * x.shape[-1], name=f"{prefix}_expand")(x)
                x = Norm("relu6", name=f"{prefix}_expand_BN")(x, train=train)
            padding = (
                None if stride == 1 else (before_stride(x.shape[1]), before_stride(x.shape[2]))
            )
            x = DepthwiseConv(3, stride, padding, name=f"{prefix}_depthwise")(x)
            x = Norm("relu6", name=f"{prefix}_depthwise_BN")(x, train=train)
            x = PointwiseConv(divisible(int(channels * self.alpha)), name=f"{prefix}_project")(x)
            x = Norm(name=f"{prefix}_project_BN")(x, train=train)
            if x.shape == inputs.shape:
                x = inputs + x
        channels = divisible(LAST_CHANNELS * max(self.alpha, 1.0))
        x = PointwiseConv(channels, name="Conv_1")(x)
        return Norm("relu6", name="Conv_1_bn")(x, train=train)


def before_stride(size: int, kernel_size: int = 3) -> tuple[int, int]:
    """Returns Keras's padding of one side before a strided ``valid`` convolution, in pixels.

    Args:
        size: of the image along that side.
        kernel_size: of the convolution.
    """
    half = kernel_size // 2
    return half - (1 - size % 2), half


def divisible(channels: int | float, by: int = 8) -> int:
    """Returns the multiple of ``by`` nearest to ``channels``, at least 90 % of it."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded
