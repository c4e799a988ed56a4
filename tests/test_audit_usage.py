"""What surrounds an audit: where results go, what is warned about, what is refused."""

import json

import cv2
import numpy as np
import pytest
from audit_calls import PHANTOM, call, findings

WRITTEN = {"audit.json", "audit.md", "audit.png", "families.png"}


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (40, 40), dtype=np.uint8)
    assert cv2.imwrite(str(path), image)


def small_set(root, classes=("normal", "fracture"), count=4):
    for label, name in enumerate(classes):
        for i in range(count):
            save(root / name / f"{i}.png", 10 * label + i)
    return root


def test_a_second_audit_replaces_the_first_and_leaves_other_files(tmp_path):
    root, out = small_set(tmp_path / "set"), tmp_path / "out"
    assert call(f"--root={root}", f"--out={out}") == 0
    (out / "notes.txt").write_text("mine")
    save(root / "normal/copy.png", 0)
    assert call(f"--root={root}", f"--out={out}") == 0
    assert findings(out)["duplicates"]["counts"]["files"] == 2
    assert "2 files show 1 pictures" in (out / "audit.md").read_text()
    assert (out / "notes.txt").read_text() == "mine"
    assert {path.name for path in out.iterdir()} == {*WRITTEN, "notes.txt"}


def test_the_threshold_decides_what_is_a_copy(tmp_path):
    root, out = small_set(tmp_path / "set"), tmp_path / "out"
    assert call(f"--root={root}", f"--out={out}", "--family_threshold=0") == 0
    assert findings(out)["families"]["counts"]["largest"] == 8


def test_two_images_of_two_classes_are_enough(tmp_path):
    root = small_set(tmp_path / "set", classes=("a", "b"), count=1)
    assert call(f"--root={root}", f"--out={tmp_path / 'out'}") == 0
    assert json.loads((tmp_path / "out/audit.json").read_text())["classes"] == ["a", "b"]


def test_a_folder_is_named_even_if_it_is_where_one_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(small_set(tmp_path / "my set"))
    assert call("--root=.", f"--out={tmp_path / 'out'}") == 0
    assert capsys.readouterr().out.startswith("my set: 8 images\n")


def test_a_pattern_that_fits_no_name_is_shown_in_a_warning(tmp_path, capsys):
    root = small_set(tmp_path / "set")
    patterns = ("--family_pattern=^(?P<family>X)", r"--group_pattern=^(?P<group>\d)")
    assert call(f"--root={root}", f"--out={tmp_path / 'out'}", *patterns) == 0
    error = capsys.readouterr().err
    assert "--family_pattern '^(?P<family>X)' fits no file name" in error
    assert "group_pattern" not in error
    assert call(f"--root={root}", f"--out={tmp_path / 'out'}", "--family_pattern=") == 0
    assert "family_pattern" not in capsys.readouterr().err


def test_two_thousand_unreadable_files_are_one_finding(tmp_path, capsys):
    root = small_set(tmp_path / "set")
    for i in range(2000):
        (root / ("normal", "fracture")[i % 2] / f"empty{i}.png").touch()
    assert call(f"--root={root}", f"--out={tmp_path / 'out'}") == 0
    printed = capsys.readouterr()
    assert "2000 of 2008 files cannot be used: empty file: 2000." in printed.out
    assert len((printed.out + printed.err).splitlines()) < 60
    assert len((tmp_path / "out/audit.md").read_text().splitlines()) < 60
    unreadable = findings(tmp_path / "out")["unreadable"]
    assert unreadable["severity"] == "medium"
    assert unreadable["counts"] == {"unreadable": 2000, "files": 2008}
    assert len(unreadable["examples"]) < 10
    listed = json.loads((tmp_path / "out/audit.json").read_text())["bad_files"]
    assert len(listed) == 2000
    assert listed[0] == ["fracture/empty1.png", "empty file"]


ROOT = "--root=set"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((ROOT, "--workdir=run"), "--root and --workdir: expected one of them"),
        ((ROOT, "--moved_to=x"), "--moved_to: expected --workdir with it"),
        (
            (ROOT, "--config.data.image_size=64"),
            "--config: a configuration is not used with --root",
        ),
        (("--workdir=run", *PHANTOM), "--config: a configuration is not used with --workdir"),
        ((ROOT, "--ladder"), "--ladder: shortcuts are fitted on a training split"),
        (("--workdir=run",), "config.json"),
        ((ROOT, "--out=file"), "--out: expected a folder, got the file 'file'"),
        ((ROOT, "--out=file/out"), "--out: expected a folder, got the file 'file'"),
        ((ROOT, "--out=mine"), "holds other files than an audit's"),
        ((ROOT, "--family_pattern=("), "--family_pattern: not a regular expression"),
        ((ROOT, "--group_pattern=B"), "--group_pattern: expected a named group (?P<group>...)"),
        ((ROOT, "--family_threshold=2"), "--family_threshold=2"),
        ((ROOT, "--family_threshold=nan"), "--family_threshold: expected a value, got nan"),
        (("--root=",), "--root: expected a value, got ''"),
        (("--root=none",), "expected a folder of images, got 'none'"),
        (("--root=file",), "expected a folder of images, got 'file'"),
        (("--root=one_class",), "found only the class normal"),
        (("--root=one_image",), "expected two or more usable images, found 1"),
        (("--root=set/normal",), "found 4 images in no class folder"),
        (("--root=mine",), "found no images"),
        ((*PHANTOM, "--config.data.fold=9"), "data.fold"),
        (("--bogus",), "bogus"),
    ],
)
def test_bad_usage_costs_one_sentence_and_writes_nothing(
    arguments, said, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    small_set(tmp_path / "set")
    small_set(tmp_path / "one_class", classes=["normal"])
    small_set(tmp_path / "one_image", count=1)
    (tmp_path / "one_image/fracture/0.png").write_bytes(b"")
    (tmp_path / "mine").mkdir()
    for name in ("mine/audit.md", "file"):
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    # Before it, one line may say how the folder was understood.
    assert [line[:7] for line in error.splitlines() if line[:10] != "understood"] == ["error: "]
    assert "Traceback" not in error
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "mine/audit.md").read_text() == "mine"
