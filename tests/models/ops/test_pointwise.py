"""The 1 x 1 convolution as a matrix product equals XLA's own one in float64."""

from functools import partial

import numpy as np
from float64_references import (
    assert_bfloat16_is_near_float32,
    assert_can_be_vmapped,
    assert_same_values_and_gradients,
    plain_conv,
)

from msa_flax.models.ops import pointwise_conv


def test_it_equals_the_convolution():
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 5, 7, 8)), rng.standard_normal((1, 1, 8, 5))
    plain = partial(plain_conv, stride=1, padding=((0, 0), (0, 0)))
    assert_same_values_and_gradients(pointwise_conv, plain, x, kernel)


def test_values_and_gradients_can_be_vmapped():
    assert_can_be_vmapped(pointwise_conv, (1, 1, 4, 5))


def test_bfloat16_gives_what_float32_gives_to_its_precision():
    assert_bfloat16_is_near_float32(pointwise_conv, (1, 1, 4, 5))
