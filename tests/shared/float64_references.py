"""Comparisons of a float32 function and its gradients with plain ones in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Float32 rounding in sums of up to 10^4 terms stays below.
TOLERANCE = 1e-5


def relative(a, b):
    """Returns the length of the difference, as a share of the length of b."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def plain_conv(x, kernel, stride, padding, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def assert_same_values_and_gradients(fast, plain, *arguments):
    """Compares value and all gradients of a float32 function with those of a float64 one."""
    arguments = [jnp.asarray(a, jnp.float32) for a in arguments]
    value, pull = jax.vjp(jax.jit(fast), *arguments)
    exact, exact_pull = jax.vjp(plain, *[a.astype(jnp.float64) for a in arguments])
    assert relative(value, exact) < TOLERANCE
    g = np.random.default_rng(1).standard_normal(value.shape)
    for ours, theirs in zip(pull(jnp.asarray(g, jnp.float32)), exact_pull(g), strict=True):
        assert ours.dtype == np.float32
        assert relative(ours, theirs) < TOLERANCE


def assert_can_be_vmapped(function, shape):
    """Compares values and gradients of a vmapped function (x, parameter) with those of each x."""
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.standard_normal((3, 2, 6, 6, 4)), jnp.float32)
    parameter = jnp.asarray(rng.standard_normal(shape), jnp.float32)

    def value_and_gradients(x):
        value, pull = jax.vjp(function, x, parameter)
        return value, pull(jnp.cos(value))

    batched = jax.jit(jax.vmap(value_and_gradients))(xs)
    single = jax.tree.map(lambda *leaves: np.stack(leaves), *[value_and_gradients(x) for x in xs])
    for ours, one_by_one in zip(*map(jax.tree.leaves, (batched, single)), strict=True):
        assert relative(ours, one_by_one) < TOLERANCE  # two orders of the same float32 sums


def assert_bfloat16_is_near_float32(function, shape, parameter_dtype=jnp.bfloat16):
    """Types stay what they are, and values and gradients agree to the precision of bfloat16."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 6, 6, 4)), jnp.bfloat16)
    parameter = jnp.asarray(rng.standard_normal(shape), jnp.bfloat16).astype(parameter_dtype)
    value, pull = jax.vjp(jax.jit(function), x, parameter)
    exact, exact_pull = jax.vjp(function, *(a.astype(jnp.float32) for a in (x, parameter)))
    assert value.dtype == jnp.bfloat16
    # Half a unit in the last place of bfloat16 is 2e-3; sums of k * k * c terms add some.
    assert relative(value, exact) < 1e-2
    found, expected = pull(jnp.ones_like(value)), exact_pull(jnp.ones_like(exact))
    for ours, theirs, argument in zip(found, expected, (x, parameter), strict=True):
        assert ours.dtype == argument.dtype
        assert relative(ours, theirs) < 2e-2
