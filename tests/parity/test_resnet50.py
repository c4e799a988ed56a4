"""ResNet50 computes what ``keras.applications.ResNet50`` computes, layer by layer."""

import copy
from functools import cache, partial

import jax.numpy as jnp
import keras
import numpy as np
import pytest
import support

from msa_flax.models import layers, resnet50
from msa_flax.weights import KERAS_FAMILIES, WeightsError

BACKBONE = "resnet50"
SIZES = (64, 97)

# Both sides sum in float32, in different orders, through 50 layers. Measured: below 1e-5 of a
# layer's deviation. The mildest mutation (epsilon) gives 3e-2.
TOLERANCE = 1e-4


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


NAMES = keras_layers()


def norm(name):
    """Keeps what is added from block to block of order 1; a ReLU cuts about half."""
    return (0.5, 0, 0.5) if name.endswith(("_0_bn", "_3_bn")) else (1.2, 0, 0.5)


def images(size):
    # of order 1: with 0..255 the biases would not be seen behind the images
    return np.random.default_rng(0).normal(0, 1.5, (2, size, size, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def fresh():
    """The Keras network, as Keras starts it, and a copy of its tensors; randomised later."""
    network = support.keras_network(keras.applications.ResNet50, 64)
    return network, support.tensors(network, BACKBONE)


@pytest.fixture(scope="module")
def references(fresh):
    """size -> the randomised Keras network; the same weights at both sizes."""
    first = support.randomize(fresh[0], seed=3, norm=norm)
    return {64: first, 97: support.resized(first, keras.applications.ResNet50, 97)}


@pytest.fixture(scope="module")
def expected(references):
    """size -> Keras' outputs by our layer names."""
    return {
        size: support.keras_outputs(network, images(size), NAMES)
        for size, network in references.items()
    }


@pytest.fixture(scope="module")
def variables(references):
    model, _ = as_it_is()
    return support.loaded(model, BACKBONE, support.tensors(references[64], BACKBONE))


as_it_is = cache(partial(support.our_network, BACKBONE))


@pytest.mark.parametrize("size", SIZES)
def test_the_reference_is_awake(expected, size):
    for name, output in expected[size].items():
        if NAMES.get(name) != name:
            assert 0.2 < np.mean(output == 0) < 0.8, name
            dead = np.all(output == 0, axis=(0, 1, 2))
            assert np.mean(dead) < 0.5, name  # most channels are cut at some pixels only
        assert 0.3 < output.std() < 10, name


@pytest.mark.parametrize("size", SIZES)
def test_every_layer_equals_keras(variables, expected, size):
    _, outputs = as_it_is()
    support.assert_parity(outputs(variables, images(size)), expected[size], TOLERANCE)


def other_epsilon(monkeypatch):
    monkeypatch.setattr(resnet50, "Norm", layers.BatchNorm)


def activated_branch(monkeypatch):
    def mutated(activation="relu", **kwargs):
        return layers.BatchNorm(activation, epsilon=1.001e-5, **kwargs)

    monkeypatch.setattr(resnet50, "Norm", mutated)


def stride_in_the_middle(monkeypatch):
    def pointwise(channels, stride=1, *, name):
        given = 1 if name.endswith("_1_conv") else stride
        return layers.PointwiseConv(channels, given, use_bias=True, name=name)

    def conv(channels, size, stride=1, *, name, **kwargs):
        if name.endswith("_block1_2_conv") and not name.startswith("conv2"):
            stride = 2
        return layers.Conv(channels, size, stride, name=name, **kwargs)

    monkeypatch.setattr(resnet50, "Pointwise", pointwise)
    monkeypatch.setattr(resnet50, "Conv", conv)


def same_stem(monkeypatch):
    def conv(channels, size, stride=1, *, padding=None, **kwargs):
        return layers.Conv(channels, size, stride, **kwargs)

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
def test_a_mutated_network_fails_the_comparison(variables, expected, monkeypatch, mutate):
    mutate(monkeypatch)
    _, outputs = support.our_network(BACKBONE, options=support.QUICK)
    ours = outputs(variables, images(64))
    with pytest.raises(AssertionError, match="_bn"):
        support.assert_parity(ours, expected[64], TOLERANCE)


@pytest.mark.parametrize("layer", ["conv1_conv", "conv4_block1_0_conv", "conv5_block3_3_conv"])
def test_without_a_bias_the_comparison_fails(variables, expected, layer):
    """The BatchNorm that follows would hide it in training, but not here."""
    _, outputs = as_it_is()
    mutated = copy.deepcopy(variables)
    mutated["params"]["backbone"][layer]["bias"] *= 0
    with pytest.raises(AssertionError, match="_bn"):
        support.assert_parity(outputs(mutated, images(64)), expected[64], TOLERANCE)


def test_a_training_step_moves_the_running_averages_as_in_keras(references, variables):
    updates = support.updates_of_keras(references[64], BACKBONE, images(64))
    ours = support.our_updates(as_it_is()[0], BACKBONE, variables, images(64))
    support.assert_same_updates(ours, updates)
    tenfold = {name: 10 * update for name, update in ours.items()}
    with pytest.raises(AssertionError, match=r"_mean|_variance"):
        support.assert_same_updates(tenfold, updates)


def test_kernels_start_as_in_keras(fresh):
    layer_names = ["conv1_conv", *(f"conv3_block1_{n}_conv" for n in range(4))]
    support.assert_initialised_alike(BACKBONE, fresh[1], layer_names)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_layer_computes_in_the_type_of_the_images(dtype):
    support.assert_computes_in(dtype, BACKBONE)


@pytest.mark.parametrize("name", support.FILES)
def test_every_kind_of_file_gives_the_tensors(references, tmp_path, name):
    support.assert_file_gives_the_tensors(references[64], BACKBONE, tmp_path / name)


def test_a_classification_top_is_left_out_and_nothing_else(references):
    model, _ = as_it_is()
    arrays = support.tensors(references[64], BACKBONE)
    top = {"predictions/kernel": np.zeros((2048, 1000)), "predictions/bias": np.zeros(1000)}
    support.loaded(model, BACKBONE, arrays | top)
    assert KERAS_FAMILIES[BACKBONE].top == ("predictions",)
    with pytest.raises(WeightsError, match="unexpected: conv6/kernel"):
        support.loaded(model, BACKBONE, arrays | {"conv6/kernel": np.zeros(1)})
