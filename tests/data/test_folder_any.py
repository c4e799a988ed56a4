"""A folder of any layout, as an audit sees it, file by file."""

import io
import os

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from msa_flax import data
from msa_flax.config import DataConfig
from msa_flax.data.facts import SIZE
from msa_flax.data.folder import list_folder

NAMED = DataConfig(
    family_pattern=r"^(?P<family>S\d+ \((?P<slice>\w+)\))", group_pattern=r"^(?P<group>S\d+)?"
)
SUFFIX = "wrong extension, expected .png, .jpg, .jpeg, .dcm, .dicom, .ima"


def picture(seed=0, h=40, w=40):
    return np.random.default_rng(seed).integers(0, 256, (h, w), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else encoded(content))


def with_pictures(root, *names):
    for i, name in enumerate(names):
        put(root / name, picture(i))
    return root


def look(root, config=None, **options):
    return data.inspect(list_folder(root, config or DataConfig(), layout="any"), **options)


def by_class(found):
    return [found.classes[label] for label in found.label]


def test_class_folders_without_parts(tmp_path):
    found = look(with_pictures(tmp_path, "b/2.png", "a/1.png", "b/1.PNG"))
    assert found.example_id.tolist() == ["a/1.png", "b/1.PNG", "b/2.png"]
    assert by_class(found) == ["a", "b", "b"]
    for column in (found.part, found.group, found.family):
        assert column.tolist() == ["", "", ""]
    assert found.slice_index.tolist() == [-1, -1, -1]
    assert found.images.shape == (3, SIZE, SIZE)
    assert found.images.dtype == np.uint8
    assert len(found) == 3
    assert found.bad_files == ()


@pytest.mark.parametrize(
    "parts",
    [("train", "val"), ("train", "valid", "test"), ("TRAIN", "VAL"), ("Training", "Testing")],
)
def test_class_folders_in_parts(parts, tmp_path):
    names = [f"{part}/{name}/1.png" for part in parts for name in ("x", "y")]
    found = look(with_pictures(tmp_path, *names))
    assert found.example_id.tolist() == sorted(names)
    assert found.part.tolist() == [name.split("/")[0] for name in sorted(names)]
    assert by_class(found) == [name.split("/")[1] for name in sorted(names)]


def test_folders_inside_a_class_are_groups_where_no_name_tells_one(tmp_path):
    with_pictures(
        tmp_path, "a/p1/1.png", "a/p1/ct/1.png", "b/p2/1.png", "b/p2/S7 (1).png", "b/1.png"
    )
    found = look(tmp_path, NAMED)
    groups = dict(zip(found.example_id.tolist(), found.group.tolist(), strict=True))
    assert groups == {
        "a/p1/1.png": "p1",
        "a/p1/ct/1.png": "p1",
        "b/p2/1.png": "p2",
        "b/p2/S7 (1).png": "S7",
        "b/1.png": "",
    }


@pytest.mark.parametrize("beside", ["", "notes.txt", ".git/a/1.png", "__MACOSX/set/x/._1.png"])
def test_a_folder_around_everything_is_entered(beside, tmp_path):
    with_pictures(tmp_path, "set/x/1.png", "set/y/1.png")
    if beside:
        put(tmp_path / beside, b"")
    found = look(tmp_path)
    assert found.example_id.tolist() == ["x/1.png", "y/1.png"]
    assert found.bad_files == ()


def test_a_part_or_a_known_class_is_never_entered(tmp_path):
    with_pictures(tmp_path / "one", "train/x/1.png", "train/y/1.png")
    assert look(tmp_path / "one").part.tolist() == ["train", "train"]
    with_pictures(
        tmp_path / "two", "Normal/p1/1.png", "Normal/p2/1.png"
    )  # else patients were classes
    refused(tmp_path / "two", "found only the class normal")


def test_known_classes_keep_their_labels_and_others_are_sorted(tmp_path):
    found = look(with_pictures(tmp_path / "one", "Normal/1.png", "FRACTURE/1.png"))
    assert found.classes == ("normal", "fracture")
    assert by_class(found) == ["fracture", "normal"]
    found = look(
        with_pictures(tmp_path / "two", "normal/1.png", "fracture/1.png", "Artefact/1.png")
    )
    assert found.classes == ("artefact", "fracture", "normal")
    assert by_class(found) == list(found.classes)
    same = with_pictures(tmp_path / "three", "train/A/1.png", "val/a/2.png", "train/B/3.png")
    assert look(same).classes == ("a", "b")  # upper and lower case are the same


