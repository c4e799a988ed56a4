"""Images are scaled as each backbone was trained."""

import jax.numpy as jnp
import numpy as np

from msa_flax.models import MODELS, NATIVE_SCALING, scale_images


def test_images_are_scaled_as_declared():
    images = jnp.array([[[0, 255], [51, 102]]], jnp.uint8)
    paper = scale_images(images, preprocess="paper", backbone="mobilenet_v1")
    native = scale_images(images, preprocess="native", backbone="mobilenet_v1")
    assert paper.shape == native.shape == (1, 2, 2, 3)
    np.testing.assert_allclose(paper[0, :, :, 1], [[0, 1], [0.2, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(native[0, :, :, 2], [[-1, 1], [-0.6, -0.2]], rtol=1e-6)


def test_every_backbone_has_a_scaling_that_is_known():
    assert set(NATIVE_SCALING) == set(MODELS)
    assert set(NATIVE_SCALING.values()) <= {"tf", "caffe", "none"}
