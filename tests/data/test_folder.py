import shutil

import cv2
import numpy as np
import pytest

from msa_flax.config import DataConfig
from msa_flax.data import DataError
from msa_flax.data.folder import list_folder

FOLDERS = [f"{part}/{name}" for part in ("train", "val") for name in ("normal", "fracture")]


def write_image(path, *, seed=0, size=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    path.write_bytes(cv2.imencode(path.suffix.lower(), pixels)[1].tobytes())
    return pixels


def make_tree(root, *, folders=FOLDERS, count=2):
    for i, place in enumerate(folders):
        for k in range(count):
            write_image(root / place / f"CSFDV1B1{i} ({k + 1})-rotated{k}.png", seed=10 * i + k)
    return root


@pytest.fixture
def root(tmp_path):
    return make_tree(tmp_path / "set")


def refused(root, match):
    with pytest.raises(DataError, match=match) as caught:
        list_folder(root, DataConfig(), layout="parts")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_root_that_is_missing_a_file_or_empty_is_refused(tmp_path):
    refused(tmp_path / "none", "expected a folder .*none'")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "expected a folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "train/ and val/, each with normal/ and fracture/ .* found nothing")


def test_a_folder_of_something_else_is_refused_with_what_was_found(tmp_path):
    write_image(tmp_path / "set/photos/a.png")
    write_image(tmp_path / "set/b.png")
    refused(tmp_path / "set", "found photos/ and 1 files")


def test_two_data_sets_in_one_folder_are_refused(tmp_path):
    make_tree(tmp_path / "set/a")
    make_tree(tmp_path / "set/b")
    refused(tmp_path / "set", "found a/, b/")


def test_everything_wrong_with_the_folders_is_said_at_once(root):
    shutil.rmtree(root / "val/fracture")
    make_tree(root, folders=["train/sprain", "test/normal"])
    for path in (root / "train/normal").iterdir():
        path.unlink()
    message = refused(root, "expected train/ and val/")
    for part in (
        "unknown folder test/",
        "unknown folder sprain/ (2 files) in train/",
        "train/normal/ has no images",
        "no fracture/ in val/",
    ):
        assert part in message


def test_a_missing_part_is_refused(root):
    shutil.rmtree(root / "val")
    refused(root, "found: no val/")


def test_a_folder_that_is_there_in_two_spellings_is_refused(root):
    write_image(root / "train/Normal/a.png")
    refused(root, "Normal/ and normal/ are the same in train/")


def test_folders_inside_a_class_folder_are_refused(root):
    write_image(root / "train/normal/more/a.png")
    refused(root, "unknown folder more/ in train/normal/")


def test_an_external_set_with_one_part_is_refused(root):
    shutil.rmtree(root / "train")
    with pytest.raises(DataError, match="no train/"):
        list_folder(root, DataConfig(), layout="classes")
