"""Targets, and the gradient of each image's score."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.files import UserError
from msa_flax.saliency import interface
from msa_flax.saliency.interface import SaliencyError, gradients, signs, widened


def test_a_target_is_one_class_for_all_images_or_a_sign_for_each():
    logits = jnp.array([2.0, -3.0])
    assert signs("fracture", logits).tolist() == [1, 1]
    assert signs("normal", logits).tolist() == [-1, -1]
    assert signs(jnp.array([1, -1]), logits).tolist() == [1, -1]
    assert list(interface.SIGNS) == list(interface.TARGETS)


def test_unknown_targets_and_signs_of_other_images_are_refused():
    unchecked = inspect.unwrap(signs)  # without the tests' type checker, which would be first
    with pytest.raises(ValueError, match="expected one of fracture, normal; got 'tumour'"):
        unchecked("tumour", jnp.zeros(5))
    with pytest.raises(ValueError, match=r"one sign per image, \(5,\); got \(3,\)"):
        signs(jnp.ones(3), jnp.zeros(5))


def test_each_image_has_the_gradient_of_its_own_score():
    features = jnp.arange(16.0).reshape(2, 2, 2, 2)
    slopes = gradients(lambda f: (f**2).sum(axis=(1, 2, 3)), features, jnp.array([1, -1]))
    np.testing.assert_array_equal(slopes, 2 * features * jnp.array([1, -1])[:, None, None, None])


def test_few_bits_are_widened_and_many_are_kept():
    assert widened(jnp.zeros(3, jnp.bfloat16)).dtype == jnp.float32
    assert widened(jnp.zeros(3, jnp.float32)).dtype == jnp.float32


def test_what_a_user_can_mend_ends_a_command_with_two():
    assert issubclass(SaliencyError, UserError)
    assert SaliencyError.exit_code == 2
