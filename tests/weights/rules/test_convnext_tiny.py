"""A ConvNeXt is recognised whatever Keras calls its tensors, and refused where it has a top."""

import re

import h5py
import keras
import pytest
from keras_networks import assert_same, keras_network, our_network, tensors, zeros

from msa_flax.weights import KERAS_FAMILIES, load, read
from msa_flax.weights.keras_file import WeightsError

BACKBONE = "convnext_tiny"
FAMILY = KERAS_FAMILIES[BACKBONE]


@pytest.fixture(scope="module")
def network():
    return keras_network(BACKBONE)


@pytest.mark.parametrize("last", ["layer_normalization", "layer_normalization_3"])
def test_a_file_of_keras_2_loads(network, tmp_path, last):
    """There LayerScale had a variable without a name."""
    arrays = tensors(network, BACKBONE)
    with h5py.File(tmp_path / "keras2.h5", "w") as file:
        for name, array in arrays.items():
            layer, variable = name.replace("layer_normalization/", f"{last}/").split("/")
            if layer.endswith("layer_scale"):
                variable = "Variable"
            file[f"{layer}/{layer}/{variable}:0"] = array
        file.create_group("convnext_tiny_prestem_normalization")
    assert_same(FAMILY.canonical(read(tmp_path / "keras2.h5")), arrays)


def test_a_network_with_another_automatic_name_loads_as_well(network):
    again = keras_network(BACKBONE)  # in this process the name is taken
    again.set_weights(network.get_weights())
    assert any(re.match(r"layer_normalization_\d+/", v.path) for v in again.weights)
    assert_same(tensors(again, BACKBONE), tensors(network, BACKBONE))


def test_the_table_of_layers_is_keras_order(network):
    found, groups = [], []
    for layer in network.layers:
        if isinstance(layer, keras.Sequential):
            groups.append(f"sequential_{len(groups)}" if groups else "sequential")
            found.append(("Sequential", layer.name))
            found += [(f"{groups[-1]}/{type(part).__name__}", part.name) for part in layer.layers]
        elif layer.weights:
            found.append(
                (type(layer).__name__, re.sub("(layer_normalization)_.*", r"\1", layer.name))
            )
    assert found == list(FAMILY.layers)


@pytest.mark.parametrize(
    "other",
    ["layer_normalization_1/gamma", "convnext_tiny_stage_0_block_0_layer_scale/variable_4"],
)
def test_two_tensors_that_could_be_one_are_refused(network, other):
    arrays = tensors(network, BACKBONE)
    with pytest.raises(WeightsError, match=rf"found \S+ and {other}; save the backbone by itself"):
        FAMILY.canonical(arrays | {other: arrays["layer_normalization/gamma"]})


def test_a_file_with_a_top_is_refused_with_what_it_lacks_and_what_it_has(monkeypatch):
    top = keras_network(BACKBONE, include_top=True, classes=3)
    variables = zeros(our_network(BACKBONE, monkeypatch))
    with pytest.raises(WeightsError) as error:
        load(variables, tensors(top, BACKBONE), FAMILY.rules, initial=("attention", "classifier"))
    message = str(error.value)
    assert "missing: layer_normalization/beta" in message
    assert "unexpected: convnext_tiny_head_dense/bias" in message
