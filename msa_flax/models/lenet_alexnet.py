"""Features of LeNet-5 and of AlexNet, concatenated: a baseline of paper 1 (its reference [9]).

That reference joins the features of the two networks but hardly says how. This file therefore
follows the papers of the networks: LeCun et al. 1998 (Section II.B, Figure 2) and Krizhevsky et al.
2012 (Section 3). Each network ends with its last feature map; the two maps have the same height and
width and are joined along the channels: 256 + 120 = 376. The fully connected layers are replaced by
the head of this project, as for all backbones. Departures from the papers:

* The convolutions of AlexNet are not split into two groups, which the paper does for its two GPUs.
  An image of 224 pixels does not give the 55 x 55 that the paper states. With one row of zeros
  above and two below, and columns likewise, it does.
* LeNet-5 sees the grey value (the mean of the colours), resized so that its last map has the size
  of AlexNet's: for g cells that takes 28 + 4 g pixels. For one cell these are the 32 x 32 pixels
  that LeNet-5 was made for, so each cell is what LeNet-5 computes for a window of 32 x 32 pixels,
  with one window every 4 pixels.
* Every map of C3 sees all six maps of S2; in the paper most see three or four of them.
* Kernels start Glorot-uniform, biases zero, and the gains of S2 and S4 a quarter, which makes them
  averages. The papers draw from other distributions, and some biases of AlexNet start at 1.

There are no ImageNet weights for it here. Without top the network has 3,797,936 parameters.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from msa_flax.models.layers import COLOURS, VALID, Conv, add_bias, max_pool
from msa_flax.models.ops import local_response_norm

# (name, channels, kernel size, stride, normalised, pooled)
ALEXNET = (
    ("conv1", 96, 11, 4, True, True),
    ("conv2", 256, 5, 1, True, True),
    ("conv3", 384, 3, 1, False, False),
    ("conv4", 384, 3, 1, False, False),
    ("conv5", 256, 3, 1, False, True),
)

# (convolution, channels, subsampling after it); every kernel is 5 x 5, without padding
LENET = (
    ("c1", 6, "s2"),
    ("c3", 16, "s4"),
    ("c5", 120, None),
)

AROUND = ((1, 2), (1, 2))  # zeros around the image for AlexNet
WINDOW, STEP = 32, 4  # pixels that a cell of LeNet's last map sees, and pixels between two cells

lrn = functools.partial(local_response_norm, size=5, k=2.0, alpha=1e-4)  # Section 3.3


class LeNetAlexNet(nn.Module):
    """The backbone: the last maps of AlexNet and LeNet-5, side by side; total stride 32."""

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w colours"], *, train: bool
    ) -> Float[Array, "b fh fw c"]:
        """Returns both maps, AlexNet's first; 6 x 6 x 376 at 224 pixels; ignores ``train``."""
        deep = AlexNetFeatures(name="alexnet")(images)
        shallow = LeNetFeatures(name="lenet")(grey_for_grid(images, deep.shape[1], deep.shape[2]))
        return jnp.concatenate([deep, shallow], axis=-1)


class AlexNetFeatures(nn.Module):
    """The five convolutions of AlexNet."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w colours"]) -> Float[Array, "b fh fw 256"]:
        """Returns the pooled output of the fifth convolution; 6 x 6 at 224 pixels."""
        x = images
        for name, channels, size, stride, normalised, pooled in ALEXNET:
            padding, given = (AROUND, COLOURS) if x is images else (None, None)
            layer = Conv(channels, size, stride, padding=padding, channels=given, name=name)
            x = nn.relu(layer(x))
            if normalised:
                x = lrn(x)
            if pooled:
                x = max_pool(x, 3, 2, VALID)
        return x


class LeNetFeatures(nn.Module):
    """The layers C1 to C5 of LeNet-5, each followed by its scaled hyperbolic tangent."""

    @nn.compact
    def __call__(self, grey: Float[Array, "b h w 1"]) -> Float[Array, "b fh fw 120"]:
        """Returns the output of C5, with one cell every 4 pixels."""
        x = grey
        for name, channels, after in LENET:
            x = squash(Conv(channels, 5, padding=VALID, name=name)(x))
            if after:
                x = squash(Subsample(name=after)(x))
        return x


class Subsample(nn.Module):
    """The sum of 2 x 2 pixels, times a gain, plus a bias; both trainable, one per channel."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow c"]:
        """Returns the map at half its height and width, which must be even."""
        b, h, w, c = x.shape
        gain = self.param("gain", nn.initializers.constant(0.25), (c,)).astype(x.dtype)
        total = x.reshape(b, h // 2, 2, w // 2, 2, c).sum((2, 4))
        return add_bias(self, total * gain[None, None, None])


def squash(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Returns the activation of LeNet-5: 1.7159 tanh(2 x / 3), which maps 1 to 1 and -1 to -1."""
    return 1.7159 * jnp.tanh(x * (2 / 3))


def grey_for_grid(
    images: Float[Array, "b h w colours"], rows: int, columns: int
) -> Float[Array, "b lh lw 1"]:
    """Returns the images in grey, at the size that gives LeNet-5 rows x columns cells."""
    grey = jnp.mean(images, axis=-1, keepdims=True, dtype=jnp.float32)
    height, width = (WINDOW + STEP * (cells - 1) for cells in (rows, columns))
    down, across = (resizing(*n) for n in ((images.shape[1], height), (images.shape[2], width)))
    # The sums of jax.image.resize, as products that other formats have too.
    precision = lax.Precision.HIGHEST
    grey = jnp.einsum("bhwc,hn,wm->bnmc", grey, down, across, precision=precision)
    return grey.astype(images.dtype)


def resizing(size: int, target: int) -> np.ndarray:
    """Returns the weights of linear resizing with antialiasing, float32 [size, target]."""
    step = np.float32(size / target)
    places = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * step - np.float32(0.5)
    away = np.abs(places - np.arange(size, dtype=np.float32)[:, None]) / max(step, np.float32(1))
    weights = np.maximum(0, 1 - away)
    return weights / weights.sum(axis=0)
