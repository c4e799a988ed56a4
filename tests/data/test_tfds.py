"""A folder is prepared once, quietly and whole, and read back as its files say."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from image_folders import FOLDERS, config, write_data_set, write_image

from msa_flax import data
from msa_flax.data import DataError
from msa_flax.data.images import preprocess, read_image


def names_of_copies(cache):
    return sorted(path.name for path in (cache / "datasets" / "folder").iterdir() if path.is_dir())


def same_fields(a, b):
    of_files = ("facts", "file_hash")  # known where the files themselves were read
    names = [field.name for field in dataclasses.fields(a) if field.name not in of_files]
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def test_a_folder_is_loaded_with_everything_its_names_say(root):
    examples = data.load(config(root))
    assert examples.example_id.tolist() == [
        "train/fracture/CSFDV1B11 (1)-rotated0.png",
        "train/fracture/CSFDV1B11 (2)-rotated1.png",
        "train/normal/CSFDV1B10 (1)-rotated0.png",
        "train/normal/CSFDV1B10 (2)-rotated1.png",
        "val/fracture/CSFDV1B13 (1)-rotated0.png",
        "val/fracture/CSFDV1B13 (2)-rotated1.png",
        "val/normal/CSFDV1B12 (1)-rotated0.png",
        "val/normal/CSFDV1B12 (2)-rotated1.png",
    ]
    assert examples.label.tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert examples.part.tolist() == ["train"] * 4 + ["val"] * 4
    assert examples.group.tolist() == ["B11", "B11", "B10", "B10", "B13", "B13", "B12", "B12"]
    assert examples.family[0] == "CSFDV1B11 (1)"
    assert examples.slice_index.tolist() == [1, 2] * 4
    assert examples.height.tolist() == examples.width.tolist() == [40] * 8
    assert examples.masks is None
    assert examples.bad_files == ()
    for name, image in zip(examples.example_id, examples.images, strict=True):
        assert np.array_equal(image, read_image(root / name))


def test_the_second_load_decodes_no_file_and_is_the_same(root, monkeypatch):
    first = data.load(config(root))
    monkeypatch.setattr(
        "msa_flax.data.tfds.read_image", lambda path, _: pytest.fail(f"read {path}")
    )
    assert same_fields(first, data.load(config(root)))


def test_images_are_resized_when_read_so_one_copy_serves_every_size(root, cache):
    large, small = (data.load(config(root, image_size=size)) for size in (40, 32))
    assert small.images.shape == (8, 32, 32)
    assert np.array_equal(small.images[3], preprocess(large.images[3], size=32))
    assert len(names_of_copies(cache)) == 1


def test_the_order_never_depends_on_the_file_system(tmp_path, cache):
    examples = []
    for name, folders in (("a", FOLDERS), ("b", FOLDERS[::-1])):
        for place in folders:
            shutil.copytree(write_data_set(tmp_path / "once") / place, tmp_path / name / place)
        examples.append(data.load(config(tmp_path / name)))
    assert same_fields(*examples)


@pytest.mark.parametrize("change", ["add", "remove", "rewrite", "rename"])
def test_a_changed_folder_is_prepared_anew_and_the_old_copy_goes(root, cache, change):
    before, old = data.load(config(root)), (names_of_copies(cache))
    path = root / "train/normal/CSFDV1B10 (1)-rotated0.png"
    if change == "add":
        write_image(path.with_name("new.png"), seed=99)
    elif change == "remove":
        path.unlink()
    elif change == "rewrite":
        write_image(path, seed=99)
        os.utime(path, ns=(1, 1))  # even if the clock is too coarse to show it
    else:
        path.rename(path.with_name("CSFDV1B10 (7).png"))
    after, new = data.load(config(root)), names_of_copies(cache)
    assert after.fingerprint != before.fingerprint
    assert len(new) == 1
    assert new != old


def test_copies_of_other_folders_and_other_files_in_the_cache_stay(root, tmp_path, cache):
    data.load(config(root))
    (cache / "mine.txt").write_text("x")
    other = write_data_set(tmp_path / "other")
    data.load(config(other))
    write_image(other / "val/normal/new.png", seed=5)
    data.load(config(other))
    assert len(names_of_copies(cache)) == 2
    assert (cache / "mine.txt").exists()


def test_class_folders_decide_the_label_by_their_place_in_the_configuration(root):
    usual = data.load(config(root))
    swapped = data.load(config(root, classes=("fracture", "normal")))
    assert np.array_equal(swapped.label, 1 - usual.label)
    assert np.array_equal(swapped.example_id, usual.example_id)


def test_names_that_fit_no_pattern_leave_groups_and_families_unknown(root):
    examples = data.load(config(root, family_pattern="", group_pattern="^(?P<group>XYZ)"))
    assert not examples.groups_known
    assert set(examples.family) == set(examples.group) == {""}
    assert set(examples.slice_index) == {-1}


def test_upper_case_jpeg_and_a_wrapping_folder_are_understood(tmp_path, cache):
    inner = tmp_path / "set" / "Archive (1)"
    for place in ("TRAIN/Normal", "TRAIN/FRACTURE", "Val/normal", "Val/fracture"):
        write_image(inner / place / "a.PNG", seed=1)
        write_image(inner / place / "b.JPeG", seed=2)
        write_image(inner / place / "ü.jpg", seed=3)
    (tmp_path / "set" / "__MACOSX").mkdir()
    (inner / ".DS_Store").write_text("x")
    (inner / "TRAIN" / "Normal" / "Thumbs.db").write_text("x")
    (inner / "README.txt").write_text("where it comes from")
    examples = data.load(config(tmp_path / "set"))
    assert len(examples) == 12
    assert examples.example_id[0] == "TRAIN/FRACTURE/a.PNG"
    assert set(examples.part) == {"train", "val"}
    assert examples.bad_files == ()


def refusal(root, match, **options):
    with pytest.raises(DataError, match=match) as caught:
        data.load(config(root, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def add_bad_files(root):
    """Adds files that cannot be used; returns how each is reported."""
    write_image(root / "train/normal/tiny.png", size=8)
    (root / "train/normal/empty.png").write_bytes(b"")
    (root / "val/fracture/text.png").write_text("not an image")
    (root / "val/fracture/slice.dcm").write_bytes(b"DICM")
    write_image(root / "val/loose.png")
    return (
        ("train/normal/empty.png", "empty file"),
        ("train/normal/tiny.png", "8 x 8 pixels, expected 32 or more a side"),
        ("val/fracture/slice.dcm", "not a PNG, JPEG or DICOM image"),
        ("val/fracture/text.png", "not a PNG, JPEG or DICOM image"),
        ("val/loose.png", "not inside a class folder"),
    )


def test_bad_files_are_refused_together_with_their_reasons(root):
    bad = add_bad_files(root)
    for _ in range(2):  # when the folder is prepared, and from the prepared copy
        message = refusal(root, "5 of 13 files cannot be used: .*data.on_bad_file=skip")
        assert all(f"{name}: {reason}" in message for name, reason in bad)


def test_skipped_files_are_listed_also_from_the_prepared_copy(root):
    clean = data.load(config(root))
    bad = add_bad_files(root)
    for _ in range(2):
        examples = data.load(config(root, on_bad_file="skip"))
        assert examples.bad_files == bad
        assert examples.fingerprint == clean.fingerprint


def test_a_repaired_folder_loads_again(root):
    names = [name for name, _ in add_bad_files(root)]
    refusal(root, "cannot be used")
    for name in names:
        (root / name).unlink()
    assert len(data.load(config(root))) == 8


def test_only_the_first_ten_bad_files_are_spelled_out(root):
    for k in range(12):
        (root / f"val/normal/bad{k:02}.png").write_bytes(b"")
    message = refusal(root, "12 of 20 files cannot be used")
    assert message.count("empty file") == 10
    assert "and 2 more" in message


def test_a_part_without_a_single_good_file_is_refused_even_when_skipping(root):
    for path in (root / "val").glob("*/*.png"):
        path.write_bytes(b"")
    message = refusal(root, "4 of 4 files cannot be used", on_bad_file="skip")
    assert "on_bad_file" not in message
    assert len(data.load(config(write_data_set(root), on_bad_file="skip"))) == 8


def test_links_that_lead_nowhere_are_bad_files(root):
    (root / "val/normal/link.png").symlink_to(root / "nowhere.png")
    refusal(root, "link.png: cannot be read: No such file")


def test_file_names_that_cannot_be_written_down_are_bad_files(root):
    try:
        write_image(pathlib.Path(os.fsdecode(os.fsencode(root) + b"/val/normal/\xff.png")))
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    write_image(root / "val/normal/line\nbreak.png")
    message = refusal(root, "2 of 10 files cannot be used")
    assert message.count("unprintable file name") == 2


def test_a_cache_that_cannot_be_written_is_refused(root, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "file"))
    refusal(root, "name another cache in MSA_FLAX_CACHE")


def test_two_processes_load_at_once_saying_nothing_and_without_a_network(root):
    code = f"from msa_flax import config, data; data.load(config.DataConfig(root={str(root)!r}))"
    nowhere = "http://127.0.0.1:9"  # nobody listens there
    environment = os.environ | {"http_proxy": nowhere, "https_proxy": nowhere}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, **options) for _ in range(2)
    ]
    assert [process.communicate()[0] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]


def test_an_external_set_needs_no_parts(tmp_path, root):
    write_data_set(tmp_path / "external", folders=["Fracture", "normal"])
    examples = data.load_external(tmp_path / "external", config("unused"))
    assert set(examples.part) == {""}
    assert examples.label.tolist() == [1, 1, 0, 0]
    assert examples.example_id[0] == "Fracture/CSFDV1B10 (1)-rotated0.png"
    assert same_fields(data.load_external(root, config("unused")), data.load(config(root)))


def test_an_external_set_reports_bad_files_as_configured(root):
    bad = add_bad_files(root)
    with pytest.raises(DataError, match="5 of 13 files cannot be used"):
        data.load_external(root, config(""))
    assert data.load_external(root, config("", on_bad_file="skip")).bad_files == bad


def test_every_door_equalises_and_one_prepared_copy_serves_all(root, cache):
    found = {}
    for equalize in ("none", "histogram", "clahe", "none"):  # again, after the others
        options = config(root, image_size=32, equalize=equalize)
        examples = data.load(options)
        expected = [
            preprocess(read_image(root / name), size=32, equalize=equalize)
            for name in examples.example_id
        ]
        assert np.array_equal(examples.images, expected)
        assert np.array_equal(data.load_external(root, options).images, expected)
        found[equalize] = examples.fingerprint
    assert len(set(found.values())) == 3
    assert len(names_of_copies(cache)) == 1  # it holds the pixels of the files
