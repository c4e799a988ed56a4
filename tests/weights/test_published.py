"""Published weights are fetched once, known by what they hold, and never half-written."""

import hashlib
import http.client
import io
import urllib.error
import urllib.request

import h5py
import keras
import numpy as np
import pytest
from keras.src.utils import file_utils
from keras_networks import assert_same, keras_network, tensors

from msa_flax.files import cache_dir
from msa_flax.weights import published, read
from msa_flax.weights.keras_file import WeightsError, tensors_hash
from msa_flax.weights.load import WeightsReport
from msa_flax.weights.published import PUBLISHED, PublishedFile, imagenet_path, not_as_published

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
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(published, "URL", f"{(tmp_path / 'server').as_uri()}/")
    write(tmp_path / "server" / "mobilenet" / NAME, TENSORS)
    publish(monkeypatch, "mobilenet_v1", f"mobilenet/{NAME}", tensors=tensors_hash(TENSORS))
    return tmp_path / "cache"


def publish(monkeypatch, backbone, remote, **hashes):
    monkeypatch.setitem(PUBLISHED, backbone, PublishedFile(remote, **hashes))


def served(folder, backbone):
    """The place of a backbone's file in the server; its remote name is the real one."""
    path = folder.parent / "server" / PUBLISHED[backbone].remote
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


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
    publish(monkeypatch, "mobilenet_v1", f"mobilenet/{NAME}", tensors="0" * 64)
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


# --- known by the bytes of the file, or by nothing ------------------------------------------------


@pytest.fixture(params=["md5", "sha256"])
def known_by_bytes(request, folder, monkeypatch):
    """The bytes that the server has for a backbone of which Keras tells the hash of the file."""
    path = write(served(folder, "resnet50"), TENSORS)
    digest = hashlib.new(request.param, path.read_bytes()).hexdigest()
    publish(monkeypatch, "resnet50", PUBLISHED["resnet50"].remote, file=digest)
    return path.read_bytes()


def test_a_download_with_the_published_bytes_is_kept_and_used_again(known_by_bytes, monkeypatch):
    path = imagenet_path("resnet50", alpha=1.0)
    assert path.read_bytes() == known_by_bytes
    refuse_to_connect(monkeypatch, AssertionError("asked the network again"))
    assert imagenet_path("resnet50", alpha=1.0) == path


def test_a_download_with_other_bytes_is_not_kept(known_by_bytes, folder):
    write(served(folder, "resnet50"), {"conv1/kernel": np.zeros(4, np.float32)})
    with pytest.raises(WeightsError, match="did not deliver the published bytes; nothing was kept"):
        imagenet_path("resnet50", alpha=1.0)
    assert list(folder.iterdir()) == []


def test_a_file_with_other_bytes_is_refused_and_left_alone(known_by_bytes, folder, monkeypatch):
    path = folder / served(folder, "resnet50").name
    write(path, {"saved/again/kernel": TENSORS["conv1/kernel"]})
    before = path.read_bytes()
    refuse_to_connect(monkeypatch, AssertionError("asked the network"))
    with pytest.raises(WeightsError, match=r"not the bytes of Keras' resnet50_.*; move the file"):
        imagenet_path("resnet50", alpha=1.0)
    assert path.read_bytes() == before


def test_something_else_in_the_place_of_the_file_is_refused(known_by_bytes, folder):
    (folder / served(folder, "resnet50").name).mkdir(parents=True)
    with pytest.raises(WeightsError, match="the file cannot be read"):
        imagenet_path("resnet50", alpha=1.0)


def test_where_keras_tells_no_hash_a_weights_file_is_enough_but_needed(folder):
    assert PUBLISHED["mobilenet_v2"][1:] == ("", "")
    write(served(folder, "mobilenet_v2"), TENSORS)
    path = imagenet_path("mobilenet_v2", alpha=1.0)
    assert tensors_hash(read(path)) == tensors_hash(TENSORS)
    path.write_text("<html>please log in</html>")
    with pytest.raises(WeightsError, match="expected a Keras weights file"):
        imagenet_path("mobilenet_v2", alpha=1.0)


