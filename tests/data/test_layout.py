"""Folders are understood as they are meant, or refused with a true reason."""

import os
import unicodedata

import pytest
from image_folders import write_data_set, write_image

from msa_flax import data
from msa_flax.config import DataConfig
from msa_flax.data.folder import list_folder
from msa_flax.data.splits import assign_splits


def config(root, **options):
    options = {"protocol": "published", "family_pattern": "", "group_pattern": ""} | options
    return DataConfig(source="folder", root=str(root), image_size=32, **options)


def folders(*parts):
    return [f"{part}/{name}" for part in parts for name in ("normal", "fracture")]


@pytest.mark.parametrize(
    "parts", [("train", "valid", "test"), ("Training", "validation", "testing")]
)
def test_a_test_folder_is_the_test_split_and_val_the_validation_split(tmp_path, parts, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    root = write_data_set(tmp_path / "set", folders=folders(*parts))
    options = config(root)
    examples = data.load(options)
    assert examples.parts == ["train", "val", "test"]
    splits = assign_splits(examples, options, seed=0)
    for name, split in zip(splits.example_id, splits.split, strict=True):
        wanted = dict(zip(parts, ("train", "validation", "test"), strict=True))
        assert split == wanted[str(name).partition("/")[0]]


def test_without_a_val_folder_validation_is_drawn_from_train(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    root = write_data_set(tmp_path / "set", folders=folders("train", "test"), count=10)
    options = config(root)
    splits = assign_splits(data.load(options), options, seed=0)
    for name, split in zip(splits.example_id, splits.split, strict=True):
        assert (split == "test") == str(name).startswith("test/")
    assert (splits.split == "validation").sum() == 4


def test_pipes_and_devices_are_bad_files_and_not_waited_for(tmp_path):
    root = write_data_set(tmp_path / "set")
    for name in ("pipe.png", "pipe"):
        os.mkfifo(root / "train/normal" / name)
    (root / "val/normal/zero.png").symlink_to("/dev/zero")
    reason = "no file: a pipe, a socket or a device"
    assert list_folder(root, config(root), layout="parts").bad_files == tuple(
        (name, reason)
        for name in ("train/normal/pipe", "train/normal/pipe.png", "val/normal/zero.png")
    )


@pytest.mark.parametrize(
    "name",
    [
        "at 9.52\u202fAM.png",
        "頸椎\u3000001.png",
        "a\u00a0b.png",
        "\u0646\u200c\u062f.png",
        "\u200eIMG.png",
    ],
)
def test_spaces_and_joiners_of_other_scripts_are_part_of_a_name(tmp_path, name):
    root = write_data_set(tmp_path / "set")
    write_image(root / "train/normal" / name)
    for layout in ("any", "parts"):
        found = list_folder(root, config(root), layout=layout)
        assert f"train/normal/{name}" in [file.example_id for file in found.files]
        assert not found.bad_files


@pytest.mark.parametrize("name", ["a\tb.png", "a\u2028b.png", "a\u202egnp.b.png"])
def test_names_that_would_garble_a_table_are_bad_files(tmp_path, name):
    root = write_data_set(tmp_path / "set")
    write_image(root / "train/normal" / name)
    ((shown, reason),) = list_folder(root, config(root), layout="parts").bad_files
    assert reason == "unprintable file name"
    assert shown.isprintable()


def test_both_forms_of_a_unicode_name_are_one_name(tmp_path):
    composed, ids = "fractur\u00e9", []
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, composed)
        root = write_data_set(
            tmp_path / form, folders=[f"{p}/{c}" for p in ("train", "val") for c in ("sain", name)]
        )
        write_image(root / "train" / name / unicodedata.normalize(form, "é.png"))
        for other in ("NFC", "NFD"):
            options = config(root, classes=("sain", unicodedata.normalize(other, composed)))
            for layout in ("any", "parts"):
                found = list_folder(root, options, layout=layout)
                assert {file.label for file in found.files if "fractur" in file.example_id} == {1}
                ids.append([file.example_id for file in found.files])
    assert all(one == ids[0] for one in ids)
    assert ids[0] == [unicodedata.normalize("NFC", one) for one in ids[0]]
    write_image(root / "train" / name / unicodedata.normalize("NFC", "é.png"))
    bad = list_folder(root, options, layout="parts").bad_files
    assert len(bad) == 2
    assert "two forms of Unicode" in bad[0][1]


def test_thumbnails_and_hidden_files_are_passed_over_and_counted(tmp_path, caplog):
    root = write_data_set(tmp_path / "set")
    for place in ("train/normal/@eaDir/a.png", "val/fracture/.thumbnails", "__MACOSX/train/normal"):
        write_image(root / place / "SYNO.jpg")
    write_image(root / "train/normal/._a.png")
    (root / "README.txt").write_text("x")
    with caplog.at_level("INFO", "msa_flax"):
        found = list_folder(root, config(root), layout="any")
    assert len(found.files) == 8
    assert {file.group for file in found.files} == {""}
    assert found.bad_files == ()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("understood as PART/CLASS/file: 2 parts (train, val), 2 classes (")
    assert "8 images" in said
    assert "passed over, hidden or no images: 5" in said
    assert "@eaDir" in said


def test_images_of_other_types_are_counted_wherever_they_lie(tmp_path):
    root = write_data_set(tmp_path / "set")
    for place in ("train/sprain/a.tif", "b.DCM", "extra/c.nii.gz"):
        path = root / place
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = list_folder(root, config(root), layout="any")
    assert [name for name, _ in found.bad_files] == [
        "b.DCM",
        "extra/c.nii.gz",
        "train/sprain/a.tif",
    ]


def test_a_class_all_of_whose_images_are_of_another_type_is_named(tmp_path):
    root = write_data_set(tmp_path / "set", folders=["normal"])
    (root / "fracture").mkdir()
    (root / "fracture/a.tif").write_bytes(b"x")
    with pytest.raises(data.DataError, match=r"only the class normal; fracture/a.tif: wrong ext"):
        list_folder(root, config(root), layout="any")


def test_parts_inside_class_folders_are_parts(tmp_path, caplog):
    root = write_data_set(
        tmp_path / "set",
        folders=[f"{c}/{p}" for c in ("normal", "fracture") for p in ("train", "val")],
    )
    with caplog.at_level("INFO", "msa_flax"):
        found = list_folder(root, config(root), layout="any")
    assert {file.part for file in found.files} == {"train", "val"}
    assert {file.group for file in found.files} == {""}
    assert "understood as CLASS/PART/file: 2 parts" in caplog.text
    write_image(root / "normal/patient/a.png")
    with pytest.raises(data.DataError, match=r"hold parts .* and other folders"):
        list_folder(root, config(root), layout="any")


@pytest.mark.parametrize(
    "names",
    [
        [f"train_images/1.2.826.0.1.3680043.{1000 + i}" for i in range(2)],
        [f"train/patient_{i}" for i in range(2)],
        [f"{i:03d}" for i in range(12)],
        [f"B{i}/{name}" for i in range(2) for name in ("normal", "fracture")],
    ],
    ids=["studies", "patients", "many numbers", "patient/class"],
)
def test_folders_of_patients_are_not_taken_for_classes(tmp_path, names):
    root = write_data_set(tmp_path / "set", folders=names)
    with pytest.raises(data.DataError, match="no labels in this layout"):
        list_folder(root, config(root), layout="any")


@pytest.mark.parametrize("classes", [("0", "1"), ("C1", "C2", "C3"), ("grade 1", "grade 2")])
def test_classes_that_differ_by_a_number_are_classes(tmp_path, classes):
    root = write_data_set(tmp_path / "set", folders=[f"train/{name}" for name in classes])
    found = list_folder(root, config(root), layout="any")
    assert found.classes == tuple(name.casefold() for name in classes)


def test_folders_beside_parts_are_no_classes(tmp_path):
    root = write_data_set(tmp_path / "set")
    write_image(root / "extra/a.png")
    found = list_folder(root, config(root), layout="any")
    assert found.classes == ("normal", "fracture")
    assert found.bad_files == (("extra/a.png", "not inside a class folder"),)


def test_a_root_that_cannot_be_read_says_so(tmp_path, monkeypatch):
    def scandir(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    for layout in ("any", "parts"):
        with pytest.raises(data.DataError, match="cannot be read: Permission denied"):
            list_folder(tmp_path, config(tmp_path), layout=layout)


def test_slices_that_are_no_numbers_count_as_unknown_with_a_warning(tmp_path, caplog):
    root = write_data_set(tmp_path / "set")
    names = {"S_20220714123456.png": 20220714123456, f"S_{10**18}.png": -1, "S_7a.png": -1}
    for name in names:
        write_image(root / "train/normal" / name)
    options = config(root, family_pattern=r"^(?P<family>S_(?P<slice>\w+))")
    found = {file.path.name: file for file in list_folder(root, options, layout="parts").files}
    assert {name: found[name].slice_index for name in names} == names
    assert "no number of at most 18 digits in 2 files" in caplog.text


def test_a_replaced_image_of_the_same_size_and_time_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    root = write_data_set(tmp_path / "set")
    path = sorted((root / "train/normal").iterdir())[0]
    before, status = data.load(config(root)).fingerprint, path.stat()
    write_image(path, seed=99)
    content = path.read_bytes()
    path.write_bytes(content + bytes(max(0, status.st_size - len(content))))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert data.load(config(root)).fingerprint != before


def loaded(tmp_path, monkeypatch, folders, **options):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    root = write_data_set(tmp_path / "set", folders=folders)
    options = {"group_pattern": "^no (?P<group>.)", "protocol": "kfold", "folds": 2} | options
    chosen = config(root, **options)
    return data.load(chosen), chosen


PATIENTS = [f"{name}/P{i}" for i in range(6) for name in ("normal", "fracture")]


@pytest.mark.parametrize("inside", ["", "/ct 1"])
def test_class_folders_without_parts_are_split_by_the_patients_inside(
    tmp_path, monkeypatch, inside, caplog
):
    caplog.set_level("INFO", "msa_flax")
    examples, options = loaded(tmp_path, monkeypatch, [f"{p}{inside}" for p in PATIENTS])
    assert "understood as CLASS/GROUP/file: 2 classes" in caplog.text
    assert examples.group.tolist() == [one.split("/")[1] for one in examples.example_id.tolist()]
    assert set(examples.part) == {""}
    splits = assign_splits(examples, options, seed=0)
    for group in set(examples.group.tolist()):
        assert len(set(splits.split[examples.group == group].tolist())) == 1


def test_parts_are_read_too_where_the_protocol_does_not_need_them(tmp_path, monkeypatch):
    places = [f"{part}/{one}" for part in ("train", "val") for one in PATIENTS]
    examples, _ = loaded(tmp_path, monkeypatch, places)
    assert examples.parts == ["train", "val"]
    assert set(examples.group) == {f"P{i}" for i in range(6)}


def test_names_without_a_patient_get_a_pattern_that_is_made_from_them(tmp_path, monkeypatch):
    root = tmp_path / "set"
    for i in range(16):
        write_image(root / ("normal", "fracture")[i % 2] / f"P{i // 4}_{i}.png", seed=i)
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    options = config(root, protocol="kfold", folds=2, group_pattern="^(?P<group>CT)")
    with pytest.raises(data.DataError, match=r"group_pattern: the pattern '(.*?)' finds 4") as said:
        assign_splits(data.load(options), options, seed=0)
    pattern = str(said.value).partition("the pattern '")[2].partition("' finds")[0]
    options = config(root, protocol="kfold", folds=2, group_pattern=pattern)
    splits = assign_splits(data.load(options), options, seed=0)
    assert set(splits.split) == {"train", "validation", "test"}


def test_a_protocol_that_needs_parts_says_so_and_names_the_one_that_does_not(tmp_path):
    root = write_data_set(tmp_path / "set", folders=["normal", "fracture"])
    with pytest.raises(
        data.DataError, match=r"train/ and val/.*kfold splits class folders without"
    ):
        list_folder(root, config(root), layout="parts")
