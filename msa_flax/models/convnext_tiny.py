"""ConvNeXt-Tiny as in ``keras.applications.ConvNeXtTiny`` (Liu et al. 2022, Section 2, Table 9).

Layer names are Keras's. Where Keras departs from the paper, Keras is followed, since its weights
are: without top a LayerNormalization follows the last block, over the channels of every pixel,
where the paper normalises once more after the pooling; kernels begin Glorot-uniform, not
truncated-normal. The images are 0..255: the network itself subtracts ImageNet's mean colour and
divides by its deviation. The stem and the three convolutions between the stages pad nothing, so
rows that no window fits into are left out. Without top the network has 27,820,128 parameters.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from msa_flax.models.layers import Conv, DepthwiseConv, LayerNorm, PointwiseConv

PREFIX = "convnext_tiny"

# (channels, blocks), one row a stage; the resolution is a quarter at first and then halves
STAGES = ((96, 3), (192, 3), (384, 9), (768, 3))

EXPANSION = 4  # of the channels inside a block
LAYER_SCALE = 1e-6  # initial value: at first a block is nearly the identity

MEANS = (0.485 * 255, 0.456 * 255, 0.406 * 255)  # of ImageNet's red, green and blue
DEVIATIONS = (0.229 * 255, 0.224 * 255, 0.225 * 255)

VALID = ((0, 0), (0, 0))

Norm = functools.partial(LayerNorm, epsilon=1e-6)


class ConvNeXtTiny(nn.Module):
    """The backbone: four stages of residual blocks; total stride 32.

    Attributes:
        drop_path_rate: how often the last block is skipped in training, 0 <= rate < 1; the rates
            of the blocks before it rise linearly from 0 (Keras default 0.0; the paper takes 0.1).
            Needs the random stream "dropout".
    """

    drop_path_rate: float = 0.0

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w 3"], *, train: bool
    ) -> Float[Array, "b fh fw c"]:
        """Returns the last feature map, normalised; 7 x 7 x 768 at 224 pixels."""
        x = standardize(images)
        rates = iter(np.linspace(0.0, self.drop_path_rate, sum(blocks for _, blocks in STAGES)))
        for i, (channels, blocks) in enumerate(STAGES):
            if i == 0:
                x = Conv(channels, 4, 4, padding=VALID, name=f"{PREFIX}_stem_conv")(x)
                x = Norm(name=f"{PREFIX}_stem_layernorm")(x)
            else:
                before = f"{PREFIX}_downsampling"
                x = Norm(name=f"{before}_layernorm_{i - 1}")(x)
                x = Conv(channels, 2, 2, padding=VALID, name=f"{before}_conv_{i - 1}")(x)
            for j in range(blocks):
                rate = float(next(rates))
                x = block(x, f"{PREFIX}_stage_{i}_block_{j}", drop_path_rate=rate, train=train)
        return Norm(name="layer_normalization")(x)  # Keras gives it no other name


def block(
    x: Float[Array, "b h w c"], name: str, *, drop_path_rate: float, train: bool
) -> Float[Array, "b h w c"]:
    """Adds a block's layers to the module at work and returns x plus what they compute.

    Args:
        x: the input.
        name: what the names of the layers begin with.
        drop_path_rate: how often an image skips the layers in training; where it does not, their
            output is divided by 1 - rate, which keeps the expectation.
        train: whether this is training.
    """
    channels = x.shape[-1]
    y = DepthwiseConv(7, use_bias=True, name=f"{name}_depthwise_conv")(x)
    y = Norm(name=f"{name}_layernorm")(y)
    wide = PointwiseConv(EXPANSION * channels, use_bias=True, name=f"{name}_pointwise_conv_1")
    narrow = PointwiseConv(channels, use_bias=True, name=f"{name}_pointwise_conv_2")
    y = LayerScale(name=f"{name}_layer_scale")(narrow(gelu(wide(y))))
    path = nn.Dropout(drop_path_rate, broadcast_dims=(1, 2, 3), name=f"{name}_stochastic_depth")
    return x + path(y, deterministic=not train)


class LayerScale(nn.Module):
    """A trainable gain a channel (Touvron et al. 2021), at first ``LAYER_SCALE``."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns the scaled input."""
        gamma = self.param("gamma", nn.initializers.constant(LAYER_SCALE), (x.shape[-1],))
        return x * gamma.astype(x.dtype)[None, None, None]


def standardize(images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Returns images 0..255 minus ImageNet's mean colour, divided by its deviation."""
    wide = jnp.promote_types(images.dtype, jnp.float32)  # bfloat16 has no digits for both steps
    means, deviations = (jnp.asarray(v, wide)[None, None, None] for v in (MEANS, DEVIATIONS))
    return ((images.astype(wide) - means) / deviations).astype(images.dtype)


def gelu(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Returns x times the normal distribution function of x: the exact GELU, not tanh's."""
    return x * (0.5 + 0.5 * lax.erf(x * 0.5**0.5))
