"""The ordinary convolution equals XLA's own one in float64, gradients included."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from float64_references import (
    TOLERANCE,
    assert_bfloat16_is_near_float32,
    assert_can_be_vmapped,
    assert_same_values_and_gradients,
    plain_conv,
    relative,
)

from msa_flax.models.ops import conv, same_padding

ONE_AROUND = ((1, 1), (1, 1))

# Kernel size, stride, input and output channels: one row for each way in which it is computed, and
# the strided layers of all networks.
SHAPES = [
    (3, 1, 16, 17),  # Winograd
    (3, 1, 5, 4),
    (5, 1, 16, 18),
    (5, 1, 6, 16),
    (1, 1, 4, 6),
    (3, 2, 5, 4),  # blocks, of which the kernel does not fill the last
    (7, 2, 3, 8),
    (7, 2, 1, 8),
    (11, 4, 3, 20),  # blocks, then Winograd
    (4, 4, 3, 6),
    (2, 2, 8, 9),
    (1, 2, 4, 6),
    (5, 1, 1, 1),
]


def compared(shape, size, padding):
    kernel_size, stride, channels, features = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *size, channels))
    kernel = rng.standard_normal((kernel_size, kernel_size, channels, features))
    assert_same_values_and_gradients(
        partial(conv, stride=stride, padding=padding),
        partial(plain_conv, stride=stride, padding=padding),
        x,
        kernel,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_it_equals_the_convolution_with_same_padding(shape):
    compared(shape, (13, 15), same_padding(13, 15, shape[0], shape[1]))


@pytest.mark.parametrize("shape", SHAPES)
def test_it_equals_the_convolution_without_padding(shape):
    compared(shape, (14, 12), ((0, 0), (0, 0)))


@pytest.mark.parametrize("padding", [((2, 0), (0, 3)), ((3, 4), (4, 3))])
@pytest.mark.parametrize("shape", [(3, 1, 16, 16), (3, 1, 3, 4), (3, 2, 3, 4)])
def test_it_takes_any_padding(shape, padding):
    compared(shape, (8, 7), padding)


def test_an_image_smaller_than_the_kernel_is_enough():
    compared((3, 1, 16, 16), (1, 1), ONE_AROUND)


@pytest.mark.parametrize("shape", [(3, 1, 16, 17), (5, 1, 6, 16)])
def test_it_computes_in_float64_too(shape):
    kernel_size, stride, channels, features = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 13, 12, channels)))
    kernel = jnp.asarray(rng.standard_normal((kernel_size, kernel_size, channels, features)))
    padding = same_padding(13, 12, kernel_size, stride)
    ours, pull = jax.vjp(lambda x, k: conv(x, k, stride, padding), x, kernel)
    exact, exact_pull = jax.vjp(lambda x, k: plain_conv(x, k, stride, padding), x, kernel)
    for a, b in zip((ours, *pull(ours)), (exact, *exact_pull(ours)), strict=True):
        assert a.dtype == jnp.float64
        assert relative(a, b) < 1e-13  # float64 rounding in sums of 10^3 terms


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_types_are_computed_wide(dtype):
    rng = np.random.default_rng(0)
    x, kernel = (
        jnp.asarray(rng.standard_normal(s), dtype) for s in ((2, 8, 8, 16), (3, 3, 16, 16))
    )
    value, pull = jax.vjp(lambda x, k: conv(x, k, 1, ONE_AROUND), x, kernel)
    exact, exact_pull = jax.vjp(
        lambda x, k: plain_conv(x, k, 1, ONE_AROUND),
        x.astype(jnp.float64),
        kernel.astype(jnp.float64),
    )
    rounding = float(jnp.finfo(dtype).eps)  # one rounding at the end, of a relative half of this
    for a, b in zip(
        (value, *pull(value)), (exact, *exact_pull(value.astype(jnp.float64))), strict=True
    ):
        assert a.dtype == dtype
        assert relative(a, b) < rounding


def test_another_padding_fails_the_comparison():
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(s)) for s in ((2, 8, 8, 16), (3, 3, 16, 16)))
    exact = plain_conv(x, kernel, 1, ONE_AROUND)
    assert relative(conv(x, kernel, 1, ((0, 2), (1, 1))), exact) > 100 * TOLERANCE


def test_values_and_gradients_can_be_vmapped():
    assert_can_be_vmapped(lambda x, k: conv(x, k, 2, ((0, 1), (0, 1))), (3, 3, 4, 5))


def test_winograd_can_be_vmapped():
    wider = lambda x, k: conv(jnp.tile(x, 4), k, 1, ONE_AROUND)  # noqa: E731
    assert_can_be_vmapped(wider, (3, 3, 16, 16))


def test_bfloat16_gives_what_float32_gives_to_its_precision():
    assert_bfloat16_is_near_float32(lambda x, k: conv(x, k, 1, ONE_AROUND), (3, 3, 4, 5))


@pytest.mark.parametrize("channels", [4, 16])
def test_other_platforms_get_the_native_convolution(channels):
    x, kernel = jnp.zeros((1, 8, 8, channels)), jnp.zeros((3, 3, channels, channels))

    def loss(x, kernel):
        return conv(x, kernel, 1, ONE_AROUND).sum()

    def lowered(platform):
        traced = jax.jit(jax.value_and_grad(loss, (0, 1))).trace(x, kernel)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    # the value and both gradients, and no product of matrices
    assert lowered("cuda").count("stablehlo.convolution") == 3
    assert "stablehlo.dot_general" not in lowered("cuda")
    assert "stablehlo.convolution" not in lowered("cpu")
