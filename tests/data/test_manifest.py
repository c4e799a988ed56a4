"""A table of labels is read as spreadsheets write it, or everything wrong with it is said."""

import os

import pytest
from image_folders import write_image

from msa_flax import data
from msa_flax.config import DataConfig
from msa_flax.data.manifest import has_splits, list_manifest
from msa_flax.data.splits import assign_splits

CONFIG = DataConfig(source="manifest", manifest="t.csv", image_size=32, families="names")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))


def write(folder, text, *, encoding="utf-8", images=("a.png", "b.png")):
    for i, name in enumerate(images):
        write_image(folder / name, seed=i)
    path = folder / "t.csv"
    path.write_bytes(text.encode(encoding))
    return path


def refused(path, *parts, **options):
    with pytest.raises(data.DataError) as caught:
        list_manifest(path, CONFIG, **options)
    said = str(caught.value)
    assert "\n" not in said
    for part in parts:
        assert part in said
    return said


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,label,group\na.png,normal,P1\nb.png,fracture,P 2\n", "utf-8"),
        ("path;label;group\r\na.png;0;P1\r\nb.png;1;P 2\r\n;;\r\n", "utf-8-sig"),
        ("Path\tLABEL\tGroup\r\n a.png \t0\tP1\r\nb.png\t1.0\tP 2\r\n", "utf-16"),
        ('sep=;\r\n"path";"label";"group"\r\n"a.png";"NORMAL";"P1"\r\n"b.png";1;"P 2"', "cp1252"),
        ("path,label,group\ra.png,normal,P1\rb.png,fracture,P 2\r", "utf-8"),
        ("group,label,path,age\nP1,0,./a.png,3\nP 2,1,x/../b.png,4\n", "utf-8"),
    ],
    ids=[
        "commas",
        "semicolons and a mark",
        "tabs, UTF-16",
        "sep= and quotes",
        "old Mac",
        "other columns",
    ],
)
def test_tables_of_spreadsheets_say_the_same(tmp_path, text, encoding, caplog):
    caplog.set_level("INFO", "msa_flax")
    found = list_manifest(write(tmp_path, text, encoding=encoding), CONFIG)
    assert [(f.example_id, f.label, f.group) for f in found.files] == [
        ("a.png", 0, "P1"),
        ("b.png", 1, "P 2"),
    ]
    (said,) = [record.getMessage() for record in caplog.records]
    assert "t.csv: 2 images: 1 normal, 1 fracture" in said
    assert ("columns that are not read: age" in said) == ("age" in text)


def test_every_column_is_read_and_names_tell_the_rest(tmp_path):
    names = ["CSFDV1B10 (18)-x.png", "CSFDV1B11 (19)-x.png"]
    text = "path,label,group,study,family,slice_index,split\n"
    text += f"{names[0]},1,G,S,F,7,Validation\n{names[1]},0,,,,,testing\n"
    first, second = list_manifest(write(tmp_path, text, images=names), CONFIG).files
    assert (first.group, first.study, first.family, first.slice_index) == ("G", "S", "F", 7)
    assert (second.group, second.study) == ("B11", "")
    assert (second.family, second.slice_index) == ("CSFDV1B11 (19)", 19)
    assert (first.part, second.part) == ("val", "test")


def test_paths_may_be_absolute_of_windows_or_beyond_a_link(tmp_path):
    other = tmp_path / "other"
    write_image(other / "c.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/link").symlink_to(other)
    text = f"path,label\n{other / 'c.png'},0\nin\\d.png,1\n"
    path = write(tmp_path / "set", text, images=["in/d.png"])
    assert [f.example_id for f in list_manifest(path, CONFIG).files] == [
        (other / "c.png").as_posix(),
        "in/d.png",
    ]
    path.write_text(f"path,label\n{other / 'c.png'},0\nlink/c.png,1\n")
    refused(path, "row 3: path 'link/c.png' is the file of row 2 again")


def test_every_wrong_row_is_said_once(tmp_path):
    rows = [
        ("a.png", "frac", "", ""),
        ("none.png", "", "", ""),
        ("../a.png", "1", "", ""),
        ("", "1", "", ""),
        ("in", "1", "", ""),
        ("b.png", "", "", ""),
        ("c.png", "1", "exam", ""),
        ("d.png", "1", "", "-3"),
        ("e.png", "1", "", ""),
        ("./e.png", "1", "", ""),
    ]
    names = [f"{one}.png" for one in "abcde"]
    text = "path,label,split,slice_index\n" + "".join(",".join(row) + "\n" for row in rows)
    path = write(tmp_path, text, images=[*names, "in/f.png"])
    said = refused(
        path,
        "9 of 10 rows are wrong",
        "row 2: label is 'frac', expected normal, fracture, 0 or 1",
        "row 3: path 'none.png' is missing",
        "row 4: path '../a.png' leaves the table's folder",
        "row 5: path '' is no name",
        "row 6: path 'in' is a folder",
        "row 7: label is empty",
        "row 8: split 'exam', expected train, validation or test",
        "row 9: slice_index '-3', expected a whole number",
        "and 1 more",
    )
    assert said.count("row ") == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found nothing"),
        ("file,label\na.png,1\n", "found file, label"),
        ("path,label\n", "expected rows below"),
        ("path,label,label\na.png,1,1\n", "found twice: label"),
        ("path,label\na.png,1,2\n", "row 2 has 3 cells, expected 2"),
        ("path,label,split\na.png,1,train\nb.png,0,\n", "row 3: split is empty"),
        ("path,label\n" + "a" * 200_000, "field larger than field limit"),
    ],
)
def test_what_is_no_table_of_labels_is_refused(tmp_path, text, said):
    refused(write(tmp_path, text), "t.csv", said)


