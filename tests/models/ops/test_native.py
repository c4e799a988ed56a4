"""Padding is TensorFlow's."""

import pytest

from msa_flax.models.ops import same_padding


@pytest.mark.parametrize(("size", "expected"), [(224, (0, 1)), (97, (1, 1)), (8, (0, 1))])
def test_same_padding_is_tensorflows(size, expected):
    assert same_padding(size, size, 3, 2) == (expected, expected)
