"""Layers that no comparison with Keras covers: pooling and statistics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
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


def test_bfloat16_stays():
    x = jnp.asarray(np.random.default_rng(0).normal(0, 300, (2, 4, 4, 8)), jnp.bfloat16)
    assert layers.max_pool(x, 3, 2).dtype == jnp.bfloat16


def test_a_kernel_learns_as_much_from_one_channel_as_from_equal_ones():
    rng = np.random.default_rng(0)
    grey = jnp.asarray(rng.standard_normal((2, 9, 9, 1)), jnp.float32)
    layer = layers.Conv(6, 3, 2, channels=3)
    equal = jnp.repeat(grey, 3, axis=-1)
    variables = layer.init(jax.random.key(0), grey)
    assert variables["params"]["kernel"].shape == (3, 3, 3, 6)

    def loss(variables, images):
        return jnp.sum(jnp.sin(layer.apply(variables, images)))

    found, expected = (jax.grad(loss)(variables, x)["params"]["kernel"] for x in (grey, equal))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # float32 sums of 50 pixels
    assert np.abs(found).max() > 0.1
