"""Fast functions against plain float64 references, gradients included."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from msa_flax.models import ops
from msa_flax.models.layers import ACTIVATIONS, BatchNorm

# Both sides are compared with float64; float32 rounding in sums of up to 10^4 terms stays below.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def relative(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def plain_conv(x, kernel, stride, padding, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def compare(fast, plain, *arguments):
    """Compares value and all gradients of a float32 function with a float64 one."""
    arguments = [jnp.asarray(a, jnp.float32) for a in arguments]
    value, pull = jax.vjp(jax.jit(fast), *arguments)
    exact, exact_pull = jax.vjp(plain, *[a.astype(jnp.float64) for a in arguments])
    assert relative(value, exact) < TOLERANCE
    g = np.random.default_rng(1).standard_normal(value.shape)
    for ours, theirs in zip(pull(jnp.asarray(g, jnp.float32)), exact_pull(g), strict=True):
        assert ours.dtype == np.float32
        assert relative(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 6)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_depthwise_conv_equals_the_grouped_convolution(size, stride, kernel_size):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *size, 6))
    kernel = rng.standard_normal((kernel_size, kernel_size, 1, 6))
    padding = ops.same_padding(*size, kernel_size, stride)
    compare(
        partial(ops.depthwise_conv, stride=stride, padding=padding),
        partial(plain_conv, stride=stride, padding=padding, groups=6),
        x,
        kernel,
    )


def test_depthwise_conv_sums_rows_that_are_longer_than_one_expression():
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 4, 61, 3)), rng.standard_normal((3, 3, 1, 3))
    compare(
        lambda x, k: ops.depthwise_conv(x, k, 1, ((1, 1), (1, 1))),
        partial(plain_conv, stride=1, padding=((1, 1), (1, 1)), groups=3),
        x,
        kernel,
    )


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize("padding", [((0, 1), (0, 1)), ((1, 1), (1, 1)), ((2, 0), (0, 3))])
def test_depthwise_conv_takes_any_padding(size, padding):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, *size, 4)), rng.standard_normal((3, 3, 1, 4))
    compare(
        lambda x, k: ops.depthwise_conv(x, k, 2, padding),
        partial(plain_conv, stride=2, padding=padding, groups=4),
        x,
        kernel,
    )


VMAPPED = {
    "depthwise": (lambda x, k: ops.depthwise_conv(x, k, 2, ((0, 1), (0, 1))), (3, 3, 1, 4)),
    "pointwise": (ops.pointwise_conv, (1, 1, 4, 5)),
    "thin": (lambda x, k: ops.thin_conv(x, k, 2, ((0, 1), (0, 1))), (3, 3, 4, 5)),
    "normalize": (
        lambda x, s: ops.normalize(x, s, jnp.zeros_like(s), 1e-3, (0.0, 6.0))[0],
        (4,),
    ),
}


@pytest.mark.parametrize("name", sorted(VMAPPED))
def test_values_and_gradients_can_be_vmapped(name):
    function, shape = VMAPPED[name]
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.standard_normal((3, 2, 6, 6, 4)), jnp.float32)
    parameter = jnp.asarray(rng.standard_normal(shape), jnp.float32)

    def value_and_gradients(x):
        value, pull = jax.vjp(function, x, parameter)
        return value, pull(jnp.cos(value))

    batched = jax.jit(jax.vmap(value_and_gradients))(xs)
    single = jax.tree.map(lambda *leaves: np.stack(leaves), *[value_and_gradients(x) for x in xs])
    # Two orders of the same float32 sums.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), batched, single
    )


@pytest.mark.parametrize("name", sorted(VMAPPED))
def test_bfloat16_in_gives_bfloat16_out_and_what_float32_gives_to_its_precision(name):
    function, shape = VMAPPED[name]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 6, 6, 4)), jnp.bfloat16)
    parameter = jnp.asarray(rng.standard_normal(shape), jnp.bfloat16)
    if name == "normalize":  # its scale is a parameter, and those are float32
        parameter = parameter.astype(jnp.float32)
    value, pull = jax.vjp(jax.jit(function), x, parameter)
    exact, exact_pull = jax.vjp(function, *(a.astype(jnp.float32) for a in (x, parameter)))
    assert value.dtype == jnp.bfloat16
    # Half a unit in the last place of bfloat16 is 2e-3; sums of k * k * c terms add some.
    assert relative(value, exact) < 1e-2
    found, expected = pull(jnp.ones_like(value)), exact_pull(jnp.ones_like(exact))
    for ours, theirs, argument in zip(found, expected, (x, parameter), strict=True):
        assert ours.dtype == argument.dtype
        assert relative(ours, theirs) < 2e-2


def test_pointwise_conv_equals_the_1x1_convolution():
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 5, 7, 8)), rng.standard_normal((1, 1, 8, 5))
    plain = partial(plain_conv, stride=1, padding=((0, 0), (0, 0)), groups=1)
    compare(ops.pointwise_conv, plain, x, kernel)


def plain_normalize(x, scale, bias, *, epsilon, bounds):
    scale, bias = scale[None, None, None], bias[None, None, None]
    mean, variance = (f(x, (0, 1, 2), keepdims=True) for f in (jnp.mean, jnp.var))
    return jnp.clip((x - mean) / jnp.sqrt(variance + epsilon) * scale + bias, *bounds)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_normalize_equals_batch_normalisation_and_clip(activation):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5, 6, 8)) * 2 + 0.5
    scale, bias = rng.uniform(1, 4, 8), rng.standard_normal(8)
    bounds = ACTIVATIONS[activation]
    compare(
        lambda x, s, b: ops.normalize(x, s, b, 1e-3, bounds)[0],
        partial(plain_normalize, epsilon=1e-3, bounds=bounds),
        x,
        scale,
        bias,
    )


def test_normalize_with_another_epsilon_fails_the_comparison():
    rng = np.random.default_rng(0)
    x, scale, bias = jnp.asarray(rng.standard_normal((2, 4, 4, 8)) * 0.1), jnp.ones(8), jnp.zeros(8)
    ours = ops.normalize(x, scale, bias, 1e-5, (0.0, 6.0))[0]
    theirs = plain_normalize(x, scale, bias, epsilon=1e-3, bounds=(0.0, 6.0))
    assert relative(ours, theirs) > 100 * TOLERANCE


def test_running_statistics_move_by_a_hundredth():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3, 3, 2)) * 3 + 1)
    layer = BatchNorm("relu6")
    variables = layer.init(jax.random.key(0), x, train=False)
    _, updated = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    stats = updated["batch_stats"]
    # Statistics are kept in float32.
    np.testing.assert_allclose(stats["mean"], 0.01 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.99 + 0.01 * x.var((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize(("size", "expected"), [(224, (0, 1)), (97, (1, 1)), (8, (0, 1))])
def test_same_padding_is_tensorflows(size, expected):
    assert ops.same_padding(size, size, 3, 2) == (expected, expected)


def test_other_platforms_get_the_native_grouped_convolution():
    x, kernel = jnp.zeros((1, 8, 8, 4), jnp.float32), jnp.zeros((3, 3, 1, 4), jnp.float32)

    def loss(x, kernel):
        return ops.depthwise_conv(x, kernel, 1, ((1, 1), (1, 1))).sum()

    def lowered(platform):
        traced = jax.jit(jax.grad(loss, (0, 1))).trace(x, kernel)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "stablehlo.convolution" in lowered("cuda")
    assert "feature_group_count = 4" in lowered("cuda")
    assert "stablehlo.convolution" not in lowered("cpu")


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize(("stride", "kernel_size"), [(1, 3), (2, 3), (1, 7)])
def test_thin_conv_equals_the_convolution(size, stride, kernel_size):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *size, 3))
    kernel = rng.standard_normal((kernel_size, kernel_size, 3, 5))
    padding = ops.same_padding(*size, kernel_size, stride)
    compare(
        partial(ops.thin_conv, stride=stride, padding=padding),
        partial(plain_conv, stride=stride, padding=padding, groups=1),
        x,
        kernel,
    )


def test_a_convolution_with_another_padding_fails_the_comparison():
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(s)) for s in ((2, 8, 8, 3), (3, 3, 3, 5)))
    ours = ops.thin_conv(x, kernel, 2, ((1, 0), (1, 0)))
    assert relative(ours, plain_conv(x, kernel, 2, ((0, 1), (0, 1)), 1)) > 100 * TOLERANCE
