"""Every file that Keras writes of a ConvNeXt gives the same tensors, whatever it calls them.

The network is narrow, by Keras's own constructor of such networks, and of full depth.
"""

import re
from functools import partial

import h5py
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras.src.applications.convnext import ConvNeXt

from msa_flax.models import convnext_tiny
from msa_flax.models.convnext_tiny import ConvNeXtTiny
from msa_flax.weights import KERAS_FAMILIES, export, load, read
from msa_flax.weights.keras_file import WeightsError

FAMILY = KERAS_FAMILIES["convnext_tiny"]
NARROW = ((4, 3), (6, 3), (8, 9), (10, 3))


def narrow(**kwargs):
    channels, blocks = zip(*NARROW, strict=True)
    settings = {"include_top": False, "input_shape": (None, None, 3), "weights": None} | kwargs
    return ConvNeXt(blocks, channels, name="convnext_tiny", **settings)


def tensors(model):
    """Returns a network's tensors as a file of it would hold them."""
    return {"/".join(v.path.split("/")[-2:]): v.numpy() for v in model.weights}


def zeros():
    """Returns our variable tree filled with zeros: no initial value can help a test."""
    init = partial(ConvNeXtTiny().init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    return {"params": {"backbone": jax.tree.map(lambda x: np.zeros(x.shape), shapes["params"])}}


@pytest.fixture
def deep(monkeypatch):
    """A narrow network of full depth, and the tensors that every file of it must give."""
    monkeypatch.setattr(convnext_tiny, "STAGES", NARROW)
    base, rng = narrow(), np.random.default_rng(5)
    for variable in base.weights:
        variable.assign(rng.normal(size=variable.shape))
    return base, FAMILY.canonical(tensors(base))


def write_keras2(path, arrays, last):
    """Writes the layout and the names of Keras 2, whose LayerScale had a nameless variable."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            layer, variable = name.replace("layer_normalization/", f"{last}/").split("/")
            if layer.endswith("layer_scale"):
                variable = "Variable"
            file[f"{layer}/{layer}/{variable}:0"] = array
        file.create_group("convnext_tiny_prestem_normalization")


def strip_names(path):
    """Removes the layer names from a ``.weights.h5``, as in files of older Keras versions."""
    with h5py.File(path, "r+") as file:

        def strip(_, item):
            if "name" in item.attrs:
                del item.attrs["name"]

        file.visititems(strip)


def write(base, arrays, path):
    if path.name == "keras2.h5":
        write_keras2(path, arrays, "layer_normalization")
    elif path.name == "keras2_again.h5":
        write_keras2(path, arrays, "layer_normalization_3")
    elif path.name == "nameless.weights.h5":
        base.save_weights(path)
        strip_names(path)
    else:
        (base.save_weights if path.name.endswith(".weights.h5") else base.save)(path)


FILES = [
    "m.weights.h5",
    "m.keras",
    "m.h5",
    "keras2.h5",
    "keras2_again.h5",
    "nameless.weights.h5",
]


@pytest.mark.parametrize("name", FILES)
def test_every_layout_that_keras_writes_loads(deep, tmp_path, name):
    base, arrays = deep
    write(base, arrays, tmp_path / name)
    found = FAMILY.canonical(read(tmp_path / name, layers=FAMILY.layers))
    assert found.keys() == arrays.keys()
    for tensor, array in found.items():
        np.testing.assert_array_equal(array, arrays[tensor], err_msg=tensor)
    filled, report = load(zeros(), found, FAMILY.rules)
    assert report.tensors == len(base.weights) == 2 * (4 * 2 + 4 * 18 + 1) + 18
    exported = export(filled, FAMILY.rules)
    assert exported.keys() == arrays.keys()
    for tensor, array in exported.items():
        np.testing.assert_array_equal(array, arrays[tensor], err_msg=tensor)


def test_a_network_with_another_automatic_name_loads_as_well(deep):
    base, arrays = deep
    again = narrow()  # in this process the name is taken
    again.set_weights(base.get_weights())
    names = {name for name in tensors(again) if name not in arrays}
    assert any(re.match(r"layer_normalization_\d+/", name) for name in names)
    assert FAMILY.canonical(tensors(again)).keys() == arrays.keys()


def test_the_table_of_layers_is_keras_order(deep):
    base, _ = deep
    found, groups = [], []
    for layer in base.layers:
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
def test_two_tensors_that_could_be_one_are_refused(deep, other):
    _, arrays = deep
    with pytest.raises(WeightsError, match=rf"found \S+ and {other}; save the backbone by itself"):
        FAMILY.canonical(arrays | {other: np.zeros(1)})


def test_a_file_with_a_top_is_refused_with_what_it_lacks_and_what_it_has(deep):
    top = narrow(include_top=True, input_shape=(64, 64, 3), classes=3)
    with pytest.raises(WeightsError) as error:
        load(zeros(), FAMILY.canonical(tensors(top)), FAMILY.rules)
    message = str(error.value)
    assert "missing: layer_normalization/beta" in message
    assert "unexpected: convnext_tiny_head_dense/bias" in message
