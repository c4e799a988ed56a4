"""MobileNetV2 computes what ``keras.applications.MobileNetV2`` computes, layer by layer."""

from functools import cache, partial

import cv2
import jax.numpy as jnp
import keras
import numpy as np
import pytest
import support

from msa_flax.models import layers, mobilenet_v2
from msa_flax.weights import KERAS_FAMILIES, load, read

BACKBONE = "mobilenet_v2"
CASES = ((0.35, 96), (0.35, 97), (1.0, 97))

# Both sides sum in float32, in different orders, through 52 layers. Measured: below 6e-5 of a
# layer's deviation. The mildest mutation (epsilon) gives 5e-2.
TOLERANCE = 5e-4


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


@pytest.fixture(scope="module")
def references():
    """(alpha, size) -> the randomised Keras network; the same weights for an alpha."""
    constructor = keras.applications.MobileNetV2
    found = {
        (alpha, 97): support.randomize(
            support.keras_network(constructor, 97, alpha=alpha), seed=3, norm=norm
        )
        for alpha in (0.35, 1.0)
    }
    even = support.resized(found[0.35, 97], constructor, 96, alpha=0.35)
    return found | {(0.35, 96): even}


def images(size):
    return np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(references):
    """(alpha, size) -> Keras' outputs by our layer names."""
    return {
        case: support.keras_outputs(network, images(case[1]), NAMES)
        for case, network in references.items()
    }


as_it_is = cache(partial(support.our_network, BACKBONE))


def run(network, reference, size):
    model, outputs = network
    variables = support.loaded(model, BACKBONE, support.tensors(reference, BACKBONE))
    return outputs(variables, images(size))


@pytest.mark.parametrize(("alpha", "size"), CASES)
def test_the_reference_is_awake(expected, alpha, size):
    outputs = expected[alpha, size]
    for name in CLIPPED:
        assert np.mean(outputs[name] == 0) > 0.05, name
        assert np.mean(outputs[name] == 6) > 0.02, name
        assert np.mean((outputs[name] > 0) & (outputs[name] < 6)) > 0.1, name
    for name in NAMES.keys() - CLIPPED:
        assert 0.3 < outputs[name].std() < 10, name


@pytest.mark.parametrize(("alpha", "size"), CASES)
def test_every_layer_equals_keras(references, expected, alpha, size):
    ours = run(as_it_is(alpha=alpha), references[alpha, size], size)
    support.assert_parity(ours, expected[alpha, size], TOLERANCE)


def other_epsilon(monkeypatch):
    monkeypatch.setattr(mobilenet_v2, "Norm", partial(layers.BatchNorm, epsilon=1e-5))


def relu(monkeypatch):
    def mutated(activation="linear", **kwargs):
        return layers.BatchNorm("relu" if activation == "relu6" else activation, **kwargs)

    monkeypatch.setattr(mobilenet_v2, "Norm", mutated)


def clipped_projection(monkeypatch):
    def mutated(activation="relu6", **kwargs):
        return layers.BatchNorm(activation, **kwargs)

    monkeypatch.setattr(mobilenet_v2, "Norm", mutated)


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
def test_a_mutated_network_fails_the_comparison(references, expected, monkeypatch, mutate, size):
    mutate(monkeypatch)
    ours = run(
        support.our_network(BACKBONE, options=support.QUICK, alpha=0.35),
        references[0.35, size],
        size,
    )
    with pytest.raises(AssertionError, match=r"_BN|_bn|bn_Conv1"):
        support.assert_parity(ours, expected[0.35, size], TOLERANCE)


def test_a_training_step_moves_the_running_averages_as_in_keras(references):
    reference, (model, _) = references[0.35, 96], as_it_is(alpha=0.35)
    updates = support.updates_of_keras(reference, BACKBONE, images(96))
    variables = support.loaded(model, BACKBONE, support.tensors(reference, BACKBONE))
    ours = support.our_updates(model, BACKBONE, variables, images(96))
    support.assert_same_updates(ours, updates)
    tenfold = {name: 10 * update for name, update in ours.items()}  # momentum 0.99
    with pytest.raises(AssertionError, match=r"_mean|_variance"):
        support.assert_same_updates(tenfold, updates)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_layer_computes_in_the_type_of_the_images(dtype):
    support.assert_computes_in(dtype, BACKBONE)


@pytest.mark.parametrize("name", support.FILES)
def test_every_kind_of_file_gives_the_tensors(references, tmp_path, name):
    support.assert_file_gives_the_tensors(references[0.35, 96], BACKBONE, tmp_path / name)


@pytest.mark.realdata
def test_the_published_kernels_give_keras_features(realdata):
    data = pytest.importorskip("skimage.data")
    path = realdata / "weights" / "mobilenet_v2_1.0_224_no_top_bn_recalibrated.h5"
    model, outputs = as_it_is(alpha=1.0)
    rules = KERAS_FAMILIES[BACKBONE].rules
    variables, report = load(support.zeros(model), read(path), rules, initial=support.OURS)
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
    np.testing.assert_allclose(outputs(variables, x)[support.END], features, rtol=0, atol=1e-3)