@pytest.mark.parametrize("form", [".h5", ".weights.h5", ".keras"])
def test_a_fetched_file_is_read_in_whatever_form_it_is(folder, tmp_path, form):
    network = keras_network("mobilenet_v2")
    saved = tmp_path / f"saved{form}"
    (network.save_weights if form == ".weights.h5" else network.save)(saved)
    saved.rename(served(folder, "mobilenet_v2"))  # a file is known by its content
    arrays = read(imagenet_path("mobilenet_v2", alpha=1.0))
    assert_same(arrays, tensors(network, "mobilenet_v2"))


# --- what Keras itself asks for -------------------------------------------------------------------

CONSTRUCTORS = {
    "mobilenet_v1": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "resnet50": "ResNet50",
    "efficientnet_b0": "EfficientNetB0",
    "convnext_tiny": "ConvNeXtTiny",
}


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_addresses_and_hashes_are_those_of_keras(monkeypatch, backbone):
    asked = {}

    def get_file(name, origin, file_hash="", **_):
        asked.update(origin=origin, file_hash=file_hash)
        raise InterruptedError

    monkeypatch.setattr(file_utils, "get_file", get_file)
    with pytest.raises(InterruptedError):
        getattr(keras.applications, CONSTRUCTORS[backbone])(
            weights="imagenet", include_top=False, input_shape=(224, 224, 3)
        )
    file = PUBLISHED[backbone]
    assert asked == {"origin": published.URL + file.remote, "file_hash": file.file}


@pytest.mark.realdata
def test_the_published_file_is_accepted(realdata, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(realdata / "weights"))
    refuse_to_connect(monkeypatch, AssertionError("asked the network"))
    assert imagenet_path("mobilenet_v1", alpha=1.0).is_file()


def report(arrays, ignored=()):
    digest = tensors_hash(arrays)
    return WeightsReport(
        tensors=len(arrays),
        parameters=4,
        hash=digest,
        loaded_hash=digest,
        kept_initial=(),
        ignored=ignored,
        source="mine.h5",
    )


def test_a_flipped_bit_in_a_file_like_the_published_one_is_said(folder, tmp_path):
    path, flipped = tmp_path / "mine.h5", {k: v.copy() for k, v in TENSORS.items()}
    assert not_as_published(path, report(TENSORS), "mobilenet_v1", alpha=1.0) == ""
    flipped["conv1/kernel"].view(np.uint32)[2] ^= 1
    said = not_as_published(path, report(flipped), "mobilenet_v1", alpha=1.0)
    assert f"mine.h5 has the tensors of Keras' {NAME} but is not that published file" in said
    assert tensors_hash(flipped) in said
    for other in ({"backbone": "mobilenet_v1", "alpha": 0.5}, {"backbone": "x", "alpha": 1.0}):
        assert not_as_published(path, report(flipped), **other) == ""


def test_other_bytes_than_the_published_ones_are_said_where_nothing_else_is_known(
    tmp_path, monkeypatch
):
    path = write(tmp_path / "mine.h5", TENSORS)
    of = {"backbone": "resnet50", "alpha": 1.0}
    publish(monkeypatch, "resnet50", "resnet/r.h5", file=hashlib.md5(path.read_bytes()).hexdigest())
    assert not_as_published(path, report(TENSORS), **of) == ""
    write(path, {"conv1/kernel": TENSORS["conv1/kernel"] + 1})
    assert "saved again, or its numbers are others" in not_as_published(path, report({}), **of)
    assert not_as_published(path, report({}, ignored=("top",)), **of) == ""  # as it must be
    publish(monkeypatch, "resnet50", "resnet/r.h5")  # as for MobileNetV2: nothing is known
    assert not_as_published(path, report({}), **of) == ""
