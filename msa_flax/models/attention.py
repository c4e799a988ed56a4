"""Multi-scale spatial attention (MSA): the block that paper 1 adds to MobileNet, Section 3.2.2.

F is the backbone's feature map, of h x w pixels and c channels. The block weights every pixel of F
by how important it looks at three scales, and adds up the results:

    A_P(F) = mean of F over the channels                                  (1)
    M_P(F) = maximum of F over the channels                               (2)
    A_P(F) and M_P(F) have the shape h x w x 1                            (3)
    M_k    = sigmoid(Conv_k(Concat(A_P(F), M_P(F))))     for k = 3, 5, 7  (4)
    F_k    = M_k * F, the map times every channel                         (5)
    F_out  = F_3 + F_5 + F_7                                              (6)

Equations 1 to 5 are also Table 2 of the paper, Equation 6 is Table 3. Where the paper says nothing
this file follows Keras: ``same`` padding, a bias in every convolution, Glorot-uniform kernels. The
block has 2 * (9 + 25 + 49) + 3 = 169 parameters, whatever the number of channels.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from msa_flax.models.layers import Conv, PointwiseConv, add_bias
from msa_flax.models.ops import max_over_channels


class MultiScaleSpatialAttention(nn.Module):
    """The block of paper 1: the sum of the feature map weighted by one attention map per scale.

    The maps M_k are sown as intermediates ``attention_<k>``: values in 0..1, shape [b, h, w].

    Attributes:
        kernel_sizes: k of each branch, in pixels of the feature map (paper 1: 3, 5, 7).
        refine: how to read the paper's sentence "The attention maps from each scale are refined
            using 1x1 convolutions", for which it gives no equation.
            "none": Equations 4 to 6 as they are printed.
            "map": a 1x1 convolution turns each map into one map per channel, and a second sigmoid
            keeps the values in 0..1, before the product of Equation 5 (2 c parameters per scale).
            "features": a 1x1 convolution from c to c channels after the sum of Equation 6
            (c^2 + c parameters).
    """

    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    refine: str = "none"

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns F_out, of the same shape as ``features``."""
        channels = features.shape[-1]
        descriptor = describe(features)  # Eq. 1-3
        out = jnp.zeros_like(features)
        for k in self.kernel_sizes:
            attention = nn.sigmoid(Conv(1, k, name=f"conv_{k}")(descriptor))  # Eq. 4: M_k
            self.sow("intermediates", f"attention_{k}", attention[..., 0])
            if self.refine == "map":
                attention = nn.sigmoid(Conv(channels, 1, name=f"refine_{k}")(attention))
            out = out + attention * features  # Eq. 5: F_k, added up as in Eq. 6
        if self.refine == "features":
            out = add_bias(self, PointwiseConv(channels, name="refine")(out), "refine_bias")
        return out


class SpatialAttention(nn.Module):
    """The spatial half of CBAM (Woo et al. 2018, Eq. 5), of which paper 1's block is a variant.

    It has one scale, a kernel of 7 x 7, and its convolution has no bias, as printed there; the code
    of its authors adds a BatchNorm. The map is sown as the intermediate ``attention_7``.
    """

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns the feature map weighted by its attention map."""
        scores = Conv(1, 7, use_bias=False, name="conv_7")(describe(features))
        attention = nn.sigmoid(scores)
        self.sow("intermediates", "attention_7", attention[..., 0])
        return attention * features


def describe(features: Float[Array, "b h w c"]) -> Float[Array, "b h w 2"]:
    """Returns what the attention maps are computed from: two context descriptors per pixel."""
    average = jnp.mean(features, axis=-1, keepdims=True)  # Eq. 1: A_P(F)
    maximum = max_over_channels(features)  # Eq. 2: M_P(F)
    return jnp.concatenate([average, maximum], axis=-1)  # each is h x w x 1, Eq. 3
