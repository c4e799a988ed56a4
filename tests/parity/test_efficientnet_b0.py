"""EfficientNetB0 computes what ``keras.applications.EfficientNetB0`` computes, layer by layer."""

import re
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
import support
from keras.src.applications import efficientnet
from keras.src.applications.imagenet_utils import correct_pad

from msa_flax.models import efficientnet_b0, layers, ops
from msa_flax.weights import WeightsError, load, read
from msa_flax.weights.rules.efficientnet_b0 import DEVIATIONS, FAMILY, VARIANCE
from msa_flax.weights.rules.table import SAME

BACKBONE = "efficientnet_b0"
CONSTRUCTOR = keras.applications.EfficientNetB0
SIZES = (64, 97)

# Both sides sum in float32, in different orders, through 81 layers. Measured: below 1e-5 of a
# layer's deviation. The mildest mutation (epsilon) gives 3e-2.
TOLERANCE = 1e-4


def batch_norms():
    names = ["stem_bn", "top_bn"]
    for stage, (_, blocks, _, expansion, _) in enumerate(efficientnet_b0.STAGES, start=1):
        for letter in "abcd"[:blocks]:
            names += [f"block{stage}{letter}_{part}" for part in ("bn", "project_bn")]
            names += [f"block{stage}{letter}_expand_bn"] if expansion > 1 else []
    return {name: name for name in names}  # swish is applied outside our layer, as in Keras


NAMES = batch_norms()


def norm(name):
    """Keeps the maps of order 1, where swish is bent, and what is added from block to block."""
    return (0.7, 0, 0.5) if name.endswith("project_bn") else (1.5, 0, 1)


