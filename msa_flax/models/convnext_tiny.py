"""ConvNeXt-Tiny as in ``keras.applications.ConvNeXtTiny`` (Liu et al. 2022, Section 2, Table 9).

Layers have the names that Keras gives them. Where Keras departs from the paper this file follows
Keras, because the ImageNet weights are those of Keras:

- Without top, a LayerNormalization over the channels of each pixel follows the last block. The
  paper normalises after the pooling instead.
- Kernels start Glorot-uniform, not truncated-normal.
- No block is skipped in training: the stochastic depth of the paper has the rate 0.

Images are 0..255: the network itself subtracts the mean colour of ImageNet and divides by its
standard deviation. The stem and the three convolutions between the stages have no padding, so rows
and columns that fill no window are left out. Without top the network has 27,820,128 parameters.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from msa_flax.models.layers import VALID, Conv, DepthwiseConv, LayerNorm, PointwiseConv

PREFIX = "convnext_tiny"

# (channels, blocks), one row per stage; the first has a quarter of the resolution of the image,
# each further one half of the resolution before it
STAGES = (
    (96, 3),
    (192, 3),
    (384, 9),
    (768, 3),
)

EXPANSION = 4  # channels inside a block, as a multiple of its input channels
LAYER_SCALE = 1e-6  # initial value: at first a block is nearly the identity

MEANS = (0.485 * 255, 0.456 * 255, 0.406 * 255)  # red, green and blue of ImageNet
DEVIATIONS = (0.229 * 255, 0.224 * 255, 0.225 * 255)

Norm = functools.partial(LayerNorm, epsilon=1e-6)


class ConvNeXtTiny(nn.Module):
    """The backbone: four stages of residual blocks; total stride 32."""

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w colours"], *, train: bool
    ) -> Float[Array, "b fh fw c"]:
        """Returns the normalised last feature map, 7 x 7 x 768 at 224 pixels; ignores ``train``."""
        x = standardize(images)
        for i, (channels, blocks) in enumerate(STAGES):
            if i == 0:
                x = Conv(channels, 4, 4, padding=VALID, name=f"{PREFIX}_stem_conv")(x)
                x = Norm(name=f"{PREFIX}_stem_layernorm")(x)
            else:
                before = f"{PREFIX}_downsampling"
                x = Norm(name=f"{before}_layernorm_{i - 1}")(x)
                x = Conv(channels, 2, 2, padding=VALID, name=f"{before}_conv_{i - 1}")(x)
            for j in range(blocks):
                x = block(x, f"{PREFIX}_stage_{i}_block_{j}")
        return Norm(name="layer_normalization")(x)  # the name that Keras makes up for it


def block(x: Float[Array, "b h w c"], name: str) -> Float[Array, "b h w c"]:
    """Returns the output of a residual block; its layers belong to the module that calls this.

    Args:
        x: the input.
        name: what the names of the layers begin with.
    """
    channels = x.shape[-1]
    y = DepthwiseConv(7, use_bias=True, name=f"{name}_depthwise_conv")(x)
    y = Norm(name=f"{name}_layernorm")(y)
    wide = PointwiseConv(EXPANSION * channels, use_bias=True, name=f"{name}_pointwise_conv_1")
    narrow = PointwiseConv(channels, use_bias=True, name=f"{name}_pointwise_conv_2")
    return x + LayerScale(name=f"{name}_layer_scale")(narrow(gelu(wide(y))))


class LayerScale(nn.Module):
    """A trainable gain per channel (Touvron et al. 2021), at first ``LAYER_SCALE``."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns the scaled input."""
        gamma = self.param("gamma", nn.initializers.constant(LAYER_SCALE), (x.shape[-1],))
        return x * gamma.astype(x.dtype)[None, None, None]


def standardize(images: Float[Array, "b h w colours"]) -> Float[Array, "b h w 3"]:
    """Returns images 0..255 minus the mean colour of ImageNet, divided by its deviation."""
    wide = jnp.promote_types(images.dtype, jnp.float32)  # bfloat16 is too coarse for two steps
    means, deviations = (jnp.asarray(v, wide)[None, None, None] for v in (MEANS, DEVIATIONS))
    return ((images.astype(wide) - means) / deviations).astype(images.dtype)


def gelu(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Returns x times the normal distribution function of x: the exact GELU, without tanh."""
    return x * (0.5 + 0.5 * lax.erf(x * 0.5**0.5))
