"""Convolution and normalisation functions that are fast on every platform.

XLA's CPU back end is slow at exactly what MobileNet is made of: a grouped convolution takes a
generic path there, many times slower than its arithmetic needs, and so does the kernel gradient of
a convolution over three channels. On the CPU these are therefore sums of shifted images and matrix
products; on a GPU or TPU the native convolution is used.
"""

from msa_flax.models.ops.depthwise import depthwise_conv
from msa_flax.models.ops.native import Padding, native_conv, same_padding
from msa_flax.models.ops.norm import affine, coefficients, normalize
from msa_flax.models.ops.pointwise import pointwise_conv
from msa_flax.models.ops.pool import max_along, max_over_channels
from msa_flax.models.ops.thin import thin_conv

__all__ = [
    "Padding",
    "affine",
    "coefficients",
    "depthwise_conv",
    "max_along",
    "max_over_channels",
    "native_conv",
    "normalize",
    "pointwise_conv",
    "same_padding",
    "thin_conv",
]
