"""A network in two halves, small enough for finite differences in float64: what is explained."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from quick_compilation import QUICK

AREA, CHANNELS = 16, 6
BOTH = [("fracture", 1), ("normal", -1)]  # targets and the sign of their score


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def convolve(x, kernel, stride=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


KERNELS = normal(1, 3, 3, 1, 4), normal(2, 3, 3, 4, 6), normal(3, 3, 3, 6, 1)
LINEAR = normal(4, CHANNELS)


def features_fn(images):
    """From 8x8 images, [b, 8, 8] or [b, 8, 8, 1], to 4x4 features of 6 channels."""
    x = images.reshape(*images.shape[:3], 1)
    first, second, _ = (jnp.asarray(kernel, x.dtype) for kernel in KERNELS)
    return jnp.maximum(convolve(jnp.tanh(convolve(x, first, 2)), second), 0)


def linear_head(features, bias=0.0):
    return features.mean(axis=(1, 2)) @ jnp.asarray(LINEAR, features.dtype) + bias


pooled_head = functools.partial(linear_head, bias=0.7)


def attention_head(features):
    """A head whose gradient depends on the place, as with the paper's spatial attention."""
    attention = jax.nn.sigmoid(convolve(features, jnp.asarray(KERNELS[2], features.dtype)))
    return jnp.tanh(0.3 * pooled_head(attention * features))


def images(n=5, dtype=np.float32):
    return jnp.asarray(normal(0, n, 8, 8, 1), dtype)


def same(features):
    """Features in place of images: for features that are made by hand."""
    return features


def quick(method, features, head, **fields):
    """Returns a method of a network as (images, name of the target) -> maps, compiled quickly."""
    bound = functools.partial(method, features, head, **fields)
    return jax.jit(bound, static_argnums=1, compiler_options=QUICK)


def in_float64(function):
    """Returns what a function without arguments computes with 64 bits, as a NumPy array."""
    with jax.enable_x64(True):
        return np.asarray(function())
