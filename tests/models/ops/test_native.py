"""Padding is TensorFlow's; one switch leaves nothing but native operations."""

import jax
import jax.numpy as jnp
import pytest

from msa_flax.models import ops
from msa_flax.models.ops import same_padding
from msa_flax.models.ops.native import native_everywhere


@pytest.mark.parametrize(("size", "expected"), [(224, (0, 1)), (97, (1, 1)), (8, (0, 1))])
def test_same_padding_is_tensorflows(size, expected):
    assert same_padding(size, size, 3, 2) == (expected, expected)


def test_native_everywhere_traces_one_convolution_and_nothing_for_a_platform():
    x, kernel = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 20))
    depthwise = jnp.ones((3, 3, 1, 3))

    def traced():
        def layers(x):
            found = ops.conv(x, kernel, 1, ((1, 1), (1, 1)))
            thin = ops.thin_conv(x, kernel, 1, ((1, 1), (1, 1)))
            return found, thin, ops.depthwise_conv(x, depthwise, 2, ((0, 1), (0, 1)))

        return str(jax.make_jaxpr(layers)(x))

    with native_everywhere():
        inside = traced()
    assert inside.count("conv_general_dilated[") == 3
    assert "platform_index" not in inside
    assert "platform_index" in traced()
