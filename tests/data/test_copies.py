"""A copy is prepared once and whole, and damage is found when the copy is read."""

import pytest
from image_folders import config

from msa_flax import data
from msa_flax.config import DataConfig
from msa_flax.data import DataError
from msa_flax.data.copies import opened
from msa_flax.data.prepared import find_source


def test_what_a_killed_preparation_left_behind_is_removed(root, cache):
    copy = find_source(config(root)).folder.parent
    (copy / "incomplete.ABCDEF_1.2.0").mkdir(parents=True)  # TFDS's temporary name
    assert len(data.load(config(root))) == 8
    assert [path.name for path in copy.iterdir()] == ["1.2.0"]


def test_an_interrupted_preparation_leaves_no_copy(root, cache, monkeypatch):
    def interrupt(path, config):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("msa_flax.data.tfds.read_image", interrupt)
        with pytest.raises(KeyboardInterrupt):
            data.load(config(root))
    assert not list(cache.glob("**/*.tfrecord*"))
    assert len(data.load(config(root))) == 8


def damage(copy, part):
    (record,) = copy.glob(f"*{part}.tfrecord*")
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 1
    record.write_bytes(content)


def test_a_damaged_copy_is_detected_and_named_once_it_is_needed(root, cache):
    first = data.load(config(root))
    copy = find_source(config(root)).folder
    damage(copy, "train")
    assert data.load(config(root)).fingerprint == first.fingerprint  # read from what is kept
    with pytest.raises(DataError, match=f"damaged; delete {copy}$"):
        data.load(config(root, image_size=32))


def test_the_copy_is_where_it_is_looked_for(root, cache):
    phantom = DataConfig(source="phantom", protocol="kfold", phantom_patients=2)
    for one in (config(root), phantom):
        source = find_source(one)
        builder, bad_files = opened(one, source)
        assert builder.data_path == source.folder
        assert not bad_files
