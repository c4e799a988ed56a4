import os
import stat

import pytest

from msa_flax.data import DataError
from msa_flax.data.pseudonyms import NAME, read_salt


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_secret_is_drawn_once_for_a_cache_and_nobody_else_may_read_it(
    cache, tmp_path, monkeypatch
):
    first = read_salt()
    assert len(first) == 64
    assert read_salt() == first
    assert stat.S_IMODE((cache / NAME).stat().st_mode) == 0o600
    assert os.listdir(cache) == [NAME]
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "other"))
    assert read_salt() != first


def test_something_else_in_its_place_is_refused(cache):
    cache.mkdir()
    for content in (b"short", b"\xff" * 64):
        (cache / NAME).write_bytes(content)
        with pytest.raises(DataError, match=NAME):
            read_salt()
