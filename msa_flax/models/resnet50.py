"""ResNet50 as in ``keras.applications.ResNet50`` (He et al. 2016, Table 1).

Layer names are Keras's. Where Keras departs from the paper, Keras is followed, since its ImageNet
weights are: every convolution has a bias, although a BatchNorm follows; BatchNorm epsilon is
1.001e-5; a block's stride is in its first 1 x 1 convolution (torchvision has it in the 3 x 3 one),
and so is that of the shortcut, which is a convolution in the first block of every stage, also where
the stride is 1. Padding is explicit: three zeros on every side before the stem, one before the
pooling, where ``same`` would give fewer above and to the left at even sizes. After a ReLU the zeros
around the pooling are never more than what they stand beside, so they never win.
Without top the network has 23,587,712 parameters.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from msa_flax.models.layers import BatchNorm, Conv, PointwiseConv, max_pool

STEM_CHANNELS = 64
EXPANSION = 4  # a block's output channels, of its bottleneck's

# (name, blocks, channels of the bottleneck, stride of the first block), one row a stage
STAGES = (
    ("conv2", 3, 64, 1),
    ("conv3", 4, 128, 2),
    ("conv4", 6, 256, 2),
    ("conv5", 3, 512, 2),
)

Norm = functools.partial(BatchNorm, epsilon=1.001e-5)


class ResNet50(nn.Module):
    """The backbone: a stem and sixteen bottleneck blocks; total stride 32."""

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w 3"], *, train: bool
    ) -> Float[Array, "b fh fw c"]:
        """Returns the last feature map; 7 x 7 x 2048 at 224 pixels."""
        padding = ((3, 3), (3, 3))
        x = Conv(STEM_CHANNELS, 7, 2, padding=padding, name="conv1_conv")(images)
        x = Norm("relu", name="conv1_bn")(x, train=train)
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = max_pool(x, 3, 2, padding=((0, 0), (0, 0)))
        for stage, blocks, channels, first_stride in STAGES:
            for number in range(1, blocks + 1):
                stride = first_stride if number == 1 else 1
                x = _block(x, channels, stride, f"{stage}_block{number}", train=train)
        return x


def _block(
    x: Float[Array, "b h w c"], channels: int, stride: int, name: str, *, train: bool
) -> Float[Array, "b oh ow d"]:
    """A bottleneck block; its layers belong to the module that calls it."""
    shortcut = x
    if x.shape[-1] != EXPANSION * channels:
        shortcut = _pointwise(x, EXPANSION * channels, stride, f"{name}_0")
        shortcut = Norm(name=f"{name}_0_bn")(shortcut, train=train)
    x = _pointwise(x, channels, stride, f"{name}_1")
    x = Norm("relu", name=f"{name}_1_bn")(x, train=train)
    x = Conv(channels, 3, name=f"{name}_2_conv")(x)
    x = Norm("relu", name=f"{name}_2_bn")(x, train=train)
    x = _pointwise(x, EXPANSION * channels, 1, f"{name}_3")
    x = Norm(name=f"{name}_3_bn")(x, train=train)
    return nn.relu(shortcut + x)


def _pointwise(
    x: Float[Array, "b h w c"], channels: int, stride: int, name: str
) -> Float[Array, "b oh ow d"]:
    return PointwiseConv(channels, stride, use_bias=True, name=f"{name}_conv")(x)
