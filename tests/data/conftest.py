"""A folder of eight images, and a cache of its own for each test that asks for one."""

import pytest
from image_folders import write_data_set


@pytest.fixture
def cache(tmp_path, monkeypatch):
    place = tmp_path / "cache"
    monkeypatch.setenv("MSA_FLAX_CACHE", str(place))
    return place


@pytest.fixture
def root(tmp_path, cache):
    return write_data_set(tmp_path / "set")
