"""Images are scaled as each backbone was trained."""

import jax.numpy as jnp
import numpy as np

from msa_flax.models import MODELS, NATIVE_SCALING, scale_images


def test_images_are_scaled_as_declared():
    images = jnp.array([[[0, 255], [51, 102]]], jnp.uint8)
    paper = scale_images(images, preprocess="paper", backbone="mobilenet_v1")
    native = scale_images(images, preprocess="native", backbone="mobilenet_v1")
    assert paper.shape == native.shape == (1, 2, 2, 1)  # one channel for three equal ones
    np.testing.assert_allclose(paper[0, :, :, 0], [[0, 1], [0.2, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(native[0, :, :, 0], [[-1, 1], [-0.6, -0.2]], rtol=1e-6)


def test_caffe_scaling_has_three_channels_that_differ():
    images = jnp.array([[[0, 200]]], jnp.uint8)
    scaled = scale_images(images, preprocess="native", backbone="resnet50")
    means = np.array([103.939, 116.779, 123.68])  # keras.applications.imagenet_utils, mode "caffe"
    np.testing.assert_allclose(scaled[0, 0], [-means, 200 - means], rtol=1e-6)


def test_every_backbone_has_a_scaling_that_is_known():
    assert set(NATIVE_SCALING) == set(MODELS)
    assert set(NATIVE_SCALING.values()) <= {"tf", "caffe", "none"}
