"""Every change of layout can be undone, and rules find what they name and nothing else."""

import numpy as np
import pytest

from msa_flax.weights import KERAS_FAMILIES
from msa_flax.weights.rules.convnext_tiny import DENSE_AS_CONV
from msa_flax.weights.rules.table import DEPTHWISE, SAME, batch_norm, conv_bn, find


@pytest.mark.parametrize(
    ("layout", "ours", "keras"),
    [
        (SAME, (3, 3, 4, 5), (3, 3, 4, 5)),
        (DEPTHWISE, (3, 3, 1, 5), (3, 3, 5, 1)),
        (DENSE_AS_CONV, (1, 1, 4, 5), (4, 5)),
    ],
)
def test_layouts_are_inverses_and_keep_every_number(layout, ours, keras):
    array = np.arange(np.prod(ours)).reshape(ours)
    assert layout.to_keras(array).shape == keras
    np.testing.assert_array_equal(layout.to_ours(layout.to_keras(array)), array)


def test_channels_of_a_depthwise_kernel_stay_together():
    keras = np.arange(3 * 3 * 5).reshape(3, 3, 5, 1)
    ours = DEPTHWISE.to_ours(keras)
    for channel in range(5):
        np.testing.assert_array_equal(ours[:, :, 0, channel], keras[:, :, channel, 0])


@pytest.mark.parametrize(
    ("path", "keras"),
    [
        ("params/backbone/conv1/kernel", "conv1/kernel"),
        ("params/backbone/conv_dw_13/kernel", "conv_dw_13/kernel"),
        ("params/backbone/conv_pw_7/kernel", "conv_pw_7/kernel"),
        ("params/backbone/conv1_bn/scale", "conv1_bn/gamma"),
        ("params/backbone/conv_dw_2_bn/bias", "conv_dw_2_bn/beta"),
        ("batch_stats/backbone/conv_pw_3_bn/mean", "conv_pw_3_bn/moving_mean"),
        ("batch_stats/backbone/conv_pw_3_bn/var", "conv_pw_3_bn/moving_variance"),
    ],
)
def test_mobilenet_v1_paths_have_their_keras_names(path, keras):
    found = find(KERAS_FAMILIES["mobilenet_v1"].rules, path)
    assert found is not None
    assert found[0] == keras
    assert (found[1] is DEPTHWISE) == ("conv_dw_13/" in path)


@pytest.mark.parametrize(
    "path",
    [
        "params/classifier/logit/kernel",
        "params/backbone/conv1/bias",
        "params/backbone/conv_dw_x/kernel",
        "batch_stats/backbone/conv1_bn/scale",
        "params/predictions/kernel",
        "batch_stats/predictions/kernel",
        "opt_state/params/backbone/conv1/kernel",
    ],
)
def test_paths_that_no_keras_file_holds_have_no_rule(path):
    assert find(KERAS_FAMILIES["mobilenet_v1"].rules, path) is None


def test_batch_norm_rules_cover_all_four_vectors_of_the_layer_named():
    assert [rule.keras for rule in batch_norm("bn")] == [
        r"\1/gamma",
        r"\1/beta",
        r"\1/moving_mean",
        r"\1/moving_variance",
    ]


def test_a_depthwise_convolution_and_its_batch_norm_are_two_layers():
    assert conv_bn("dw", "dw_bn", kind="DepthwiseConv2D") == (
        ("DepthwiseConv2D", "dw"),
        ("BatchNormalization", "dw_bn"),
    )
