"""Every layout that Keras writes gives the same tensors, and nothing else is read."""

import os
import pickle
import re
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest

from msa_flax.weights import keras_file
from msa_flax.weights.cache import KNOWN
from msa_flax.weights.keras_file import WeightsError, read, tensors_hash
from msa_flax.weights.rules import KERAS_LAYERS

# Keras' TensorFlow back end turns its tensors into arrays in NumPy 1's way.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


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


def assert_same(arrays, truth):
    assert arrays.keys() == truth.keys()
    for name, array in arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, truth[name])


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


def strip_names(path, *, container="layers"):
    """Removes the layer names from a ``.weights.h5``, as in files of older Keras versions."""
    with h5py.File(path, "r+") as file:

        def strip(_, item):
            if "name" in item.attrs:
                del item.attrs["name"]

        file.visititems(strip)
        if container != "layers":
            file.move("layers", container)


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
    strip_names(path, container=container)
    with pytest.raises(WeightsError, match="expected the name of the layer"):
        read(path)
    assert_same(read(path, layers=KERAS_LAYERS["mobilenet_v1"]), truth)


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


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_refused(kind, path, trap):
    if kind == "npz":
        with path.open("wb") as file:
            np.savez(file, weights=np.array([Bomb(trap)], dtype=object))
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.array([Bomb(trap)], dtype=object))
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb(trap)))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif kind == "text":
        path.write_text("not weights at all")
    elif kind == "folder":
        path.mkdir()
    elif kind == "no bytes":
        path.touch()


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("npz", "a NumPy archive"),
        ("npy", "a NumPy file"),
        ("pickle", "a Python pickle"),
        ("zip", "another zip"),
        ("text", "something else"),
        ("folder", "no such file"),
        ("no bytes", "an empty file"),
        ("nothing", "no such file"),
    ],
)
def test_other_files_are_refused_in_a_sentence_and_never_unpickled(tmp_path, kind, found, suffix):
    path, trap = tmp_path / f"weights{suffix}", tmp_path / "trap"
    write_refused(kind, path, trap)
    with pytest.raises(WeightsError, match=found) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: expected a ")
    assert "\n" not in str(error.value)
    assert not trap.exists()


def test_the_trap_of_the_test_above_would_go_off(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "trap")))
    assert (tmp_path / "trap").is_dir()


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.h5"])
def test_a_truncated_file_is_refused_in_a_sentence(model, tmp_path, name, fraction):
    (model.save_weights if name == "m.weights.h5" else model.save)(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(WeightsError, match=re.escape(name)) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_read_or_refused_but_never_fails_otherwise(model, tmp_path):
    model.save_weights(tmp_path / "m.weights.h5")
    whole = (tmp_path / "m.weights.h5").read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for position in rng.integers(0, 60_000, 8):  # where most of the structure lies
            damaged[position] = rng.integers(256)
        (tmp_path / "d.weights.h5").write_bytes(damaged)
        try:
            read(tmp_path / "d.weights.h5")
        except WeightsError:
            refused += 1
    assert refused > 10  # otherwise the damage hit tensors only and nothing was tested


def test_a_damaged_compressed_archive_is_refused(model, tmp_path):
    model.save_weights(tmp_path / "m.weights.h5")
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "m.weights.h5", "model.weights.h5")
    whole = (tmp_path / "m.keras").read_bytes()
    for position in range(1000, 200_000, 20_000):
        damaged = whole[:position] + bytes(50) + whole[position + 50 :]
        (tmp_path / "d.keras").write_bytes(damaged)
        with pytest.raises(WeightsError, match="cannot be read"):
            read(tmp_path / "d.keras")


def test_a_small_archive_of_a_huge_file_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_file, "MAX_BYTES", 10**6)
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(2 * 10**6))
    assert (tmp_path / "m.keras").stat().st_size < 10**4
    with pytest.raises(WeightsError, match="bytes in the archive"):
        read(tmp_path / "m.keras")


@pytest.mark.parametrize("config", ["[]", '{"config": []}', '{"config": {"layers": [1]}}', "{"])
def test_a_keras_file_with_a_broken_configuration_is_refused(model, tmp_path, config):
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as old:
        weights = old.read("model.weights.h5")
    with zipfile.ZipFile(tmp_path / "broken.keras", "w") as new:
        new.writestr("model.weights.h5", weights)
        new.writestr("config.json", config)
    with pytest.raises(WeightsError, match="cannot be read"):
        read(tmp_path / "broken.keras")


def write_hostile(kind, path, secret):
    with h5py.File(path, "w") as file:
        if kind == "external link":
            file["conv1"] = h5py.ExternalLink(str(secret), "/conv1")
        elif kind == "external weights":
            file["model_weights"] = h5py.ExternalLink(str(secret), "/")
        elif kind == "soft link":
            file["conv1/bias"] = np.zeros(2)
            file["conv2"] = h5py.SoftLink("/conv1")
        elif kind == "external data":
            file.create_dataset("conv1/kernel", (4,), "f4", external=[(str(secret), 0, 16)])
        elif kind == "virtual data":
            layout = h5py.VirtualLayout((2,), "f4")
            layout[:] = h5py.VirtualSource(str(secret), "conv1/kernel", (2,))
            file.create_virtual_dataset("conv1/kernel", layout)
        elif kind == "huge":
            file.create_dataset("conv1/kernel", (2**40,), "f4", chunks=(2**20,))
        elif kind == "text":
            file["conv1/kernel"] = "a string"
        elif kind == "no layer":
            file["kernel"] = np.zeros(2)
        elif kind == "twins":
            file["conv1/kernel"] = file["conv1/kernel:0"] = np.zeros(2)
        elif kind == "cycle":
            file["conv1/conv1"] = file["/"]
        elif kind == "type":
            file["conv1/kernel"] = np.dtype("f4")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("external link", "found a link at conv1"),
        ("external weights", "found a link at model_weights"),
        ("soft link", "found a link at conv2"),
        ("external data", "found something else at conv1/kernel"),
        ("virtual data", "found something else at conv1/kernel"),
        ("huge", "expected at most"),
        ("text", "expected numbers in /conv1/kernel"),
        ("no layer", "without a layer: kernel"),
        ("twins", "two tensors with one name"),
        ("cycle", "cannot be read"),
        ("type", "found something else at conv1/kernel"),
        ("nothing", "without tensors"),
    ],
)
def test_hdf5_that_reads_elsewhere_or_holds_no_tensors_is_refused(tmp_path, kind, reason):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["conv1/kernel"] = np.ones(2, np.float32)
    write_hostile(kind, tmp_path / "m.h5", secret)
    with pytest.raises(WeightsError, match=reason):
        read(tmp_path / "m.h5")


def test_errors_carry_the_exit_code_of_bad_input():
    assert WeightsError.exit_code == 2
    assert issubclass(WeightsError, ValueError)


@pytest.mark.realdata
@pytest.mark.parametrize(("top", "tensors"), [(False, 135), (True, 137)])
def test_the_published_files_have_the_known_hash(realdata, tmp_path, top, tensors):
    remote, digest = KNOWN["mobilenet_v1", 1.0, top]
    path = realdata / "weights" / remote.split("/")[-1]
    shutil.copy(path, tmp_path / "renamed.bin")
    arrays = read(tmp_path / "renamed.bin")
    assert len(arrays) == tensors
    assert tensors_hash(arrays) == digest
    assert sorted(arrays) == list(arrays)
