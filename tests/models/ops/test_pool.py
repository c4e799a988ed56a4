"""Maxima over channels have TensorFlow's gradient; of windows, see the layer that pools."""

import jax
import jax.numpy as jnp
import numpy as np

from msa_flax.models.ops import max_over_channels, pool


def test_channels_that_share_the_maximum_share_its_gradient():
    """TensorFlow's rule; ReLU6 makes such pixels common."""
    x = jnp.asarray([[6.0, 6.0, 2.0], [0.0, 0.0, 0.0], [1.0, 5.0, 2.0]])[None, None]
    weights = jnp.asarray([1.0, 3.0, 7.0])[None, None, :, None]
    gradient = jax.grad(lambda x: jnp.sum(max_over_channels(x) * weights))(x)
    expected = [[0.5, 0.5, 0.0], [1.0, 1.0, 1.0], [0.0, 7.0, 0.0]]
    np.testing.assert_allclose(gradient[0, 0], expected, rtol=1e-6)
    plain = jax.grad(lambda x: jnp.sum(jnp.max(x, -1, keepdims=True) * weights))(x)
    np.testing.assert_allclose(gradient, plain, rtol=1e-6)


def test_a_maximum_that_rounding_has_moved_gives_no_gradient_instead_of_nan(monkeypatch):
    x = jnp.asarray([1.0, 5.0, 2.0])[None, None, None]
    # What XLA may do: the maximum is of another rounding of x than the comparison sees.
    moved = lambda x: jnp.max(x, -1, keepdims=True) + 1e-3  # noqa: E731
    monkeypatch.setattr(pool, "max_over_channels", moved)
    _, tangent = pool._max_over_channels_jvp((x,), (jnp.ones_like(x),))
    np.testing.assert_array_equal(tangent, 0)
