"""ResNet50 computes what ``keras.applications.ResNet50`` computes, layer by layer."""

import copy

import keras
import numpy as np
import pytest
from support import Comparison

from msa_flax.models import layers, resnet50


def keras_layers():
    """Returns our BatchNorm layer -> the Keras layer after the activation that ours includes."""
    names = {"conv1_bn": "conv1_relu"}
    for stage, blocks, _, _ in resnet50.STAGES:
        for block in range(1, blocks + 1):
            prefix = f"{stage}_block{block}"
            names |= {f"{prefix}_{n}_bn": f"{prefix}_{n}_relu" for n in (1, 2)}
            names[f"{prefix}_3_bn"] = f"{prefix}_3_bn"
            if block == 1:
                names[f"{prefix}_0_bn"] = f"{prefix}_0_bn"
    return names


def norm(name):
    """Keeps what is added from block to block of order 1; a ReLU cuts about half."""
    return (0.5, 0, 0.5) if name.endswith(("_0_bn", "_3_bn")) else (1.2, 0, 0.5)


def images(size):
    # of order 1: with 0..255 the biases would not be seen behind the images
    return np.random.default_rng(0).normal(0, 1.5, (2, size, size, 3)).astype(np.float32)


BOTH = Comparison(
    "resnet50",
    keras.applications.ResNet50,
    layers=keras_layers(),
    weights={"norm": norm},
    images=images,
    sizes=(64, 97),
    # Both sides sum in float32, in different orders, through 50 layers. Measured: below 2e-5 of a
    # layer's deviation. The mildest mutation (epsilon) gives 3e-2.
    tolerance=1e-4,
)


@pytest.mark.parametrize("size", BOTH.sizes)
def test_the_reference_is_awake(size):
    for name, output in BOTH.expected[size].items():
        if BOTH.layers.get(name) != name:
            assert 0.2 < np.mean(output == 0) < 0.8, name
            dead = np.all(output == 0, axis=(0, 1, 2))
            assert np.mean(dead) < 0.5, name  # most channels are cut at some pixels only
        assert 0.3 < output.std() < 10, name


@pytest.mark.parametrize("size", BOTH.sizes)
def test_every_layer_equals_keras(size):
    BOTH.assert_parity(size)


def other_epsilon(monkeypatch):
    def mutated(*args, epsilon, **kwargs):
        return layers.BatchNorm(*args, epsilon=1e-3, **kwargs)

    monkeypatch.setattr(resnet50, "BatchNorm", mutated)


def activated_branch(monkeypatch):
    def mutated(activation="relu", **kwargs):
        return layers.BatchNorm(activation, **kwargs)

    monkeypatch.setattr(resnet50, "BatchNorm", mutated)


def stride_in_the_middle(monkeypatch):
    def pointwise(channels, stride=1, *, name):
        given = 1 if name.endswith("_1_conv") else stride
        return layers.PointwiseConv(channels, given, use_bias=True, name=name)

    def conv(features, size, stride=1, *, name, **kwargs):
        if name.endswith("_block1_2_conv") and not name.startswith("conv2"):
            stride = 2
        return layers.Conv(features, size, stride, name=name, **kwargs)

    monkeypatch.setattr(resnet50, "Pointwise", pointwise)
    monkeypatch.setattr(resnet50, "Conv", conv)


def same_stem(monkeypatch):
    def conv(features, size, stride=1, *, padding=None, **kwargs):
        return layers.Conv(features, size, stride, **kwargs)

    monkeypatch.setattr(resnet50, "Conv", conv)


def same_pooling(monkeypatch):
    def pool(x, size, stride, padding):
        return layers.max_pool(x[:, 1:-1, 1:-1], size, stride)

    monkeypatch.setattr(resnet50, "max_pool", pool)


@pytest.mark.parametrize(
    "mutate",
    [
        pytest.param(other_epsilon, id="BatchNorm epsilon 1e-3"),
        pytest.param(activated_branch, id="an activation before the addition"),
        pytest.param(stride_in_the_middle, id="torchvision's place of the stride"),
        pytest.param(same_stem, id="same padding of the stem"),
        pytest.param(same_pooling, id="same padding of the pooling"),
    ],
)
def test_a_mutated_network_fails_the_comparison(monkeypatch, mutate):
    mutate(monkeypatch)
    monkeypatch.setattr(resnet50, "STAGES", resnet50.STAGES[:2])  # compiles sooner
    BOTH.assert_mutation_fails(64)


@pytest.mark.parametrize("layer", ["conv1_conv", "conv4_block1_0_conv", "conv5_block3_3_conv"])
def test_without_a_bias_the_comparison_fails(layer):
    """The BatchNorm that follows would hide it in training, but not here."""
    mutated = copy.deepcopy(BOTH.variables)
    mutated["params"]["backbone"][layer]["bias"] *= 0
    with pytest.raises(AssertionError, match="_bn"):
        BOTH.assert_parity(64, variables=mutated)


def test_a_training_step_moves_the_running_averages_as_in_keras():
    BOTH.assert_same_updates(factor=10)  # as momentum 0.9 would


def test_kernels_start_as_in_keras():
    BOTH.assert_initialised_alike(["conv1_conv", *(f"conv3_block1_{n}_conv" for n in range(4))])