def test_links_to_folders_are_followed_and_circles_are_not(tmp_path):
    with_pictures(tmp_path / "elsewhere", "1.png", "2.png")
    with_pictures(tmp_path / "set", "x/1.png")
    (tmp_path / "set/y").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/x/again").symlink_to(tmp_path / "set")
    assert look(tmp_path / "set").example_id.tolist() == ["x/1.png", "y/1.png", "y/2.png"]


def test_patterns_tell_family_group_and_slice(tmp_path):
    names = ["S1 (07)-rotated1.png", "S1 (7).png", "S2 (x).png", "other.png"]
    found = look(
        with_pictures(tmp_path, *(f"a/{name}" for name in names), "b/S2 (12).jpg.png"), NAMED
    )
    assert found.family.tolist() == ["S1 (07)", "S1 (7)", "S2 (x)", "", "S2 (12)"]
    assert found.slice_index.tolist() == [7, 7, -1, -1, 12]  # what is no number is unknown
    assert found.group.tolist() == ["S1", "S1", "S2", "", "S2"]
    default = look(with_pictures(tmp_path / "named", "a/CSFDV1B10 (18)-rotated3.png", "b/x.png"))
    assert (default.family[0], default.group[0]) == ("CSFDV1B10 (18)", "B10")
    assert default.slice_index.tolist() == [18, -1]
    nothing = look(tmp_path / "named", DataConfig(family_pattern="", group_pattern=""))
    assert nothing.family.tolist() == nothing.group.tolist() == ["", ""]


def test_equal_pixels_have_equal_hashes_whatever_the_file(tmp_path):
    other = picture()
    other[7, 7] ^= 1
    text = PngImagePlugin.PngInfo()
    text.add_text("Scanner", "A" * 100)
    files = {
        "a/1.png": encoded(picture(), compress_level=9),
        "a/2.png": encoded(picture(), compress_level=0, pnginfo=text),
        "a/3.png": encoded(np.dstack([picture()] * 3)),
        "b/1.png": encoded(other),
        "b/2.png": encoded(np.zeros((40, 90), np.uint8)),
        "b/3.png": encoded(np.zeros((90, 40), np.uint8)),  # the shape counts too
    }
    assert len(set(files.values())) == len(files)
    for name, content in files.items():
        put(tmp_path / name, content)
    pixels = look(tmp_path).pixels.tolist()
    assert pixels[0] == pixels[1] == pixels[2]
    assert len(set(pixels)) == 4


