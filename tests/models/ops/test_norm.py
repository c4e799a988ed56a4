"""Both kinds of normalisation equal their plain formulas in float64, gradients included."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from float64_references import (
    TOLERANCE,
    assert_bfloat16_is_near_float32,
    assert_can_be_vmapped,
    assert_same_values_and_gradients,
    relative,
)

from msa_flax.models.layers import ACTIVATIONS
from msa_flax.models.ops import local_response_norm, normalize


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


@pytest.mark.parametrize(("size", "k", "alpha"), [(5, 2.0, 1e-4), (5, 1.0, 2e-5), (3, 1.0, 0.1)])
def test_local_response_normalisation_is_the_sum_of_the_paper(size, k, alpha):
    x = np.random.default_rng(0).normal(0, 100, (2, 3, 4, 7))
    expected = np.empty_like(x)
    for i in range(7):
        around = range(max(0, i - size // 2), min(6, i + size // 2) + 1)  # Section 3.3 of AlexNet
        expected[..., i] = x[..., i] / (k + alpha * sum(x[..., j] ** 2 for j in around)) ** 0.75
    assert relative(expected, x) > 0.1
    found = local_response_norm(jnp.asarray(x, jnp.float32), size=size, k=k, alpha=alpha)
    assert relative(found, expected) < 1e-6  # float32


def test_the_gradient_of_local_response_normalisation_is_tensorflow_s():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 100, (2, 3, 4, 7)).astype(np.float32)
    g = rng.normal(size=x.shape).astype(np.float32)
    with tf.GradientTape() as tape:
        variable = tf.Variable(x)
        y = tf.nn.local_response_normalization(variable, 2, bias=2, alpha=1e-4, beta=0.75)
    expected = tape.gradient(y, variable, tf.constant(g)).numpy()
    ours = partial(local_response_norm, size=5, k=2.0, alpha=1e-4)
    (found,) = jax.vjp(ours, jnp.asarray(x))[1](jnp.asarray(g))
    assert relative(found, expected) < 1e-5  # float32, two orders of the same sums


def plain_response_norm(x, *, size, k, alpha):
    """Krizhevsky et al. 2012, Section 3.3, with a matrix that says which channels are near."""
    number = np.arange(x.shape[-1])
    near = jnp.asarray(abs(number[:, None] - number) <= size // 2, x.dtype)
    return x / (k + alpha * jnp.square(x) @ near) ** 0.75


@pytest.mark.parametrize(("size", "channels"), [(5, 7), (3, 6), (5, 2), (1, 3)])
def test_response_normalisation_has_the_gradient_of_its_formula(size, channels):
    x = np.random.default_rng(0).normal(0, 3, (2, 3, 4, channels))
    settings = {"size": size, "k": 1.5, "alpha": 0.1}
    assert_same_values_and_gradients(
        partial(local_response_norm, **settings), partial(plain_response_norm, **settings), x
    )


def test_response_normalisation_keeps_bfloat16_and_computes_in_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(0, 300, (2, 4, 4, 8)), jnp.bfloat16)
    lrn = partial(local_response_norm, size=5, k=1.0, alpha=2e-5)
    exact, exact_pull = jax.vjp(lrn, x.astype(jnp.float32))
    found, pull = jax.vjp(lrn, x)
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))
    (ours,), (wide,) = pull(jnp.ones_like(x)), exact_pull(jnp.ones_like(exact))
    np.testing.assert_array_equal(ours, wide.astype(jnp.bfloat16))
