"""Turns stored grey images into what a backbone expects, on the device."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Real

# How the images were scaled that each backbone was pretrained with, by the names that Keras uses.
# "tf": -1..1. "caffe": 0..255 in the order blue, green, red, minus the means below. "none": 0..255,
# because the network scales them itself.
NATIVE_SCALING = {
    "mobilenet_v1": "tf",
    "mobilenet_v2": "tf",
    "resnet50": "caffe",
    "efficientnet_b0": "none",
    "convnext_tiny": "none",
    # There are no published weights for these two; their papers centre the images.
    "googlenet": "tf",
    "lenet_alexnet": "tf",
}
CAFFE_MEANS = (103.939, 116.779, 123.68)  # blue, green and red of ImageNet


def scale_images(
    images: Real[Array, "b h w"], *, preprocess: str, backbone: str, dtype: Any = jnp.float32
) -> Float[Array, "b h w colours"]:
    """Scales grey images: to one channel, which stands for three equal ones, or to three.

    Only "caffe" scaling makes the channels differ.

    Args:
        images: grey values 0..255: uint8, or floats where a saliency method varies the images.
        preprocess: "paper": 0..1 for every backbone (paper 1 §3.1, paper 2 Eq. 1). "native": what
            the backbone was pretrained with (``keras.applications.<family>.preprocess_input``).
        backbone: a key of ``NATIVE_SCALING``.
        dtype: of the result, and so of everything that the network computes from it.
    """
    x = images.astype(jnp.float32)
    scaling = "0..1" if preprocess == "paper" else NATIVE_SCALING[backbone]
    if scaling == "0..1":
        x = x / 255.0
    elif scaling == "tf":
        x = x / 127.5 - 1.0
    x = x.astype(dtype)[..., None]
    return x - jnp.asarray(CAFFE_MEANS, dtype)[None, None, None] if scaling == "caffe" else x


def scaler(
    config: Any, *, dtype: Any = jnp.float32
) -> Callable[[Any], Float[Array, "b h w colours"]]:
    """Returns :func:`scale_images` for a configuration (a ``Config``): what its network expects."""
    return functools.partial(
        scale_images,
        preprocess=config.data.preprocess,
        backbone=config.model.backbone,
        dtype=dtype,
    )
