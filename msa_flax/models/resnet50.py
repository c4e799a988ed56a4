"""ResNet50 as in ``keras.applications.ResNet50`` (He et al. 2016, Table 1).

Layers have the names that Keras gives them. Where Keras departs from the paper or says more, this
file follows Keras, because the ImageNet weights are those of Keras:

- Every convolution has a bias, although a BatchNorm follows it. BatchNorm has epsilon 1.001e-5.
- The stride of a block is in its first 1 x 1 convolution; torchvision has it in the 3 x 3 one.
- The shortcut is a convolution in the first block of every stage, even where the stride is 1.
- Padding is explicit: three zeros on each side before the stem, one before the pooling. At even
  sizes ``same`` would add fewer above and on the left. The zeros around the pooling follow a ReLU,
  so they are never larger than a pixel beside them and change no maximum.

Without top the network has 23,587,712 parameters.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from msa_flax.models.layers import COLOURS, VALID, BatchNorm, Conv, PointwiseConv, max_pool

STEM_CHANNELS = 64
EXPANSION = 4  # output channels of a block, as a multiple of those of its bottleneck

# (name, blocks, channels of the bottleneck, stride of the first block), one row per stage
STAGES = (
    ("conv2", 3, 64, 1),
    ("conv3", 4, 128, 2),
    ("conv4", 6, 256, 2),
    ("conv5", 3, 512, 2),
)

Norm = Callable[..., BatchNorm]
Pointwise = functools.partial(PointwiseConv, use_bias=True)


class ResNet50(nn.Module):
    """The backbone: a stem and sixteen bottleneck blocks; total stride 32.

    Attributes:
        momentum: of the running averages of BatchNorm (Keras default 0.99).
    """

    momentum: float = 0.99

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w colours"], *, train: bool
    ) -> Float[Array, "b fh fw c"]:
        """Returns the last feature map; 7 x 7 x 2048 at 224 pixels."""
        norm = functools.partial(BatchNorm, momentum=self.momentum, epsilon=1.001e-5)
        padding = ((3, 3), (3, 3))
        x = Conv(STEM_CHANNELS, 7, 2, padding=padding, channels=COLOURS, name="conv1_conv")(images)
        x = norm("relu", name="conv1_bn")(x, train=train)
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = max_pool(x, 3, 2, padding=VALID)
        for stage, blocks, channels, first_stride in STAGES:
            for number in range(1, blocks + 1):
                stride = first_stride if number == 1 else 1
                x = _block(x, channels, stride, f"{stage}_block{number}", norm, train=train)
        return x


def _block(
    x: Float[Array, "b h w c"], channels: int, stride: int, name: str, norm: Norm, *, train: bool
) -> Float[Array, "b oh ow d"]:
    """Returns the output of a bottleneck block; its layers belong to the module that calls this."""
    shortcut = x
    if x.shape[-1] != EXPANSION * channels:
        shortcut = Pointwise(EXPANSION * channels, stride, name=f"{name}_0_conv")(x)
        shortcut = norm(name=f"{name}_0_bn")(shortcut, train=train)
    x = Pointwise(channels, stride, name=f"{name}_1_conv")(x)
    x = norm("relu", name=f"{name}_1_bn")(x, train=train)
    x = Conv(channels, 3, name=f"{name}_2_conv")(x)
    x = norm("relu", name=f"{name}_2_bn")(x, train=train)
    x = Pointwise(EXPANSION * channels, name=f"{name}_3_conv")(x)
    x = norm(name=f"{name}_3_bn")(x, train=train)
    return nn.relu(shortcut + x)
