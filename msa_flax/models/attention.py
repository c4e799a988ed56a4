"""Multi-scale spatial attention (MSA), paper 1 §3.2.2, Equations 1-6, Tables 2 and 3.

Where the paper is silent this file follows Keras: ``same`` padding, a bias in each convolution,
Glorot-uniform kernels. With kernel sizes 3, 5, 7 the block has 2 * (9 + 25 + 49) + 3 = 169
parameters, whatever the number of channels.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from msa_flax.models.layers import Conv, PointwiseConv
from msa_flax.models.ops import max_over_channels


class MultiScaleSpatialAttention(nn.Module):
    """Sum of the feature map weighted by one spatial attention map a kernel size.

    The maps M_k are sown as intermediates ``attention_<k>`` of shape [b, h, w], in 0..1.

    Attributes:
        kernel_sizes: k of each branch (paper 1: 3, 5, 7).
        refine: what the sentence "the attention maps from each scale are refined using 1x1
            convolutions", which has no equation, is read as. "none": Eq. 4-6 as printed. "map":
            before the product a 1x1 convolution turns each map into one map a channel, kept in
            0..1 by a second sigmoid (2 C parameters a scale). "features": a 1x1 convolution, C to
            C, after the sum (C^2 + C parameters).
    """

    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    refine: str = "none"

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns F^out, of the shape of ``features``."""
        average = jnp.mean(features, axis=-1, keepdims=True)  # Eq. 1
        maximum = max_over_channels(features)  # Eq. 2
        descriptor = jnp.concatenate([average, maximum], axis=-1)  # Eq. 3 gives both shapes

        out = jnp.zeros_like(features)
        for k in self.kernel_sizes:
            attention = nn.sigmoid(Conv(1, k, name=f"conv_{k}")(descriptor))  # Eq. 4
            self.sow("intermediates", f"attention_{k}", attention[..., 0])
            if self.refine == "map":
                channels = features.shape[-1]
                attention = nn.sigmoid(Conv(channels, 1, name=f"refine_{k}")(attention))
            out = out + attention * features  # Eq. 5, summed by Eq. 6

        if self.refine == "features":
            bias = self.param("refine_bias", nn.initializers.zeros, (features.shape[-1],))
            out = PointwiseConv(features.shape[-1], name="refine")(out)
            out = out + bias.astype(out.dtype)[None, None, None]
        return out


class SpatialAttention(nn.Module):
    """The spatial half of CBAM (Woo et al. 2018, Eq. 5): what paper 1's block is a variant of.

    One 7 x 7 convolution without bias, as printed there; its authors' code adds a BatchNorm. The
    map is sown as the intermediate ``attention_7``.

    Attributes:
        kernel_size: of the convolution.
    """

    kernel_size: int = 7

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns the feature map weighted by its attention map."""
        average = jnp.mean(features, axis=-1, keepdims=True)
        maximum = max_over_channels(features)
        k, descriptor = self.kernel_size, jnp.concatenate([average, maximum], axis=-1)
        attention = nn.sigmoid(Conv(1, k, use_bias=False, name=f"conv_{k}")(descriptor))
        self.sow("intermediates", f"attention_{k}", attention[..., 0])
        return attention * features
