"""Published weights are fetched once, known by their tensors, and never half-written."""

import http.client
import io
import urllib.error
import urllib.request
from pathlib import Path

import h5py
import numpy as np
import pytest

from msa_flax.weights import cache
from msa_flax.weights.cache import KNOWN, cache_dir, imagenet_path
from msa_flax.weights.keras_file import WeightsError, tensors_hash

NAME = "mobilenet_1_0_224_tf_no_top.h5"
TENSORS = {"conv1/kernel": np.arange(4, dtype=np.float32)}


def write(path, tensors):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in tensors.items():
            file[name] = array
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The cache folder, not made yet; a small file plays the published one, in a file:// server."""
    remote = f"mobilenet/{NAME}"
    write(tmp_path / "server" / remote, TENSORS)
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "URL", f"{(tmp_path / 'server').as_uri()}/")
    monkeypatch.setitem(KNOWN, ("mobilenet_v1", 1.0, False), (remote, tensors_hash(TENSORS)))
    return tmp_path / "cache"


def refuse_to_connect(monkeypatch, error):
    def urlopen(url, timeout):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


def test_the_file_is_fetched_once(folder, monkeypatch):
    path = imagenet_path("mobilenet_v1", alpha=1.0)
    assert path == folder / NAME
    refuse_to_connect(monkeypatch, AssertionError("asked the network again"))
    assert imagenet_path("mobilenet_v1", alpha=1) == path
    assert [p.name for p in folder.iterdir()] == [NAME]


def test_a_saved_again_copy_is_accepted_where_it_lies(folder, monkeypatch):
    copy = write(folder / NAME, {"model_weights/conv1/conv1/kernel:0": TENSORS["conv1/kernel"]})
    before = copy.read_bytes()
    refuse_to_connect(monkeypatch, AssertionError("asked the network"))
    assert imagenet_path("mobilenet_v1", alpha=1.0).read_bytes() == before


def test_a_file_with_other_tensors_is_refused_and_left_alone(folder, monkeypatch):
    path = write(folder / NAME, {"conv1/kernel": np.zeros(4, np.float32)})
    before = path.read_bytes()
    refuse_to_connect(monkeypatch, AssertionError("asked the network"))
    with pytest.raises(WeightsError, match="not the tensors of Keras' mobilenet"):
        imagenet_path("mobilenet_v1", alpha=1.0)
    assert path.read_bytes() == before


def test_a_download_with_other_tensors_is_not_kept(folder, monkeypatch):
    monkeypatch.setitem(KNOWN, ("mobilenet_v1", 1.0, False), (f"mobilenet/{NAME}", "0" * 64))
    with pytest.raises(WeightsError, match="did not deliver the published tensors"):
        imagenet_path("mobilenet_v1", alpha=1.0)
    assert list(folder.iterdir()) == []


def test_a_download_that_is_no_weights_file_is_not_kept(folder, monkeypatch):
    page = lambda url, timeout: io.BytesIO(b"<html>please log in</html>")  # noqa: E731
    monkeypatch.setattr(urllib.request, "urlopen", page)
    with pytest.raises(WeightsError, match="expected a Keras weights file"):
        imagenet_path("mobilenet_v1", alpha=1.0)
    assert list(folder.iterdir()) == []


class Interrupted(io.BytesIO):
    """Delivers a little, then breaks off."""

    def read(self, size=-1):
        if self.tell():
            raise http.client.IncompleteRead(b"", 100)
        return super().read(10)


def test_an_interrupted_download_leaves_nothing(folder, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Interrupted(bytes(20)))
    with pytest.raises(WeightsError, match="could not put"):
        imagenet_path("mobilenet_v1", alpha=1.0)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [urllib.error.URLError("no route"), TimeoutError("slow"), http.client.BadStatusLine("?")],
)
def test_without_a_network_one_sentence_says_which_file_goes_where(folder, monkeypatch, error):
    refuse_to_connect(monkeypatch, error)
    with pytest.raises(WeightsError) as refusal:
        imagenet_path("mobilenet_v1", alpha=1.0)
    message = str(refusal.value)
    assert f"/mobilenet/{NAME}" in message
    assert str(folder / NAME) in message
    assert "\n" not in message


def test_a_cache_folder_that_cannot_be_made_is_reported(folder):
    folder.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="could not put"):
        imagenet_path("mobilenet_v1", alpha=1.0)


@pytest.mark.parametrize(("backbone", "alpha"), [("mobilenet_v1", 0.25), ("resnet9000", 1.0)])
def test_weights_that_nobody_published_need_a_path(folder, backbone, alpha):
    with pytest.raises(WeightsError, match=f"for {backbone} with alpha {alpha:g}; give the path"):
        imagenet_path(backbone, alpha=alpha)
    assert not folder.exists()


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MSA_FLAX_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == tmp_path / ".cache" / "msa_flax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the XDG specification
    assert cache_dir() == tmp_path / ".cache" / "msa_flax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "msa_flax"
    monkeypatch.setenv("MSA_FLAX_CACHE", "~/own")
    assert cache_dir() == tmp_path / "own"


def test_the_addresses_are_those_of_keras():
    from keras.src.applications import mobilenet

    for (backbone, _, _), (remote, _) in KNOWN.items():
        assert backbone == "mobilenet_v1"
        assert (cache.URL + remote).startswith(mobilenet.BASE_WEIGHT_PATH)
        assert Path(remote).name.startswith("mobilenet_1_0_224_tf")


@pytest.mark.realdata
@pytest.mark.parametrize("top", [False, True])
def test_the_published_files_are_accepted(realdata, monkeypatch, top):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(realdata / "weights"))
    refuse_to_connect(monkeypatch, AssertionError("asked the network"))
    assert imagenet_path("mobilenet_v1", alpha=1.0, include_top=top).is_file()