def test_files_that_cannot_be_used_are_listed_with_the_reason(tmp_path):
    with_pictures(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png")
    put(tmp_path / "train/a/empty.png", b"")
    put(tmp_path / "train/a/text.jpg", b"hello" * 20)
    put(tmp_path / "train/b/cut.png", encoded(picture())[:-30])
    put(tmp_path / "train/b/deep.png", picture().astype(np.uint16) * 200)
    put(tmp_path / "train/b/new\nline.png", picture())
    put(tmp_path / "train/b/other.jpg", picture())
    put(tmp_path / "train/loose.png", picture())
    put(tmp_path / "loose.png", picture())
    (tmp_path / "train/b/gone.png").symlink_to(tmp_path / "nowhere")
    seen = []
    found = look(tmp_path, progress=lambda *values: seen.append(values))
    assert found.example_id.tolist() == ["train/a/1.png", "train/b/1.png", "val/a/1.png"]
    reasons = dict(found.bad_files)
    assert list(reasons) == sorted(reasons)
    expected = {
        "train/a/empty.png": "empty file",
        "train/a/text.jpg": "not a PNG, JPEG or DICOM image",
        "train/b/cut.png": "truncated",
        "train/b/deep.png": "16 bits a sample",
        "train/b/new\\nline.png": "unprintable file name",
        "train/b/other.jpg": "wrong extension",
        "train/b/gone.png": "cannot be read: No such file",
        "train/loose.png": "not inside a class folder",
        "loose.png": "not inside a class folder",
    }
    assert set(reasons) == set(expected)
    for name, reason in expected.items():
        assert reason in reasons[name]
    assert seen == [("read", i, 9) for i in range(1, 10)]  # of the files in class folders


def test_a_name_that_is_not_text_can_be_written_down(tmp_path):
    with_pictures(tmp_path, "a/1.png", "b/1.png")
    try:
        put(tmp_path / "a/\udcff.png", picture())
    except OSError:
        pytest.skip("this file system takes valid UTF-8 only")
    (bad,) = look(tmp_path).bad_files
    assert bad == ("a/\\udcff.png", "unprintable file name")


def test_hidden_files_and_what_is_outside_a_class_are_passed_over(tmp_path):
    with_pictures(tmp_path, "a/1.png", "b/1.png", "a/.2.png", ".cache/c/1.png", "a/.thumbs/1.png")
    for name in ("notes.txt", "documents/notes.txt", "a/Thumbs.db", "b/desktop.ini"):
        put(tmp_path / name, b"x")
    (tmp_path / "a/folder.png").mkdir()
    found = look(tmp_path)
    assert found.example_id.tolist() == ["a/1.png", "b/1.png"]
    assert found.bad_files == ()


def test_files_of_other_kinds_in_a_class_folder_are_bad_files_as_they_are_in_training(tmp_path):
    places = [f"{part}/{name}" for part in ("train", "val") for name in ("fracture", "normal")]
    with_pictures(tmp_path, *(f"{place}/1.png" for place in places), "train/loose.png")
    for name in ("train/normal/slice.nii", "val/normal/notes.txt"):
        put(tmp_path / name, b"x")
    put(tmp_path / "val/fracture/new\nline.png", picture())
    found, trained = (list_folder(tmp_path, DataConfig(), layout=kind) for kind in ("any", "parts"))
    assert found.files == trained.files
    assert found.bad_files == trained.bad_files
    assert dict(found.bad_files) == {
        "train/loose.png": "not inside a class folder",
        "train/normal/slice.nii": SUFFIX,
        "val/fracture/new\\nline.png": "unprintable file name",
        "val/normal/notes.txt": SUFFIX,
    }


@pytest.mark.parametrize("layout", ["any", "parts"])
def test_a_folder_that_cannot_be_listed_is_a_bad_file(tmp_path, layout, monkeypatch):
    names = [f"{part}/{name}/1.png" for part in ("train", "val") for name in ("fracture", "normal")]
    with_pictures(tmp_path, *names)
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("val/normal"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    reason = "a folder that cannot be read: Permission denied; its files are not counted"
    if layout == "any":
        bad = list_folder(tmp_path, DataConfig(), layout=layout).bad_files
        assert bad == (("val/normal", reason),)
    else:
        with pytest.raises(
            data.DataError, match="val/normal/: a folder that cannot be read: Permission denied"
        ):
            list_folder(tmp_path, DataConfig(), layout=layout)


def refused(root, match):
    with pytest.raises(data.DataError, match=match) as caught:
        look(root)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folders_that_cannot_be_audited_are_refused(tmp_path):
    refused(tmp_path / "none", "expected a folder of images, got .*none'")
    put(tmp_path / "file", b"x")
    refused(tmp_path / "file", "expected a folder of images, got .*file'")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "CLASS/FILE or PART/CLASS/FILE .*found no images")
    refused(
        with_pictures(tmp_path / "flat", "1.png", "train/2.png"),
        "found 2 images in no class folder",
    )
    refused(
        with_pictures(tmp_path / "single", "train/x/1.png", "val/x/1.png"), "found only the class x"
    )
    put(tmp_path / "one/x/1.png", picture())
    put(tmp_path / "one/y/1.png", b"")
    refused(
        tmp_path / "one", r"two or more usable images, found 1; 1 files .*: y/1.png: empty file$"
    )


def test_a_folder_of_unreadable_files_is_refused_without_naming_them_all(tmp_path):
    for i in range(300):
        put(tmp_path / f"{'xy'[i % 2]}/{i}.png", b"")
    message = refused(tmp_path, "found 0; 300 files cannot be used: .*; and 290 more$")
    assert message.count(": empty file") == 10
