"""EfficientNetB0 computes what ``keras.applications.EfficientNetB0`` computes, layer by layer."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras.src.applications import efficientnet
from keras.src.applications.imagenet_utils import correct_pad
from quick_compilation import QUICK
from support import Comparison, assert_parity

from msa_flax.models import efficientnet_b0, layers, ops
from msa_flax.weights import read
from msa_flax.weights.rules.efficientnet_b0 import DEVIATIONS, FAMILY, VARIANCE
from msa_flax.weights.rules.table import SAME


def batch_norms():
    names = ["stem_bn", "top_bn"]
    for stage, (_, blocks, _, expansion, _) in enumerate(efficientnet_b0.STAGES, start=1):
        for letter in "abcd"[:blocks]:
            names += [f"block{stage}{letter}_{part}" for part in ("bn", "project_bn")]
            names += [f"block{stage}{letter}_expand_bn"] if expansion > 1 else []
    return {name: name for name in names}  # swish is applied outside our layer, as in Keras


def norm(name):
    """Keeps the maps of order 1, where swish is bent, and what is added from block to block."""
    return (0.7, 0, 0.5) if name.endswith("project_bn") else (1.5, 0, 1)


def images(size, count=2):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (count, size, size, 3)).astype(np.float32)


BOTH = Comparison(
    "efficientnet_b0",
    keras.applications.EfficientNetB0,
    layers=batch_norms(),
    weights={"norm": norm},
    images=images,
    sizes=(64, 97),
    # Both sides sum in float32, in different orders, through 81 layers. Measured: below 1e-5 of a
    # layer's deviation. The mildest mutation (epsilon) gives 3e-2.
    tolerance=1e-4,
)


@pytest.mark.parametrize("size", BOTH.sizes)
def test_the_reference_is_awake(size):
    for name, output in BOTH.expected[size].items():
        assert 0.3 < output.std() < 10, name
        assert 0.1 < np.mean(output < 0) < 0.9, name
    network = BOTH.references[size]
    gates = [layer.name for layer in network.layers if layer.name.endswith("_se_expand")]
    found = BOTH.keras_outputs(network, size, {name: name for name in gates})
    for name in gates:
        assert found[name].std() > 0.05, name
        assert np.mean((found[name] > 0.01) & (found[name] < 0.99)) > 0.5, name


@pytest.mark.parametrize("size", BOTH.sizes)
def test_every_layer_equals_keras(size):
    BOTH.assert_parity(size)


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
def test_a_mutated_network_fails_the_comparison(monkeypatch, mutate):
    mutate(monkeypatch)
    # compiles sooner, and has kernels of 3 x 3 and of 5 x 5
    monkeypatch.setattr(efficientnet_b0, "STAGES", efficientnet_b0.STAGES[:3])
    BOTH.assert_mutation_fails(64, without=["top_bn"])


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_what_keras_pads_by_hand_is_same_padding(kernel_size):
    for size in range(1, 300):
        by_hand = correct_pad(np.empty((1, size, size + 7, 1)), kernel_size)
        assert ops.same_padding(size, size + 7, kernel_size, 2) == by_hand


# --- what the images are scaled by ----------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file like the published one: other kernels, the same numbers in the first layer."""
    path = tmp_path_factory.mktemp("keras") / "efficientnetb0_notop.h5"
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    scaling = {"normalization/mean": mean, "normalization/variance": DEVIATIONS}
    network = BOTH.keras_network(64)
    network.set_weights(list((BOTH.tensors | scaling).values()))
    network.save(path)
    return path


def test_imagenet_weights_are_used_as_keras_uses_them(published, monkeypatch):
    monkeypatch.setattr(efficientnet.file_utils, "get_file", lambda *_, **__: str(published))
    reference = keras.applications.EfficientNetB0(
        weights="imagenet", include_top=False, input_shape=(64, 64, 3)
    )
    scalings = [n for n in reference.layers if isinstance(n, keras.layers.Rescaling)]
    assert len(scalings) == 2  # the second is what only weights="imagenet" has
    expected = BOTH.keras_outputs(reference, 64)
    arrays, rules = FAMILY.canonical(read(published)), FAMILY.rules
    assert_parity(BOTH.outputs(BOTH.loaded(arrays), images(64)), expected, BOTH.tolerance)

    once = tuple(rule._replace(layout=SAME) if rule.layout is VARIANCE else rule for rule in rules)
    ours = BOTH.outputs(BOTH.loaded(arrays, once), images(64))
    with pytest.raises(AssertionError, match="stem_bn: "):
        assert_parity(ours, expected, BOTH.tolerance)


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


def test_a_training_step_moves_the_running_averages_as_in_keras(monkeypatch):
    # Without random drops; those have a test of their own.
    dropouts = [n for n in BOTH.references[64].layers if isinstance(n, keras.layers.Dropout)]
    assert len(dropouts) == 9
    for layer in dropouts:
        monkeypatch.setattr(layer, "rate", 0)
    monkeypatch.setattr(efficientnet_b0, "DROP_RATE", 0.0)
    BOTH.assert_same_updates(factor=0.1)  # as momentum 0.999 would


def test_a_branch_is_dropped_for_whole_images_at_keras_rates():
    layers_of_keras = BOTH.references[64].layers
    rates = {n.name: n.rate for n in layers_of_keras if isinstance(n, keras.layers.Dropout)}

    @partial(jax.jit, compiler_options=QUICK)
    def train(variables, x, key):
        return BOTH.model.apply(
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
        found = train(BOTH.variables, images(32, count), jax.random.key(seed))
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


def test_kernels_start_as_in_keras():
    kinds = ("expand_conv", "dwconv", "se_reduce", "se_expand", "project_conv")
    BOTH.assert_initialised_alike(["stem_conv", "top_conv", *(f"block4b_{kind}" for kind in kinds)])
