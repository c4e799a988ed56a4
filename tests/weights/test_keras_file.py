"""Every layout that Keras writes gives the same tensors under the same names."""

import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras_networks import assert_same, strip_names

from msa_flax.weights import KERAS_FAMILIES
from msa_flax.weights.keras_file import WeightsError, read, tensors_hash
from msa_flax.weights.published import PUBLISHED


@pytest.fixture(scope="module")
def model():
    """A whole MobileNet, narrow and with a top, whose tensors all differ."""
    network = keras.applications.MobileNet(
        weights=None, alpha=0.25, input_shape=(32, 32, 3), classes=3
    )
    rng = np.random.default_rng(0)
    for variable in network.weights:
        variable.assign(rng.normal(size=variable.shape))
    return network


@pytest.fixture(scope="module")
def truth(model):
    """What Keras itself calls the tensors, and their values."""
    return {variable.path: variable.numpy() for variable in model.weights}


def write_keras2(path, truth, *, scope="{layer}"):
    """Writes the layout of Keras 2: ``depthwise_kernel``, ``:0``, names in attributes."""
    with h5py.File(path, "w") as file:
        for name, array in truth.items():
            layer, variable = name.split("/")
            if layer.startswith("conv_dw") and variable == "kernel":
                variable = "depthwise_kernel"
            file[f"{layer}/{scope.format(layer=layer)}/{variable}:0"] = array
        file.attrs["layer_names"] = sorted({name.split("/")[0] for name in truth})
        file.attrs["keras_version"] = "2.0.6"


def rezip(source, target, change):
    """Copies a ``.keras`` file with ``change`` applied to the weights inside."""
    weights = target.with_suffix(".h5")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        weights.write_bytes(old.read("model.weights.h5"))
        change(weights)
        new.write(weights, "model.weights.h5")
        new.writestr("config.json", old.read("config.json"))


def test_a_weights_file_of_keras_3_gives_keras_own_names_and_values(model, truth, tmp_path):
    model.save_weights(tmp_path / "m.weights.h5")
    assert_same(read(tmp_path / "m.weights.h5"), truth)


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_a_whole_model_file_gives_the_same_without_the_optimizer(model, truth, tmp_path, name):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile(optimizer="adam", loss="mse", metrics=["mae"])
    clone.optimizer.build(clone.trainable_variables)
    clone.save(tmp_path / name)
    assert_same(read(tmp_path / name), truth)


def test_a_file_of_keras_2_gives_the_same(truth, tmp_path):
    write_keras2(tmp_path / "m.h5", truth)
    assert_same(read(tmp_path / "m.h5"), truth)


def test_scopes_that_tensorflow_1_made_unique_give_the_same(truth, tmp_path):
    write_keras2(tmp_path / "m.h5", truth, scope="{layer}_7")
    assert_same(read(tmp_path / "m.h5"), truth)


@pytest.mark.parametrize("container", ["layers", "_layer_checkpoint_dependencies"])
def test_a_file_without_layer_names_needs_the_table_of_layers(model, truth, tmp_path, container):
    path = tmp_path / "m.weights.h5"
    model.save_weights(path)
    strip_names(path)
    if container != "layers":
        with h5py.File(path, "r+") as file:
            file.move("layers", container)
    with pytest.raises(WeightsError, match="expected the name of the layer"):
        read(path)
    assert_same(read(path, layers=KERAS_FAMILIES["mobilenet_v1"].layers), truth)


def test_a_keras_file_without_layer_names_takes_them_from_its_configuration(model, truth, tmp_path):
    model.save(tmp_path / "named.keras")
    rezip(tmp_path / "named.keras", tmp_path / "m.keras", strip_names)
    assert_same(read(tmp_path / "m.keras"), truth)


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.h5", "nameless.keras"])
def test_a_nested_backbone_is_flattened(model, truth, tmp_path, name):
    images = keras.Input((32, 32, 3))
    own = keras.Model(images, keras.layers.Dense(2, name="head")(model(images)))
    (own.save_weights if name == "m.weights.h5" else own.save)(tmp_path / name)
    if name == "nameless.keras":
        rezip(tmp_path / name, tmp_path / "stripped.keras", strip_names)
        name = "stripped.keras"
    kernel, bias = own.get_layer("head").get_weights()
    assert_same(read(tmp_path / name), truth | {"head/kernel": kernel, "head/bias": bias})


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.h5"])
def test_names_that_two_nested_models_share_stay_whole(tmp_path, name):
    def part(own_name):
        x = keras.Input((4,))
        return keras.Model(x, keras.layers.Dense(4, name="same")(x), name=own_name)

    x = keras.Input((4,))
    both = keras.Model(x, part("right")(part("left")(x)))
    (both.save_weights if name == "m.weights.h5" else both.save)(tmp_path / name)
    assert set(read(tmp_path / name)) == {
        f"{side}/same/{variable}" for side in ("left", "right") for variable in ("kernel", "bias")
    }


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.h5"])
def test_a_separable_layer_keeps_its_two_kernels(tmp_path, name):
    x = keras.Input((8, 8, 2))
    network = keras.Model(x, keras.layers.SeparableConv2D(3, 3, name="s")(x))
    (network.save_weights if name == "m.weights.h5" else network.save)(tmp_path / name)
    assert set(read(tmp_path / name)) == {"s/depthwise_kernel", "s/pointwise_kernel", "s/bias"}


