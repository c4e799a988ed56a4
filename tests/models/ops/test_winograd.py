"""Winograd's algorithm gives the value and the gradients of the convolution, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from float64_references import plain_conv, relative

from msa_flax.models.ops import winograd
from msa_flax.models.ops.winograd import winograd_conv, winograd_kernel_gradient

ROUNDING = 1e-13  # of float64, in sums of 10^3 terms
ONE_AROUND = ((1, 1), (1, 1))


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ONE_AROUND, ((2, 0), (-1, 3))])
def test_values_and_gradients_are_those_of_the_convolution(padding):
    x, kernel = drawn(2, 5, 6, 3), drawn(3, 3, 3, 4)
    exact, pull = jax.vjp(lambda x, k: plain_conv(x, k, 1, padding), x, kernel)
    assert relative(winograd_conv(x, kernel, padding), exact) < ROUNDING
    g = drawn(*exact.shape, seed=1)
    dx, d_kernel = pull(g)
    assert relative(winograd_kernel_gradient(x, g, padding), d_kernel) < ROUNDING
    around = tuple((2 - before, 2 - after) for before, after in padding)
    assert relative(winograd_conv(g, kernel, around, turned=True), dx) < ROUNDING


def test_a_wrong_sign_fails_the_comparison(monkeypatch):
    x, kernel = drawn(2, 8, 8, 3), drawn(3, 3, 3, 4)
    monkeypatch.setattr(winograd, "SIGN", (-1, 1, -1, 1))
    exact = plain_conv(x, kernel, 1, ONE_AROUND)
    assert relative(winograd_conv(x, kernel, ONE_AROUND), exact) > 1e10 * ROUNDING


def test_zeros_stay_exactly_zero():
    found = winograd_conv(jnp.zeros((1, 4, 4, 3), jnp.float32), drawn(3, 3, 3, 4), ONE_AROUND)
    np.testing.assert_array_equal(found, 0)
