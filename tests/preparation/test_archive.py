import csv

import pytest
import tensorflow_datasets as tfds
from challenge_folder import BOX_HEAD, BOXES, write_table
from prepared_folders import config, content, in_this_process, write_archive

from msa_flax.data.examples import DataError
from msa_flax.preparation.archive import prepare_archive
from msa_flax.preparation.tasks import PreparationError


@pytest.fixture
def root(tmp_path):
    return write_archive(tmp_path / "challenge")


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_folder_is_a_tfds_data_set_of_the_labelled_slices(root, tmp_path):
    found = prepare_archive(config(root), tmp_path / "out", in_this_process)
    assert found == {"studies": 2, "slices": 8, "positive": 2, "refused": 0, "kept": 0}
    rows = table(tmp_path / "out/studies.csv")
    assert [(row["study"], row["slices"], row["positive"]) for row in rows] == [
        ("1.2.3", "2", "2"),
        ("1.2.4", "6", "0"),
    ]
    builder = tfds.builder_from_directory(tmp_path / "out")
    assert builder.info.splits["slices"].shard_lengths == [2, 6]
    examples = list(tfds.as_numpy(builder.as_dataset(split="slices")))
    assert [one["example_id"].decode() for one in examples[:3]] == [
        "train_images/1.2.3/12.dcm",
        "train_images/1.2.3/13.dcm",
        "train_images/1.2.4/11.dcm",
    ]
    assert [int(one["label"]) for one in examples] == [1, 1, *[0] * 6]
    first = examples[0]
    assert first["image"].shape == (32, 32, 1)
    assert (first["group"], first["study"], first["family"]) == (b"1.2.3", b"1.2.3", b"")
    assert (first["slice_index"], first["height"], first["width"]) == (12, 32, 32)


def test_the_same_again_does_nothing_and_leaves_the_same_bytes(root, tmp_path):
    prepare_archive(config(root), tmp_path / "out", in_this_process)
    before = content(tmp_path / "out")
    found = prepare_archive(config(root), tmp_path / "out", lambda _: pytest.fail("nothing to do"))
    assert found["kept"] == 2
    assert content(tmp_path / "out") == before


def test_an_archive_that_has_moved_is_the_same_one(root, tmp_path):
    prepare_archive(config(root), tmp_path / "out", in_this_process)
    moved = root.rename(tmp_path / "elsewhere")
    assert prepare_archive(config(moved), tmp_path / "out", in_this_process)["kept"] == 2


def test_what_is_gone_or_cut_off_is_written_again(root, tmp_path):
    prepare_archive(config(root), tmp_path / "out", in_this_process)
    before = content(tmp_path / "out")
    first, second = sorted((tmp_path / "out").glob("*.tfrecord-*"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    assert prepare_archive(config(root), tmp_path / "out", in_this_process)["kept"] == 0
    assert content(tmp_path / "out") == before


def test_a_folder_of_other_settings_tables_or_files_is_left_alone(root, tmp_path):
    prepare_archive(config(root), tmp_path / "out", in_this_process)
    before = content(tmp_path / "out")

    def refused(reason, **changes):
        with pytest.raises(PreparationError, match=reason):
            prepare_archive(config(root, **changes), tmp_path / "out", in_this_process)
        assert content(tmp_path / "out") == before

    refused(r"window_width 1800\.0 \(not 2000\.0\)", window_width=2000.0)
    refused(r"rsna_beyond 0\.0 \(not 4\.0\)", rsna_beyond=4.0)
    write_table(root / "train_bounding_boxes.csv", BOX_HEAD, BOXES[:1])
    refused("another train_bounding_boxes.csv")
    write_table(root / "train_bounding_boxes.csv", BOX_HEAD, BOXES)
    slice_ = root / "train_images/1.2.4/12.dcm"
    slice_.write_bytes(slice_.read_bytes() + b"\0\0")
    refused(r"other files than there are now: rsna2022-slices\.tfrecord-00001-of-00002; delete")


def test_a_folder_that_holds_something_else_is_refused(root, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").touch()
    with pytest.raises(PreparationError, match="holds other files than a prepared folder's"):
        prepare_archive(config(root), tmp_path / "out", in_this_process)


def test_what_is_refused_is_listed_and_a_study_without_slices_is_an_empty_file(root, tmp_path):
    for path in (root / "train_images/1.2.4").iterdir():
        path.write_bytes(b"no CT slice")
    with pytest.raises(DataError, match=r"6 of 8 files cannot be used: train_images/1\.2\.4/11"):
        prepare_archive(config(root), tmp_path / "out", in_this_process)
    assert not (tmp_path / "out/dataset_info.json").exists()
    assert len(table(tmp_path / "out/refused.csv")) == 6
    skipping = config(root, on_bad_file="skip")
    found = prepare_archive(skipping, tmp_path / "out", lambda _: pytest.fail("all is done"))
    assert (found["slices"], found["refused"]) == (2, 6)
    assert (tmp_path / "out/rsna2022-slices.tfrecord-00001-of-00002").read_bytes() == b""
    builder = tfds.builder_from_directory(tmp_path / "out")
    assert len(list(builder.as_dataset(split="slices"))) == 2


def test_a_refused_study_that_was_repaired_is_prepared(root, tmp_path):
    (root / "train_images/1.2.4").rename(tmp_path / "lost")
    skipping = config(root, on_bad_file="skip")
    assert prepare_archive(skipping, tmp_path / "out", in_this_process)["slices"] == 2
    (row,) = table(tmp_path / "out/refused.csv")
    assert row == {"path": "train_images/1.2.4", "reason": "no such folder, train.csv names it"}
    (tmp_path / "lost").rename(root / "train_images/1.2.4")
    found = prepare_archive(skipping, tmp_path / "out", in_this_process)
    assert (found["slices"], found["kept"], found["refused"]) == (8, 1, 0)
