"""The depthwise convolution equals XLA's grouped one in float64, gradients included."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from float64_references import (
    assert_bfloat16_is_near_float32,
    assert_can_be_vmapped,
    assert_same_values_and_gradients,
    plain_conv,
)

from msa_flax.models.ops import depthwise_conv, same_padding


def strided(x, kernel):
    return depthwise_conv(x, kernel, 2, ((0, 1), (0, 1)))


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 6)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_it_equals_the_grouped_convolution(size, stride, kernel_size):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *size, 6))
    kernel = rng.standard_normal((kernel_size, kernel_size, 1, 6))
    padding = same_padding(*size, kernel_size, stride)
    assert_same_values_and_gradients(
        partial(depthwise_conv, stride=stride, padding=padding),
        partial(plain_conv, stride=stride, padding=padding, groups=6),
        x,
        kernel,
    )


def test_it_sums_rows_that_are_longer_than_one_expression():
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 4, 61, 3)), rng.standard_normal((3, 3, 1, 3))
    assert_same_values_and_gradients(
        lambda x, k: depthwise_conv(x, k, 1, ((1, 1), (1, 1))),
        partial(plain_conv, stride=1, padding=((1, 1), (1, 1)), groups=3),
        x,
        kernel,
    )


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize("padding", [((0, 1), (0, 1)), ((1, 1), (1, 1)), ((2, 0), (0, 3))])
def test_it_takes_any_padding(size, padding):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, *size, 4)), rng.standard_normal((3, 3, 1, 4))
    assert_same_values_and_gradients(
        lambda x, k: depthwise_conv(x, k, 2, padding),
        partial(plain_conv, stride=2, padding=padding, groups=4),
        x,
        kernel,
    )


def test_values_and_gradients_can_be_vmapped():
    assert_can_be_vmapped(strided, (3, 3, 1, 4))


def test_bfloat16_gives_what_float32_gives_to_its_precision():
    assert_bfloat16_is_near_float32(strided, (3, 3, 1, 4))


def test_other_platforms_get_the_native_grouped_convolution():
    x, kernel = jnp.zeros((1, 8, 8, 4), jnp.float32), jnp.zeros((3, 3, 1, 4), jnp.float32)

    def loss(x, kernel):
        return depthwise_conv(x, kernel, 1, ((1, 1), (1, 1))).sum()

    def lowered(platform):
        traced = jax.jit(jax.grad(loss, (0, 1))).trace(x, kernel)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "stablehlo.convolution" in lowered("cuda")
    assert "feature_group_count = 4" in lowered("cuda")
    assert "stablehlo.convolution" not in lowered("cpu")
