import dataclasses

import numpy as np
import pytest
from prepared_folders import config, in_this_process, write_archive

from msa_flax import data
from msa_flax.data import shards
from msa_flax.data.examples import DataError
from msa_flax.data.rsna import list_rsna, whole_studies
from msa_flax.files import UserError, read_json, write_json
from msa_flax.preparation.archive import prepare_archive


@pytest.fixture
def root(tmp_path):
    return write_archive(tmp_path / "challenge")


@pytest.fixture
def prepared(root, tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    prepare_archive(config(root), tmp_path / "out", in_this_process)
    return config(tmp_path / "out", image_size=32)


def test_a_prepared_folder_is_the_same_data_as_what_it_was_made_from(prepared, root):
    examples = data.load(prepared)
    original = data.load(dataclasses.replace(prepared, root=str(root)))
    assert examples.fingerprint == original.fingerprint
    for name in ("group", "study", "family", "part", "slice_index", "height", "width"):
        assert np.array_equal(getattr(examples, name), getattr(original, name)), name
    assert data.load(prepared, for_search=True).images.shape == (8, 224, 224)


def test_nothing_is_written_into_a_prepared_folder_when_it_is_read(prepared, tmp_path):
    before = sorted((tmp_path / "out").rglob("*"))
    data.load(prepared)
    assert sorted((tmp_path / "out").rglob("*")) == before
    assert [path.name for path in (tmp_path / "cache").rglob("*.npy")] == ["32-none.npy"]


def test_whole_studies_are_read_from_the_dicom_files_as_long_as_they_are_there(prepared, root):
    found = whole_studies(prepared, "test", ["1.2.3"])
    assert found["1.2.3"][0] == root / "train_images/1.2.3/11.dcm"
    assert list_rsna(prepared).root == root
    assert shards.challenge_folder(root) == root
    root.rename(root.with_name("elsewhere"))
    with pytest.raises(DataError, match=r"no longer in .*; say where they are with --moved_to"):
        whole_studies(prepared, "test", ["1.2.3"])
    assert len(data.load(prepared)) == 8  # they are not needed to train


def test_other_settings_than_the_prepared_ones_are_refused(prepared):
    with pytest.raises(DataError, match=r"data\.window_width=1800\.0 \(not 2000\.0\)"):
        data.load(dataclasses.replace(prepared, window_width=2000.0))


def test_a_folder_that_is_not_whole_is_refused(prepared, tmp_path):
    record = read_json(tmp_path / "out/prepared.json")
    del record["content"]
    write_json(tmp_path / "out/prepared.json", record)
    with pytest.raises(DataError, match=r"expected a prepared folder that is whole; give the"):
        data.load(prepared)
    write_json(tmp_path / "out/prepared.json", record | {"tables": 3})
    with pytest.raises(UserError, match="expected an object as tables, got 3"):
        data.load(prepared)


def test_a_damaged_file_is_named(prepared, tmp_path):
    path = tmp_path / "out/rsna2022-slices.tfrecord-00001-of-00002"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert shards.damaged_shards(tmp_path / "out") == [path]
    with pytest.raises(DataError, match=f"damaged: {path}; delete that and give the command"):
        data.load(prepared)


def test_what_was_refused_is_refused_or_skipped_when_it_is_read(root, tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    (root / "train_images/1.2.4/13.dcm").write_bytes(b"no CT slice")
    skipping = config(root, on_bad_file="skip")
    prepare_archive(skipping, tmp_path / "out", in_this_process)
    reading = dataclasses.replace(skipping, root=str(tmp_path / "out"), image_size=32)
    assert [name for name, _ in data.load(reading).bad_files] == ["train_images/1.2.4/13.dcm"]
    assert shards.refused_files(tmp_path / "out") == list(data.load(reading).bad_files)
    with pytest.raises(DataError, match="1 of 8 files cannot be used"):
        data.load(dataclasses.replace(reading, on_bad_file="error"))


def test_a_folder_that_was_prepared_anew_is_read_anew(prepared, root, tmp_path):
    first = data.load(prepared).fingerprint
    (root / "train_images/1.2.4/13.dcm").unlink()
    for path in (tmp_path / "out").glob("*.tfrecord-*"):
        path.unlink()
    prepare_archive(config(root), tmp_path / "out", in_this_process)
    second = data.load(prepared)
    assert len(second) == 7
    assert second.fingerprint != first
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1  # the earlier one is removed
