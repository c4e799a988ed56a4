"""A public name says which file is to be put where, and what its bytes must be."""

import hashlib

import pytest

from msa_flax.exporting import released
from msa_flax.exporting.package import PackageError
from msa_flax.exporting.released import find

DATA = b"a model"
ENTRY = ("small.zip", hashlib.sha256(DATA).hexdigest(), "https://example.org/small.zip")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path))
    monkeypatch.setitem(released.RELEASED, "small-1", ENTRY)
    return tmp_path / "models"


def test_a_path_is_itself_and_nothing_is_refused(tmp_path):
    assert find(str(tmp_path)) == tmp_path
    with pytest.raises(PackageError, match=r"none is released yet.*where nothing is"):
        find(str(tmp_path / "none"))


def test_a_name_is_the_file_in_the_cache_if_its_bytes_are_right(cache):
    with pytest.raises(PackageError, match=rf"{cache}/small.zip, where nothing is; put there"):
        find("small-1")
    cache.mkdir()
    (cache / "small.zip").write_bytes(DATA)
    assert find("small-1") == cache / "small.zip"
    (cache / "small.zip").write_bytes(b"another")
    with pytest.raises(PackageError, match=f"other bytes is; put .* {ENTRY[1]}"):
        find("small-1")


def test_every_released_model_has_a_hash_and_an_origin():
    for file, digest, origin in released.RELEASED.values():
        assert "/" not in file
        assert len(bytes.fromhex(digest)) == 32
        assert origin.startswith("https://")
