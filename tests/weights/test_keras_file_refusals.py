"""Whatever is not a whole, plain Keras file is refused in a sentence, and never unpickled."""

import os
import pickle
import re
import zipfile

import h5py
import keras
import numpy as np
import pytest

from msa_flax.weights import keras_file
from msa_flax.weights.keras_file import WeightsError, read


@pytest.fixture(scope="module")
def model():
    return keras.applications.MobileNet(
        weights=None, alpha=0.25, input_shape=(32, 32, 3), include_top=False
    )


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
    for position in (46, *range(1000, 200_000, 20_000)):  # 46 is where the deflate stream begins
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
