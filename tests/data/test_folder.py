import shutil

import pytest
from image_folders import write_data_set, write_image

from msa_flax.config import DataConfig
from msa_flax.data import DataError
from msa_flax.data.folder import list_folder


@pytest.fixture
def root(tmp_path):
    return write_data_set(tmp_path / "set")


def refusal(root, match):
    with pytest.raises(DataError, match=match) as caught:
        list_folder(root, DataConfig(), layout="parts")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_root_that_is_missing_a_file_or_empty_is_refused(tmp_path):
    refusal(tmp_path / "none", "expected a folder .*none'")
    (tmp_path / "file").write_text("x")
    refusal(tmp_path / "file", "expected a folder")
    (tmp_path / "empty").mkdir()
    refusal(tmp_path / "empty", "train/ and val/, each with normal/ and fracture/ .* found nothing")


def test_a_folder_of_something_else_is_refused_with_what_was_found(tmp_path):
    write_image(tmp_path / "set/photos/a.png")
    write_image(tmp_path / "set/b.png")
    refusal(tmp_path / "set", "found photos/ and 1 files")


def test_two_data_sets_in_one_folder_are_refused(tmp_path):
    write_data_set(tmp_path / "set/a")
    write_data_set(tmp_path / "set/b")
    refusal(tmp_path / "set", "found a/, b/")


def test_everything_wrong_with_the_folders_is_said_at_once(root):
    shutil.rmtree(root / "val/fracture")
    write_data_set(root, folders=["train/sprain", "exam/normal"])
    for path in (root / "train/normal").iterdir():
        path.unlink()
    message = refusal(root, "expected train/ and val/")
    for part in (
        "unknown folder exam/ (2 files)",
        "unknown folder sprain/ (2 files) in train/",
        "train/normal/ has no images",
        "no fracture/ in val/",
    ):
        assert part in message


def test_a_missing_part_is_refused(root):
    shutil.rmtree(root / "val")
    refusal(root, "found: no val/")


def test_a_folder_that_is_there_in_two_spellings_is_refused(root):
    write_image(root / "train/Normal/a.png")
    refusal(root, "Normal/ and normal/ are the same in train/")


def test_folders_inside_a_class_folder_are_refused(root):
    write_image(root / "train/normal/more/a.png")
    refusal(root, "unknown folder more/ in train/normal/")


def test_one_part_is_enough_to_evaluate_and_not_to_train(root):
    shutil.rmtree(root / "train")
    with pytest.raises(DataError, match="no train/"):
        list_folder(root, DataConfig(), layout="classes")
    listing = list_folder(root, DataConfig(), layout="external")
    assert {file.part for file in listing.files} == {"val"}


def test_a_pattern_that_takes_for_ever_is_refused(root, monkeypatch):
    monkeypatch.setattr("msa_flax.data.folder._PATTERN_SECONDS", 0.2)
    write_image(root / f"train/normal/{'a' * 40}.png")
    slow = DataConfig(group_pattern="^(?P<group>(a+)+)$")
    with pytest.raises(DataError, match=r"data\.group_pattern"):
        list_folder(root, slow, layout="parts")
