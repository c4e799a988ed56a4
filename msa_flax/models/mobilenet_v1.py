"""MobileNetV1 as in ``keras.applications.MobileNet`` (Howard et al. 2017, Table 1).

Layers have the names that Keras gives them. Where Keras departs from the paper this file follows
Keras, because the ImageNet weights are those of Keras:

- ReLU6 instead of ReLU, and BatchNorm with epsilon 1e-3.
- The padding of the stem is ``same``. A depthwise layer of stride 2 is padded by one row below and
  one column on the right, which at odd sizes is not ``same``.

Without top and at alpha 1 the network has 3,228,864 parameters.
"""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from msa_flax.models.layers import COLOURS, BatchNorm, Conv, DepthwiseConv, PointwiseConv

STEM_CHANNELS = 32  # at alpha 1

# (output channels at alpha 1, stride of the depthwise layer), one row per separable block
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)


class MobileNetV1(nn.Module):
    """The backbone: a stem and thirteen depthwise separable blocks; total stride 32.

    Attributes:
        alpha: width multiplier; channels are ``int(channels * alpha)``.
        momentum: of the running averages of BatchNorm (Keras default 0.99).
    """

    alpha: float = 1.0
    momentum: float = 0.99

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w colours"], *, train: bool
    ) -> Float[Array, "b fh fw c"]:
        """Returns the last feature map; 7 x 7 x 1024 at 224 pixels and alpha 1."""
        norm = functools.partial(BatchNorm, "relu6", self.momentum)
        x = Conv(
            int(STEM_CHANNELS * self.alpha), 3, 2, use_bias=False, channels=COLOURS, name="conv1"
        )(images)
        x = norm(name="conv1_bn")(x, train=train)
        for i, (channels, stride) in enumerate(BLOCKS, start=1):
            padding = None if stride == 1 else ((0, 1), (0, 1))
            x = DepthwiseConv(3, stride, padding, name=f"conv_dw_{i}")(x)
            x = norm(name=f"conv_dw_{i}_bn")(x, train=train)
            x = PointwiseConv(int(channels * self.alpha), name=f"conv_pw_{i}")(x)
            x = norm(name=f"conv_pw_{i}_bn")(x, train=train)
        return x
