"""Layers that no comparison with Keras covers: pooling, response normalisation, statistics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from float64_references import relative
from jax import lax
from quick_compilation import QUICK

from msa_flax.models import layers, ops


def test_running_statistics_move_by_a_hundredth():
    x = np.random.default_rng(0).standard_normal((4, 3, 3, 2)) * 3 + 1
    layer = layers.BatchNorm("relu6")
    images = jnp.asarray(x, jnp.float32)
    variables = layer.init(jax.random.key(0), images, train=False)
    _, updated = layer.apply(variables, images, train=True, mutable=["batch_stats"])
    stats = updated["batch_stats"]
    # Statistics are kept in float32.
    np.testing.assert_allclose(stats["mean"], 0.01 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.99 + 0.01 * x.var((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize(("size", "k", "alpha"), [(5, 2.0, 1e-4), (5, 1.0, 2e-5), (3, 1.0, 0.1)])
def test_local_response_normalisation_is_the_sum_of_the_paper(size, k, alpha):
    x = np.random.default_rng(0).normal(0, 100, (2, 3, 4, 7))
    expected = np.empty_like(x)
    for i in range(7):
        around = range(max(0, i - size // 2), min(6, i + size // 2) + 1)  # Section 3.3 of AlexNet
        expected[..., i] = x[..., i] / (k + alpha * sum(x[..., j] ** 2 for j in around)) ** 0.75
    assert relative(expected, x) > 0.1
    found = layers.local_response_norm(jnp.asarray(x, jnp.float32), size=size, k=k, alpha=alpha)
    assert relative(found, expected) < 1e-6  # float32


def test_the_gradient_of_local_response_normalisation_is_tensorflow_s():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 100, (2, 3, 4, 7)).astype(np.float32)
    g = rng.normal(size=x.shape).astype(np.float32)
    with tf.GradientTape() as tape:
        variable = tf.Variable(x)
        y = tf.nn.local_response_normalization(variable, 2, bias=2, alpha=1e-4, beta=0.75)
    expected = tape.gradient(y, variable, tf.constant(g)).numpy()
    ours = partial(layers.local_response_norm, size=5, k=2.0, alpha=1e-4)
    (found,) = jax.vjp(ours, x)[1](g)
    assert relative(found, expected) < 1e-5  # float32, two orders of the same sums


POOLS = [
    (3, 2, None),
    (3, 1, None),
    (2, 2, ((0, 0), (0, 0))),
    (3, 2, ((0, 0), (0, 0))),
    (3, 2, ((1, 1), (1, 0))),
    (4, 3, ((1, 2), (0, 3))),
    (2, 3, ((0, 0), (0, 0))),
]


@pytest.mark.parametrize("shape", [(8, 8), (11, 7)])
@pytest.mark.parametrize(("size", "stride", "padding"), POOLS)
def test_max_pooling_and_its_gradient_are_those_of_reduce_window(shape, size, stride, padding):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(-3, 1, (2, *shape, 3)), jnp.float32)  # padding by 0 would win
    around = padding or ops.same_padding(*shape, size, stride)

    def plain(x):
        return lax.reduce_window(
            x,
            -jnp.inf,
            lax.max,
            (1, size, size, 1),
            (1, stride, stride, 1),
            ((0, 0), *around, (0, 0)),
        )

    def value_and_gradient(pool):
        def both(x):
            value, pull = jax.vjp(pool, x)
            return value, pull(jnp.sin(value))[0]

        return jax.jit(both, compiler_options=QUICK)(x)

    found = value_and_gradient(lambda x: layers.max_pool(x, size, stride, padding))
    expected = value_and_gradient(plain)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-6)  # sums of up to 9


def test_one_of_the_pixels_that_share_a_maximum_has_its_gradient():
    x = jnp.zeros((1, 4, 4, 1))
    pool = partial(layers.max_pool, size=2, stride=2, padding=((0, 0), (0, 0)))
    (gradient,) = jax.vjp(pool, x)[1](jnp.ones((1, 2, 2, 1)))
    expected = np.zeros((1, 4, 4, 1))
    expected[:, ::2, ::2] = 1
    np.testing.assert_array_equal(gradient, expected)


def test_max_pooling_does_not_hide_what_is_not_a_number():
    for place in range(4):
        x = jnp.zeros((1, 4, 1)).at[0, place].set(jnp.nan).reshape(1, 2, 2, 1)
        assert np.isnan(layers.max_pool(x, 2, 2)).all()


def test_bfloat16_stays_and_the_normalisation_is_computed_in_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(0, 300, (2, 4, 4, 8)), jnp.bfloat16)
    lrn = partial(layers.local_response_norm, size=5, k=1.0, alpha=2e-5)
    exact = lrn(x.astype(jnp.float32))
    found = lrn(x)
    assert found.dtype == layers.max_pool(x, 3, 2).dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))
