"""Features of LeNet-5 and of AlexNet, concatenated: a baseline of paper 1 (its reference [9]).

That reference joins the features of the two networks and says little of how; this file follows the
networks' own papers, LeCun et al. 1998 (Section II.B, Figure 2) and Krizhevsky et al. 2012 (Section
3). Both are taken up to their last map, of one grid, and joined by channel: 256 + 120 = 376. Their
fully connected layers belong to the top, which is this project's head, as for all backbones. Where
the papers are departed from:

* AlexNet's convolutions are not split into two groups, which served two GPUs. 224 pixels do not
  give the 55 x 55 that the paper states; the image is padded by one row above and two below, and
  columns alike, which does.
* LeNet-5 sees the grey value (the mean of the colours), resized so that its last map has AlexNet's
  grid: g cells need 28 + 4 g pixels. For one cell these are the 32 x 32 pixels that LeNet-5 was
  made for, so each cell is what LeNet-5 computes for a window of 32 x 32, one every 4 pixels.
  Every map of C3 sees all six maps of S2; in the paper some see three or four.
* Kernels begin Glorot-uniform, biases zero and the gains of S2 and S4 a quarter, an average. The
  papers draw them from other distributions; AlexNet begins with biases of 1 in some layers.

There are no weights for it here. Without top the network has 3,797,936 parameters.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from msa_flax.models.layers import Conv, local_response_norm, max_pool

VALID = ((0, 0), (0, 0))
AROUND = ((1, 2), (1, 2))  # the zeros around the image that AlexNet sees

# (name, channels, kernel size, stride, normalised, pooled)
ALEXNET = (
    ("conv1", 96, 11, 4, True, True),
    ("conv2", 256, 5, 1, True, True),
    ("conv3", 384, 3, 1, False, False),
    ("conv4", 384, 3, 1, False, False),
    ("conv5", 256, 3, 1, False, True),
)
lrn = functools.partial(local_response_norm, size=5, k=2.0, alpha=1e-4)  # Section 3.3

# (convolution, channels, subsampling after it); every kernel is 5 x 5 and pads nothing
LENET = (("c1", 6, "s2"), ("c3", 16, "s4"), ("c5", 120, None))
WINDOW, STEP = 32, 4  # pixels that one cell of LeNet's last map sees, and between two cells


class LeNetAlexNet(nn.Module):
    """The backbone: AlexNet's last map beside LeNet-5's; total stride 32."""

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w 3"], *, train: bool
    ) -> Float[Array, "b fh fw c"]:
        """Returns both maps, AlexNet's first; 6 x 6 x 376 at 224 pixels; training is no other."""
        deep = AlexNetFeatures(name="alexnet")(images)
        shallow = LeNetFeatures(name="lenet")(grey_for_grid(images, deep.shape[1], deep.shape[2]))
        return jnp.concatenate([deep, shallow], axis=-1)


class AlexNetFeatures(nn.Module):
    """AlexNet's five convolutions."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b fh fw 256"]:
        """Returns the pooled output of the fifth convolution; 6 x 6 at 224 pixels."""
        x = images
        for name, channels, size, stride, normalised, pooled in ALEXNET:
            padding = AROUND if x is images else None
            x = nn.relu(Conv(channels, size, stride, padding=padding, name=name)(x))
            if normalised:
                x = lrn(x)
            if pooled:
                x = max_pool(x, 3, 2, VALID)
        return x


class LeNetFeatures(nn.Module):
    """LeNet-5's layers C1 to C5, each followed by its scaled hyperbolic tangent."""

    @nn.compact
    def __call__(self, grey: Float[Array, "b h w 1"]) -> Float[Array, "b fh fw 120"]:
        """Returns C5's output, a cell every 4 pixels."""
        x = grey
        for name, channels, after in LENET:
            x = squash(Conv(channels, 5, padding=VALID, name=name)(x))
            if after:
                x = squash(Subsample(name=after)(x))
        return x


class Subsample(nn.Module):
    """The sum of 2 x 2 pixels times a gain plus a bias, both trainable, one a channel."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow c"]:
        """Returns the map at half its size; height and width are even."""
        b, h, w, c = x.shape
        gain = self.param("gain", nn.initializers.constant(0.25), (c,)).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (c,)).astype(x.dtype)
        total = x.reshape(b, h // 2, 2, w // 2, 2, c).sum((2, 4))
        return total * gain[None, None, None] + bias[None, None, None]


def squash(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Returns LeNet-5's activation, 1.7159 tanh(2 x / 3), which maps 1 to 1 and -1 to -1."""
    return 1.7159 * jnp.tanh(x * (2 / 3))


def grey_for_grid(
    images: Float[Array, "b h w 3"], rows: int, columns: int
) -> Float[Array, "b lh lw 1"]:
    """Returns the grey images at the size for which LeNet-5 has rows x columns cells."""
    grey = jnp.mean(images, axis=-1, keepdims=True, dtype=jnp.float32)
    height, width = (WINDOW + STEP * (cells - 1) for cells in (rows, columns))
    grey = jax.image.resize(grey, (len(grey), height, width, 1), "linear")  # with antialiasing
    return grey.astype(images.dtype)