def test_a_missing_table_or_a_folder_is_refused(tmp_path):
    refused(tmp_path / "none.csv", "data.manifest", "none.csv cannot be read: No such file")
    refused(tmp_path, "data.manifest", "cannot be read: Is a directory")


def test_a_table_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    refused(tmp_path / "t.csv", "t.csv is no file: a pipe, a socket or a device")


def test_an_audit_takes_any_classes_and_training_the_configured_ones(tmp_path):
    path = write(tmp_path, "path,label\na.png,whole\nb.png,Broken\n")
    assert list_manifest(path, CONFIG, any_class=True).classes == ("broken", "whole")
    refused(path, "label is 'whole', expected normal, fracture, 0 or 1")
    path.write_text("path,label\na.png,whole\nb.png,WHOLE\n")
    refused(path, "two or more classes", any_class=True)


def patients(tmp_path, *, split=lambda i: "", group=lambda i: f"P{i // 4}"):
    images = [f"{i:02d}.png" for i in range(40)]
    rows = [f"{name},{i % 2},{group(i)},{split(i)}\n" for i, name in enumerate(images)]
    path = write(tmp_path, "path,label,group,split\n" + "".join(rows), images=images)
    return path, DataConfig(source="manifest", manifest=str(path), image_size=32, families="names")


@pytest.mark.parametrize("protocol", ["published", "kfold"])
def test_without_a_column_split_patients_stay_whole(tmp_path, protocol, caplog):
    caplog.set_level("INFO", "msa_flax")
    _, config = patients(tmp_path)
    config.protocol = protocol
    config = data.settled(config)
    assert config.protocol == "kfold"
    examples = data.load(config)
    splits = assign_splits(examples, config, seed=0)
    for group in set(examples.group.tolist()):
        assert len({*splits.split[examples.group == group].tolist()}) == 1
    assert {*splits.split} == {"train", "validation", "test"}
    assert "fold 0 of 5 is held out" in caplog.text


def test_a_split_does_not_depend_on_what_patients_are_called(tmp_path):
    found = []
    for i, prefix in enumerate(("a", "zz", "m")):
        _, config = patients(
            tmp_path / str(i), group=lambda k, p=prefix: f"{p}{hash((p, k // 4)) % 997}x{k // 4}"
        )
        config = data.settled(config)
        found.append(assign_splits(data.load(config), config, seed=3).split.tolist())
    assert found[0] == found[1] == found[2]


def test_a_column_split_is_followed(tmp_path):
    names = {0: "test", 1: "validation"}
    path, config = patients(tmp_path, split=lambda i: names.get(i // 8, "train"))
    assert has_splits(path)
    config.protocol = "kfold"
    config = data.settled(config)
    assert config.protocol == "published"
    splits = assign_splits(data.load(config), config, seed=0)
    for i, split in enumerate(splits.split):
        assert split == names.get(i // 8, "train")
    config.fold, config.protocol = 2, "kfold"
    with pytest.raises(data.DataError, match=r"data\.fold: .* there are no folds"):
        data.settled(config)


def test_validation_that_the_table_does_not_name_is_drawn_by_patient(tmp_path):
    _, config = patients(tmp_path, split=lambda i: "test" if i < 8 else "train")
    config = data.settled(config)
    examples = data.load(config)
    splits = assign_splits(examples, config, seed=0)
    for group in set(examples.group.tolist()):
        assert len({*splits.split[examples.group == group].tolist()}) == 1
    assert (splits.split == "validation").sum() == 8  # of 32, in patients of four images


def test_a_column_split_without_test_images_is_refused(tmp_path):
    _, config = patients(tmp_path, split=lambda i: "val" if i < 8 else "train")
    config = data.settled(config)
    with pytest.raises(data.DataError, match="must name images to test on, it has train, val"):
        assign_splits(data.load(config), config, seed=0)


def test_without_patients_the_column_group_is_asked_for(tmp_path):
    _, config = patients(tmp_path, group=lambda i: "")
    config = data.settled(config)
    with pytest.raises(data.DataError, match=r"40 images without one.*into the table's column gro"):
        assign_splits(data.load(config), config, seed=0)


def test_a_changed_table_is_read_again(tmp_path):
    path, config = patients(tmp_path)
    config = data.settled(config)
    before = data.load(config)
    path.write_text(path.read_text().replace("39.png,1", "39.png,0"))
    after = data.load(config)
    assert after.fingerprint != before.fingerprint
    assert after.label.sum() == before.label.sum() - 1
    assert after.images.shape == (40, 32, 32)
    os.remove(tmp_path / "07.png")
    with pytest.raises(data.DataError, match=r"row 9: path '07.png' is missing"):
        data.load(config)


def test_an_external_set_may_be_a_table(tmp_path):
    path, config = patients(tmp_path)
    examples = data.load_external(path, config)
    assert examples.example_id.tolist() == [f"{i:02d}.png" for i in range(40)]
    assert set(examples.part) == {""}
    assert examples.study is not None
