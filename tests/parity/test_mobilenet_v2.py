"""MobileNetV2 computes what ``keras.applications.MobileNetV2`` computes, layer by layer."""

from functools import partial

import cv2
import keras
import numpy as np
import pytest
from keras_networks import OURS, zeros
from support import END, Comparison

from msa_flax.models import layers, mobilenet_v2
from msa_flax.weights import load, read


def keras_layers():
    """Returns our BatchNorm layer -> the Keras layer after the activation that ours includes."""
    names = {"bn_Conv1": "Conv1_relu", "Conv_1_bn": "out_relu"}
    for block in range(17):
        prefix = f"block_{block}" if block else "expanded_conv"
        for part in ("expand", "depthwise") if block else ("depthwise",):
            names[f"{prefix}_{part}_BN"] = f"{prefix}_{part}_relu"
        names[f"{prefix}_project_BN"] = f"{prefix}_project_BN"
    return names


NAMES = keras_layers()
CLIPPED = {ours for ours, theirs in NAMES.items() if ours != theirs}


def norm(name):
    """ReLU6 is met at both ends; what is added from block to block stays of order 1."""
    return (2.5, 2, 2.5) if name in CLIPPED else (0.4, 0, 0.5)


def images(size):
    return np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


def comparison(alpha, sizes):
    return Comparison(
        "mobilenet_v2",
        keras.applications.MobileNetV2,
        layers=NAMES,
        weights={"norm": norm},
        images=images,
        sizes=sizes,
        # Both sides sum in float32, in different orders, through 52 layers. Measured: below 6e-5 of
        # a layer's deviation. The mildest mutation (epsilon) gives 5e-2.
        tolerance=5e-4,
        alpha=alpha,
    )


NARROW, WHOLE = comparison(0.35, (96, 97)), comparison(1.0, (97,))
CASES = [(NARROW, 96), (NARROW, 97), (WHOLE, 97)]
IDS = [f"{pair.fields['alpha']:g}-{size}" for pair, size in CASES]


@pytest.mark.parametrize(("pair", "size"), CASES, ids=IDS)
def test_the_reference_is_awake(pair, size):
    outputs = pair.expected[size]
    for name in CLIPPED:
        assert np.mean(outputs[name] == 0) > 0.05, name
        assert np.mean(outputs[name] == 6) > 0.02, name
        assert np.mean((outputs[name] > 0) & (outputs[name] < 6)) > 0.1, name
    for name in NAMES.keys() - CLIPPED:
        assert 0.3 < outputs[name].std() < 10, name


@pytest.mark.parametrize(("pair", "size"), CASES, ids=IDS)
def test_every_layer_equals_keras(pair, size):
    pair.assert_parity(size)


def other_epsilon(monkeypatch):
    monkeypatch.setattr(mobilenet_v2, "BatchNorm", partial(layers.BatchNorm, epsilon=1e-5))


def relu(monkeypatch):
    def mutated(activation="linear", **kwargs):
        return layers.BatchNorm("relu" if activation == "relu6" else activation, **kwargs)

    monkeypatch.setattr(mobilenet_v2, "BatchNorm", mutated)


def clipped_projection(monkeypatch):
    def mutated(activation="relu6", **kwargs):
        return layers.BatchNorm(activation, **kwargs)

    monkeypatch.setattr(mobilenet_v2, "BatchNorm", mutated)


def padded(before, after):
    def mutate(monkeypatch):
        monkeypatch.setattr(mobilenet_v2, "padding_of_axis", lambda size: (before, after))

    return mutate


@pytest.mark.parametrize(
    ("mutate", "size"),
    [
        pytest.param(other_epsilon, 97, id="BatchNorm epsilon 1e-5"),
        pytest.param(relu, 97, id="ReLU for ReLU6"),
        pytest.param(clipped_projection, 97, id="an activation after the projection"),
        pytest.param(padded(0, 1), 97, id="MobileNetV1's padding at odd sizes"),
        pytest.param(padded(1, 1), 96, id="PyTorch's padding"),
    ],
)
def test_a_mutated_network_fails_the_comparison(monkeypatch, mutate, size):
    mutate(monkeypatch)
    monkeypatch.setattr(mobilenet_v2, "STAGES", mobilenet_v2.STAGES[:3])  # compiles sooner
    NARROW.assert_mutation_fails(size, without=["Conv_1_bn"])


def test_a_training_step_moves_the_running_averages_as_in_keras():
    NARROW.assert_same_updates(factor=10)  # as momentum 0.99 would


@pytest.mark.realdata
def test_the_published_kernels_give_keras_features(realdata):
    data = pytest.importorskip("skimage.data")
    path = realdata / "weights" / "mobilenet_v2_1.0_224_no_top_bn_recalibrated.h5"
    variables, report = load(zeros(WHOLE.model), read(path), WHOLE.family.rules, initial=OURS)
    assert report.parameters == 2_257_984
    assert report.ignored == ()
    reference = keras.applications.MobileNetV2(
        weights=str(path), include_top=False, input_shape=(224, 224, 3)
    )
    photograph = cv2.resize(data.coffee(), (224, 224), interpolation=cv2.INTER_AREA)
    x = photograph[None].astype(np.float32) / 127.5 - 1
    features = np.asarray(reference(x))
    assert 0.01 < np.mean(features > 0) < 0.99  # awake
    # 0..6, through 52 layers of float32 sums in another order; measured below 1e-4
    np.testing.assert_allclose(WHOLE.outputs(variables, x)[END], features, rtol=0, atol=1e-3)