def images(size, count=2):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (count, size, size, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def fresh():
    """The Keras network, as Keras starts it, and a copy of its tensors; randomised later."""
    network = support.keras_network(CONSTRUCTOR, 64)
    return network, support.tensors(network, BACKBONE)


@pytest.fixture(scope="module")
def references(fresh):
    """size -> the randomised Keras network; the same weights at both sizes."""
    first = support.randomize(fresh[0], seed=3, norm=norm)
    return {64: first, 97: support.resized(first, CONSTRUCTOR, 97)}


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
def test_the_reference_is_awake(references, expected, size):
    for name, output in expected[size].items():
        assert 0.3 < output.std() < 10, name
        assert 0.1 < np.mean(output < 0) < 0.9, name
    gates = [n.name for n in references[size].layers if n.name.endswith("_se_expand")]
    found = support.keras_outputs(references[size], images(size), {name: name for name in gates})
    for name in gates:
        assert found[name].std() > 0.05, name
        assert np.mean((found[name] > 0.01) & (found[name] < 0.99)) > 0.5, name


@pytest.mark.parametrize("size", SIZES)
def test_every_layer_equals_keras(variables, expected, size):
    _, outputs = as_it_is()
    support.assert_parity(outputs(variables, images(size)), expected[size], TOLERANCE)


def other_epsilon(monkeypatch):
    monkeypatch.setattr(efficientnet_b0, "BatchNorm", partial(layers.BatchNorm, epsilon=1e-5))


def relu(monkeypatch):
    monkeypatch.setattr(nn, "silu", nn.relu)


def symmetric(monkeypatch):
    def padding(height, width, size, stride):
        return ((size // 2, size // 2),) * 2

    monkeypatch.setattr(ops, "same_padding", padding)


def without_excitation(monkeypatch):
    whole = efficientnet_b0._excitation
    monkeypatch.setattr(efficientnet_b0, "_excitation", lambda *args: 0 * whole(*args) + 1)


@pytest.mark.parametrize(
    "mutate",
    [
        pytest.param(other_epsilon, id="BatchNorm epsilon 1e-5"),
        pytest.param(relu, id="ReLU for swish"),
        pytest.param(symmetric, id="PyTorch's padding"),
        pytest.param(without_excitation, id="no excitation"),
    ],
)
def test_a_mutated_network_fails_the_comparison(variables, expected, monkeypatch, mutate):
    mutate(monkeypatch)
    _, outputs = support.our_network(BACKBONE, options=support.QUICK)
    ours = outputs(variables, images(64))
    with pytest.raises(AssertionError, match="_bn"):
        support.assert_parity(ours, expected[64], TOLERANCE)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_what_keras_pads_by_hand_is_same_padding(kernel_size):
    for size in range(1, 300):
        by_hand = correct_pad(np.empty((1, size, size + 7, 1)), kernel_size)
        assert ops.same_padding(size, size + 7, kernel_size, 2) == by_hand


# --- what the images are scaled by ----------------------------------------------------------------


def with_published_scaling(reference):
    """Returns the reference's tensors, but the first layer's are those of the published file."""
    arrays = support.tensors(reference, BACKBONE)
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    return arrays | {"normalization/mean": mean, "normalization/variance": DEVIATIONS}


@pytest.fixture(scope="module")
def published(references, tmp_path_factory):
    """A file like the published one: other kernels, the same numbers in the first layer."""
    path = tmp_path_factory.mktemp("keras") / "efficientnetb0_notop.h5"
    network = support.keras_network(CONSTRUCTOR, 64)
    network.set_weights(list(with_published_scaling(references[64]).values()))
    network.save(path)
    return path


def test_imagenet_weights_are_used_as_keras_uses_them(published, monkeypatch):
    monkeypatch.setattr(efficientnet.file_utils, "get_file", lambda *_, **__: str(published))
    reference = keras.applications.EfficientNetB0(
        weights="imagenet", include_top=False, input_shape=(64, 64, 3)
    )
    scalings = [n for n in reference.layers if isinstance(n, keras.layers.Rescaling)]
    assert len(scalings) == 2  # the second is what only weights="imagenet" has
    expected = support.keras_outputs(reference, images(64), NAMES)
    model, outputs = as_it_is()
    arrays, rules = FAMILY.canonical(read(published)), FAMILY.rules
    variables, report = load(support.zeros(model), arrays, rules, initial=support.OURS)
    assert report.parameters == 4_049_571
    support.assert_parity(outputs(variables, images(64)), expected, TOLERANCE)

    once = tuple(rule._replace(layout=SAME) if rule.layout is VARIANCE else rule for rule in rules)
    variables, _ = load(support.zeros(model), arrays, once, initial=support.OURS)
    with pytest.raises(AssertionError, match="stem_bn: "):
        support.assert_parity(outputs(variables, images(64)), expected, TOLERANCE)


def test_the_published_deviations_become_variances_and_back():
    squared = VARIANCE.to_ours(DEVIATIONS)
    np.testing.assert_allclose(squared, [0.229**2, 0.224**2, 0.225**2], rtol=1e-6)  # float32
    np.testing.assert_array_equal(VARIANCE.to_keras(squared), DEVIATIONS)


@pytest.mark.parametrize("variance", [[1, 1, 1], [0.229, 0.224, 0.226], [0, 0, 0], [1.0], 0.5])
def test_other_variances_stay_as_they_are(variance):
    array = np.array(variance, np.float32)
    np.testing.assert_array_equal(VARIANCE.to_ours(array), array)
    np.testing.assert_array_equal(VARIANCE.to_keras(array), array)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_images_are_scaled_to_deviations_from_the_mean(dtype):
    stats = {"mean": jnp.full(3, 0.4), "var": jnp.full(3, 0.04), "count": jnp.zeros(())}
    x = jnp.full((1, 2, 2, 3), 153, dtype)
    scaled = efficientnet_b0.Normalization().apply({"batch_stats": stats}, x)
    assert scaled.dtype == dtype
    np.testing.assert_allclose(np.asarray(scaled, np.float32), 1, rtol=1e-6)  # (0.6 - 0.4) / 0.2


def test_a_deviation_of_zero_is_keras_smallest():
    stats = {"mean": jnp.zeros(3), "var": jnp.zeros(3), "count": jnp.zeros(())}
    x = images(8)
    ours = efficientnet_b0.Normalization().apply({"batch_stats": stats}, jnp.asarray(x))
    layer = keras.layers.Normalization(mean=[0.0] * 3, variance=[0.0] * 3)
    np.testing.assert_allclose(ours, np.asarray(layer(x / 255)), rtol=1e-6)  # float32


# --- training -------------------------------------------------------------------------------------


def test_a_training_step_moves_the_running_averages_as_in_keras(references, variables, monkeypatch):
    # Without random drops; those have a test of their own.
    dropouts = [n for n in references[64].layers if isinstance(n, keras.layers.Dropout)]
    assert len(dropouts) == 9
    for layer in dropouts:
        monkeypatch.setattr(layer, "rate", 0)
    monkeypatch.setattr(efficientnet_b0, "DROP_RATE", 0.0)
    updates = support.updates_of_keras(references[64], BACKBONE, images(64))
    ours = support.our_updates(support.our_network(BACKBONE)[0], BACKBONE, variables, images(64))
    support.assert_same_updates(ours, updates)
    tenth = {name: update / 10 for name, update in ours.items()}  # momentum 0.999
    with pytest.raises(AssertionError, match=r"_mean|_variance"):
        support.assert_same_updates(tenth, updates)


def test_a_branch_is_dropped_for_whole_images_at_keras_rates(references, variables):
    rates = {n.name: n.rate for n in references[64].layers if isinstance(n, keras.layers.Dropout)}
    model, _ = as_it_is()

    @partial(jax.jit, compiler_options=support.QUICK)
    def train(variables, x, key):
        return model.apply(
            variables,
            x,
            train=True,
            method="features",
            rngs={"dropout": key},
            capture_intermediates=lambda module, _: isinstance(
                module, nn.Dropout | layers.BatchNorm
            ),
            mutable=["batch_stats", "intermediates"],
        )[1]["intermediates"]["backbone"]

    count, dropped, masks = 64, 0, []
    for seed in range(2):
        found = train(variables, images(32, count), jax.random.key(seed))
        assert {name for name in found if name.endswith("_drop")} == rates.keys()
        for name, rate in rates.items():
            branch = found[name.replace("_drop", "_project_bn")]["__call__"][0]
            ours = found[name]["__call__"][0]
            kept = np.any(np.asarray(ours) != 0, axis=(1, 2, 3))
            scaled = np.where(kept[:, None, None, None], branch / (1 - rate), 0)
            np.testing.assert_allclose(ours, scaled, rtol=1e-5)  # float32
            dropped += np.sum(~kept)
            masks.append(tuple(kept))
    assert len(set(masks)) > len(masks) // 2  # every block and every call draws its own
    mean = 2 * count * sum(rates.values())
    assert abs(dropped - mean) < 4 * mean**0.5  # four sigma of a sum of rare events


def test_kernels_start_as_in_keras(fresh):
    kinds = ("expand_conv", "dwconv", "se_reduce", "se_expand", "project_conv")
    layer_names = ["stem_conv", "top_conv", *(f"block4b_{kind}" for kind in kinds)]
    support.assert_initialised_alike(BACKBONE, fresh[1], layer_names)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_layer_computes_in_the_type_of_the_images(dtype):
    support.assert_computes_in(dtype, BACKBONE)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", support.FILES)
def test_every_kind_of_file_gives_the_tensors(references, tmp_path, name):
    network = references[97]  # not the first of its process: Keras numbers what it names itself
    assert any(re.match(r"normalization_\d+/", weight.path) for weight in network.weights)
    support.assert_file_gives_the_tensors(network, BACKBONE, tmp_path / name)


def test_a_classification_top_is_left_out_and_nothing_else(references):
    model, _ = as_it_is()
    arrays = support.tensors(references[64], BACKBONE)
    top = {"predictions/kernel": np.zeros((1280, 1000)), "predictions/bias": np.zeros(1000)}
    support.loaded(model, BACKBONE, arrays | top)
    assert FAMILY.top == ("predictions",)
    with pytest.raises(WeightsError, match="unexpected: block8a_bn/gamma"):
        support.loaded(model, BACKBONE, arrays | {"block8a_bn/gamma": np.zeros(1)})
