"""MobileNetV2 as in ``keras.applications.MobileNetV2`` (Sandler et al. 2018, Table 2).

Layers have the names that Keras gives them. Where Keras departs from the paper this file follows
Keras, because the ImageNet weights are those of Keras:

- BatchNorm has epsilon 1e-3 and momentum 0.999, and channels are rounded to multiples of 8.
- The padding of the stem is ``same``. A depthwise layer of stride 2 is padded by one pixel on each
  side at odd sizes, and at even sizes by one row below and one column on the right.

Without top and at alpha 1 the network has 2,257,984 parameters.
"""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from msa_flax.models.layers import COLOURS, BatchNorm, Conv, DepthwiseConv, PointwiseConv

STEM_CHANNELS = 32  # at alpha 1
LAST_CHANNELS = 1280  # an alpha below 1 does not change it

# Columns t, c, n and s of Table 2: (expansion, output channels at alpha 1, blocks, stride of the
# first block), one row per stage
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """The backbone: a stem, seventeen inverted residual blocks, one wide layer; total stride 32.

    Attributes:
        alpha: width multiplier.
        momentum: of the running averages of BatchNorm (Keras default 0.999 of this network).
    """

    alpha: float = 1.0
    momentum: float = 0.999

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w colours"], *, train: bool
    ) -> Float[Array, "b fh fw c"]:
        """Returns the last feature map; 7 x 7 x 1280 at 224 pixels and alpha 1."""
        norm = functools.partial(BatchNorm, momentum=self.momentum)
        channels = divisible_by_8(STEM_CHANNELS * self.alpha)
        x = Conv(channels, 3, 2, use_bias=False, channels=COLOURS, name="Conv1")(images)
        x = norm("relu6", name="bn_Conv1")(x, train=train)
        number = 0
        for expansion, channels, blocks, first_stride in STAGES:
            for stride in (first_stride, *[1] * (blocks - 1)):
                inputs, name = x, f"block_{number}" if number else "expanded_conv"
                if expansion > 1:
                    x = PointwiseConv(expansion * x.shape[-1], name=f"{name}_expand")(x)
                    x = norm("relu6", name=f"{name}_expand_BN")(x, train=train)
                by_hand = padding_of_axis(x.shape[1]), padding_of_axis(x.shape[2])
                padding = None if stride == 1 else by_hand
                x = DepthwiseConv(3, stride, padding, name=f"{name}_depthwise")(x)
                x = norm("relu6", name=f"{name}_depthwise_BN")(x, train=train)
                narrow = divisible_by_8(int(channels * self.alpha))
                x = PointwiseConv(narrow, name=f"{name}_project")(x)
                x = norm(name=f"{name}_project_BN")(x, train=train)
                if x.shape == inputs.shape:
                    x = inputs + x
                number += 1
        channels = divisible_by_8(LAST_CHANNELS * max(self.alpha, 1.0))
        x = PointwiseConv(channels, name="Conv_1")(x)
        return norm("relu6", name="Conv_1_bn")(x, train=train)


def padding_of_axis(size: int) -> tuple[int, int]:
    """Returns how many zeros Keras puts before and after an axis for a 3 x 3 kernel of stride 2.

    Args:
        size: of the image along the axis, in pixels.
    """
    return size % 2, 1


def divisible_by_8(channels: int | float) -> int:
    """Returns the multiple of 8 nearest to ``channels``, or the next one if it is below 90 %."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
