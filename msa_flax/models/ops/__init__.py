"""Convolution, pooling and normalisation functions that are fast on every platform.

XLA's CPU back end computes a grouped convolution by a generic path that is many times slower than
the arithmetic requires, likewise the kernel gradient of a convolution over three channels, and
every convolution inside a loop, which training and prediction are. On the CPU these operations are
therefore written as sums of shifted images and as matrix products. On a GPU or TPU the native
convolution is used.
"""

from msa_flax.models.ops.conv import conv
from msa_flax.models.ops.depthwise import depthwise_conv
from msa_flax.models.ops.native import Padding, native_conv, same_padding
from msa_flax.models.ops.norm import affine, coefficients, local_response_norm, normalize
from msa_flax.models.ops.pointwise import pointwise_conv
from msa_flax.models.ops.pool import max_along, max_over_channels, max_pool
from msa_flax.models.ops.thin import thin_conv

__all__ = [
    "Padding",
    "affine",
    "coefficients",
    "conv",
    "depthwise_conv",
    "local_response_norm",
    "max_along",
    "max_over_channels",
    "max_pool",
    "native_conv",
    "normalize",
    "pointwise_conv",
    "same_padding",
    "thin_conv",
]
