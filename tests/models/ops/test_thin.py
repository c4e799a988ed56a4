"""The convolution of few channels equals XLA's own one in float64, gradients included."""

from functools import partial

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

from msa_flax.models.ops import same_padding, thin_conv


def strided(x, kernel):
    return thin_conv(x, kernel, 2, ((0, 1), (0, 1)))


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize(("stride", "kernel_size"), [(1, 3), (2, 3), (1, 7)])
def test_it_equals_the_convolution(size, stride, kernel_size):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *size, 3))
    kernel = rng.standard_normal((kernel_size, kernel_size, 3, 5))
    padding = same_padding(*size, kernel_size, stride)
    assert_same_values_and_gradients(
        partial(thin_conv, stride=stride, padding=padding),
        partial(plain_conv, stride=stride, padding=padding),
        x,
        kernel,
    )


def test_another_padding_fails_the_comparison():
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(s)) for s in ((2, 8, 8, 3), (3, 3, 3, 5)))
    ours = thin_conv(x, kernel, 2, ((1, 0), (1, 0)))
    assert relative(ours, plain_conv(x, kernel, 2, ((0, 1), (0, 1)))) > 100 * TOLERANCE


def test_values_and_gradients_can_be_vmapped():
    assert_can_be_vmapped(strided, (3, 3, 4, 5))


def test_bfloat16_gives_what_float32_gives_to_its_precision():
    assert_bfloat16_is_near_float32(strided, (3, 3, 4, 5))
