"""Published weights are fetched once, known by what they hold, and never half-written."""

import functools
import hashlib
import http.client
import io
import urllib.error
import urllib.request

import h5py
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras.src.utils import file_utils

from msa_flax.config import ModelConfig
from msa_flax.files import cache_dir
from msa_flax.models import create_model
from msa_flax.weights import KERAS_FAMILIES, cache, load, read
from msa_flax.weights.cache import KNOWN, Published, imagenet_path
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
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "URL", f"{(tmp_path / 'server').as_uri()}/")
    write(tmp_path / "server" / "mobilenet" / NAME, TENSORS)
    publish(monkeypatch, "mobilenet_v1", f"mobilenet/{NAME}", tensors=tensors_hash(TENSORS))
    return tmp_path / "cache"


def publish(monkeypatch, backbone, remote, **hashes):
    monkeypatch.setitem(KNOWN, (backbone, 1.0, False), Published(remote, **hashes))


def served(folder, backbone):
    """The place of a backbone's file in the server; its remote name is the real one."""
    path = folder.parent / "server" / KNOWN[backbone, 1.0, False].remote
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
    publish(monkeypatch, "resnet50", KNOWN["resnet50", 1.0, False].remote, file=digest)
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
    assert KNOWN["mobilenet_v2", 1.0, False][1:] == ("", "")
    write(served(folder, "mobilenet_v2"), TENSORS)
    path = imagenet_path("mobilenet_v2", alpha=1.0)
    assert tensors_hash(read(path)) == tensors_hash(TENSORS)
    path.write_text("<html>please log in</html>")
    with pytest.raises(WeightsError, match="expected a Keras weights file"):
        imagenet_path("mobilenet_v2", alpha=1.0)


@pytest.fixture(scope="module")
def network():
    network = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    rng = np.random.default_rng(0)
    for weight in network.weights:
        if not weight.path.endswith("kernel"):  # far from the identity that a BatchNorm starts as
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return network


@functools.cache
def ours():
    """Returns our variables, filled with zeros, and a compiled function to the features."""
    model = create_model(ModelConfig(backbone="mobilenet_v2", pretrained="none"))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    return zeros, jax.jit(functools.partial(model.apply, method="features"))


@pytest.mark.parametrize("form", [".h5", ".weights.h5", ".keras"])
def test_a_fetched_file_fills_the_network_in_whatever_form_it_is(folder, tmp_path, network, form):
    saved = tmp_path / f"saved{form}"
    (network.save_weights if form == ".weights.h5" else network.save)(saved)
    saved.rename(served(folder, "mobilenet_v2"))  # a file is known by its content
    zeros, features = ours()
    rules = KERAS_FAMILIES["mobilenet_v2"].rules
    arrays = read(imagenet_path("mobilenet_v2", alpha=1.0))
    variables, report = load(zeros, arrays, rules, initial=("attention", "classifier"))
    assert (report.parameters, report.ignored) == (2_257_984, ())
    images = np.random.default_rng(1).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    expected = np.asarray(network(images))
    assert np.ptp(expected) > 0.1  # awake
    # float32 sums in another order; tests/parity compares layer by layer
    np.testing.assert_allclose(features(variables, images), expected, rtol=0, atol=1e-4)


# --- what Keras itself asks for -------------------------------------------------------------------

CONSTRUCTORS = {
    "mobilenet_v1": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "resnet50": "ResNet50",
    "efficientnet_b0": "EfficientNetB0",
    "convnext_tiny": "ConvNeXtTiny",
}


@pytest.mark.parametrize(("backbone", "top"), [(b, t) for b, _, t in KNOWN])
def test_addresses_and_hashes_are_those_of_keras(monkeypatch, backbone, top):
    asked = {}

    def get_file(name, origin, file_hash="", **_):
        asked.update(origin=origin, file_hash=file_hash)
        raise InterruptedError

    monkeypatch.setattr(file_utils, "get_file", get_file)
    with pytest.raises(InterruptedError):
        getattr(keras.applications, CONSTRUCTORS[backbone])(
            weights="imagenet", include_top=top, input_shape=(224, 224, 3)
        )
    published = KNOWN[backbone, 1.0, top]
    assert asked == {"origin": cache.URL + published.remote, "file_hash": published.file}


@pytest.mark.realdata
@pytest.mark.parametrize("top", [False, True])
def test_the_published_files_are_accepted(realdata, monkeypatch, top):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(realdata / "weights"))
    refuse_to_connect(monkeypatch, AssertionError("asked the network"))
    assert imagenet_path("mobilenet_v1", alpha=1.0, include_top=top).is_file()
