"""GoogLeNet (Szegedy et al. 2014, "Going deeper with convolutions", Table 1 and Figure 3).

Paper 1 compares itself with this network. Keras has no such network, and there are no ImageNet
weights for it here. The table is followed exactly: kernels of 5 x 5, biases, no BatchNorm, and a
ReLU after every convolution, reductions and projections included. Where the paper leaves a choice,
or this file departs from it:

* Padding is ``same`` everywhere, which gives the sizes of the table. (The Caffe version of the
  network pads the 7 x 7 convolution by 3 on each side and rounds pooled sizes up. It gets the same
  sizes, with windows that lie half a window further up and to the left.)
* Figure 3 shows local response normalisation after the first pooling and before the second, but no
  constants. Here they are those of the Caffe network: 5 channels, k = 1, beta = 0.75, and
  alpha = 1e-4 for the mean square of the channels, so a fifth of that for their sum.
* The two auxiliary classifiers, which are for training only, are left out.
* The top is the head of this project, as for all backbones: it includes the average pooling, and
  the dropout of 40 % is ``model.dropout = 0.4``.
* Kernels start Glorot-uniform and biases zero; the paper does not say how.

Without top the network has 5,973,552 parameters.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from msa_flax.models.layers import COLOURS, Conv, PointwiseConv, max_pool
from msa_flax.models.ops import local_response_norm

# The columns of Table 1: name, #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj; one row per
# inception module. Each group has its own resolution and starts with a max pooling of stride 2.
STAGES = (
    (
        ("3a", 64, 96, 128, 16, 32, 32),
        ("3b", 128, 128, 192, 32, 96, 64),
    ),
    (
        ("4a", 192, 96, 208, 16, 48, 64),
        ("4b", 160, 112, 224, 24, 64, 64),
        ("4c", 128, 128, 256, 24, 64, 64),
        ("4d", 112, 144, 288, 32, 64, 64),
        ("4e", 256, 160, 320, 32, 128, 128),
    ),
    (
        ("5a", 256, 160, 320, 32, 128, 128),
        ("5b", 384, 192, 384, 48, 128, 128),
    ),
)

lrn = functools.partial(local_response_norm, size=5, k=1.0, alpha=1e-4 / 5)


class GoogLeNet(nn.Module):
    """The backbone: three convolutions and nine inception modules; total stride 32."""

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w colours"], *, train: bool
    ) -> Float[Array, "b fh fw c"]:
        """Returns the output of inception 5b, 7 x 7 x 1024 at 224 pixels; ignores ``train``."""
        x = nn.relu(Conv(64, 7, 2, channels=COLOURS, name="conv1")(images))
        x = lrn(max_pool(x, 3, 2))
        x = nn.relu(PointwiseConv(64, use_bias=True, name="conv2_reduce")(x))
        x = nn.relu(Conv(192, 3, name="conv2")(x))
        x = lrn(x)
        for stage in STAGES:
            x = max_pool(x, 3, 2)
            for name, *channels in stage:
                x = inception(x, f"inception_{name}", channels)
        return x


def inception(
    x: Float[Array, "b h w c"], name: str, channels: Sequence[int]
) -> Float[Array, "b h w d"]:
    """Returns the output of an inception module: four branches, concatenated (Figure 2b).

    Its layers belong to the module that calls this.

    Args:
        x: the input.
        name: what the names of the layers begin with.
        channels: the six columns of Table 1.
    """
    direct, reduce_3x3, conv_3x3, reduce_5x5, conv_5x5, projected = channels

    def point(y: Array, channels: int, part: str) -> Array:
        return nn.relu(PointwiseConv(channels, use_bias=True, name=f"{name}_{part}")(y))

    def conv(y: Array, channels: int, size: int) -> Array:
        return nn.relu(Conv(channels, size, name=f"{name}_{size}x{size}")(y))

    branches = [
        point(x, direct, "1x1"),
        conv(point(x, reduce_3x3, "3x3_reduce"), conv_3x3, 3),
        conv(point(x, reduce_5x5, "5x5_reduce"), conv_5x5, 5),
        point(max_pool(x, 3, 1), projected, "pool_proj"),
    ]
    return jnp.concatenate(branches, axis=-1)
