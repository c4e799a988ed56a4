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


@pytest.mark.parametrize("size", winograd.SIZES)
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ONE_AROUND, ((2, 0), (-1, 3))])
def test_values_and_gradients_are_those_of_the_convolution(padding, size):
    x, kernel = drawn(2, 9, 10, 3), drawn(size, size, 3, 4)
    exact, pull = jax.vjp(lambda x, k: plain_conv(x, k, 1, padding), x, kernel)
    assert relative(winograd_conv(x, kernel, padding), exact) < ROUNDING
    g = drawn(*exact.shape, seed=1)
    dx, d_kernel = pull(g)
    assert relative(winograd_kernel_gradient(x, g, padding, size), d_kernel) < ROUNDING
    around = tuple((size - 1 - before, size - 1 - after) for before, after in padding)
    assert relative(winograd_conv(g, kernel, around, turned=True), dx) < ROUNDING


@pytest.mark.parametrize("size", winograd.SIZES)
def test_the_transforms_multiply_polynomials(size):
    """A^T [(G k) (B^T d)] is the correlation of k with d, by its definition (Section 4)."""
    of_input, of_kernel, of_output = winograd.transforms(size)
    d, k = np.arange(6.0) ** 2 + 1, np.array([3.0, -1.0, 2.0, 5.0, -4.0])[:size]
    found = of_output @ ((of_kernel @ k) * (of_input @ d))
    np.testing.assert_allclose(found, np.correlate(d, k, "valid"), rtol=ROUNDING)


@pytest.mark.parametrize("size", winograd.SIZES)
def test_rounding_stays_small_in_float32(size):
    """The growth for which the algorithm is known: a plain sum has about 3 units, this up to 9."""
    around = ((size // 2, size // 2),) * 2
    exact = [np.maximum(drawn(2, 10, 10, 64), 0), drawn(size, size, 64, 32)]
    narrow = [jnp.asarray(a, jnp.float32) for a in exact]
    g = drawn(2, 10, 10, 32, seed=1)

    @jax.jit
    def ours(x, kernel, g):
        dx = winograd_conv(g, kernel, around, turned=True)
        return winograd_conv(x, kernel, around), dx, winograd_kernel_gradient(x, g, around, size)

    value, pull = jax.vjp(lambda x, k: plain_conv(x, k, 1, around), *exact)
    found = ours(*narrow, g.astype(jnp.float32))
    for a, b in zip(found, (value, *pull(g)), strict=True):
        # With the points 0, 1, -1, 2 and -2 all but one are above.
        assert relative(a, b) < 10 * jnp.finfo(jnp.float32).eps


@pytest.mark.parametrize("matrix", [0, 1, 2])
def test_a_wrong_sign_fails_the_comparison(monkeypatch, matrix):
    x, kernel = drawn(2, 8, 8, 3), drawn(3, 3, 3, 4)
    wrong = [m.copy() for m in winograd.transforms(3)]
    wrong[matrix][1, 1] *= -1
    monkeypatch.setattr(winograd, "transforms", lambda size: wrong)
    exact = plain_conv(x, kernel, 1, ONE_AROUND)
    assert relative(winograd_conv(x, kernel, ONE_AROUND), exact) > 1e10 * ROUNDING


def test_zeros_stay_exactly_zero():
    found = winograd_conv(jnp.zeros((1, 4, 4, 3), jnp.float32), drawn(3, 3, 3, 4), ONE_AROUND)
    np.testing.assert_array_equal(found, 0)
