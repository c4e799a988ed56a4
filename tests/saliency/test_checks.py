"""Shapes that every method refuses, and those that it takes."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.saliency import checks


def test_what_fits_is_returned_as_it_came():
    features, logits = jnp.zeros((2, 3, 3, 4)), jnp.zeros(2)
    assert checks.features(features) is features
    assert checks.logits(logits, features) is logits
    assert checks.images(np.zeros((2, 5, 5), np.uint8)).dtype == jnp.uint8


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_floats_keep_their_type_and_whole_numbers_become_float32(dtype):
    assert checks.floats(jnp.zeros((1, 2, 2, 3), dtype)).dtype == dtype
    assert checks.floats(np.full((1, 2, 2), 255, np.uint8)).tolist() == [[[255.0] * 2] * 2]


def test_other_shapes_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"features: expected \[b, h, w, c\], got \(2, 3, 3\)"):
        checks.features(jnp.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match=r"expected one logit per image, \(2,\); got \(2, 1\)"):
        checks.logits(jnp.zeros((2, 1)), jnp.zeros((2, 3, 3, 4)))
    unchecked = inspect.unwrap(checks.images)  # without the tests' type checker
    with pytest.raises(ValueError, match=r"images: expected \[b, h, w\] or \[b, h, w, c\], got"):
        unchecked(np.zeros((2, 2)))
