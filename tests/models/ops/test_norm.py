"""Normalisation and clipping in one pass equal the plain formula in float64."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from float64_references import (
    TOLERANCE,
    assert_bfloat16_is_near_float32,
    assert_can_be_vmapped,
    assert_same_values_and_gradients,
    relative,
)

from msa_flax.models.layers import ACTIVATIONS
from msa_flax.models.ops import normalize


def plain_normalize(x, scale, bias, *, epsilon, bounds):
    scale, bias = scale[None, None, None], bias[None, None, None]
    mean, variance = (f(x, (0, 1, 2), keepdims=True) for f in (jnp.mean, jnp.var))
    return jnp.clip((x - mean) / jnp.sqrt(variance + epsilon) * scale + bias, *bounds)


def relu6(x, scale):
    return normalize(x, scale, jnp.zeros_like(scale), 1e-3, (0.0, 6.0))[0]


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_it_equals_batch_normalisation_and_clip(activation):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5, 6, 8)) * 2 + 0.5
    scale, bias = rng.uniform(1, 4, 8), rng.standard_normal(8)
    bounds = ACTIVATIONS[activation]
    assert_same_values_and_gradients(
        lambda x, s, b: normalize(x, s, b, 1e-3, bounds)[0],
        partial(plain_normalize, epsilon=1e-3, bounds=bounds),
        x,
        scale,
        bias,
    )


def test_another_epsilon_fails_the_comparison():
    rng = np.random.default_rng(0)
    x, scale, bias = jnp.asarray(rng.standard_normal((2, 4, 4, 8)) * 0.1), jnp.ones(8), jnp.zeros(8)
    ours = normalize(x, scale, bias, 1e-5, (0.0, 6.0))[0]
    theirs = plain_normalize(x, scale, bias, epsilon=1e-3, bounds=(0.0, 6.0))
    assert relative(ours, theirs) > 100 * TOLERANCE


def test_values_and_gradients_can_be_vmapped():
    assert_can_be_vmapped(relu6, (4,))


def test_bfloat16_gives_what_float32_gives_to_its_precision():
    assert_bfloat16_is_near_float32(relu6, (4,), parameter_dtype=jnp.float32)  # its parameters stay