def test_layers_without_bias_keep_their_names(tmp_path):
    x = keras.Input((8, 8, 2))
    y = keras.layers.SeparableConv2D(3, 3, use_bias=False, name="s")(x)
    network = keras.Model(x, keras.layers.Dense(2, use_bias=False, name="d")(y))
    network.save_weights(tmp_path / "m.weights.h5")
    names = {"s/depthwise_kernel", "s/pointwise_kernel", "d/kernel"}
    assert set(read(tmp_path / "m.weights.h5")) == names


def test_layers_named_like_their_nested_model_are_not_merged(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for layer in ("block_1", "block_2"):
            file[f"block/{layer}/kernel:0"] = np.zeros(1)
    assert set(read(tmp_path / "m.h5")) == {"block_1/kernel", "block_2/kernel"}


def test_training_state_is_not_weights_but_a_layer_may_be_named_like_it(tmp_path):
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = np.zeros((2, 2))
        file["layers/dense/vars"].attrs["name"] = "metrics"
        file["vars/0"] = np.zeros(1)  # of the model itself
        for state in ("optimizer", "metrics/mean", "layers/dropout/seed_generator"):
            file[f"{state}/vars/0"] = np.zeros(1)
    assert set(read(tmp_path / "m.weights.h5")) == {"metrics/kernel", "model/0"}
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["optimizer/optimizer/kernel:0"] = np.zeros(1)
    assert set(read(tmp_path / "m.h5")) == {"optimizer/kernel"}


def test_variables_whose_names_are_uncertain_keep_their_number(tmp_path):
    x = keras.Input((4,))
    network = keras.Model(x, keras.layers.BatchNormalization(scale=False, name="bn")(x))
    network.save_weights(tmp_path / "m.weights.h5")
    assert set(read(tmp_path / "m.weights.h5")) == {"bn/0", "bn/1", "bn/2"}


def test_the_hash_tells_tensors_apart_and_not_files(model, truth, tmp_path):
    model.save_weights(tmp_path / "m.weights.h5")
    write_keras2(tmp_path / "m.h5", truth)
    assert (tmp_path / "m.h5").read_bytes() != (tmp_path / "m.weights.h5").read_bytes()
    digest = tensors_hash(truth)
    assert tensors_hash(read(tmp_path / "m.weights.h5")) == digest
    assert tensors_hash(read(tmp_path / "m.h5")) == digest
    assert tensors_hash(dict(reversed(truth.items()))) == digest

    kernel = truth["conv1/kernel"]
    renamed = {("other" if k == "conv1/kernel" else k): v for k, v in truth.items()}
    reshaped = truth | {"conv1/kernel": kernel.reshape(9, 3, 8)}
    nudged = truth | {"conv1/kernel": np.nextafter(kernel, np.float32(9))}
    for changed in (renamed, reshaped, nudged):
        assert tensors_hash(changed) != digest


def test_the_hash_is_the_documented_one():
    # sha256(b"a/b 2\n" + b"\0\0\x80\x3f\0\0\0\xc0"): name, shape, 1.0 and -2.0 little-endian
    expected = "751242dc8c402fb8d5546612341105c1"
    array = np.array([1.0, -2.0], dtype=">f8")  # neither precision nor byte order matters
    assert tensors_hash({"a/b": array})[:32] == expected


@pytest.mark.realdata
def test_the_published_file_has_the_known_hash(realdata, tmp_path):
    published = PUBLISHED["mobilenet_v1"]
    shutil.copy(realdata / "weights" / published.name, tmp_path / "renamed.bin")
    arrays = read(tmp_path / "renamed.bin")
    assert len(arrays) == 135
    assert tensors_hash(arrays) == published.tensors
    assert sorted(arrays) == list(arrays)
