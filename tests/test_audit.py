"""What an audit of a folder finds: what was planted, and nothing else."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from slice_folders import FAMILY, GROUP, SIDE, slice_of, write_picture, write_slices

from msa_flax import audit, cli

PATTERNS = (f"--family_pattern={FAMILY}", f"--group_pattern={GROUP}")
WRITTEN = {"audit.json", "audit.md", "audit.png", "families.png"}


def call(*arguments):
    return cli.call(audit.main, audit.define_flags, audit.__doc__, ["audit", *map(str, arguments)])


def findings(out):
    values = json.loads((out / "audit.json").read_text())
    return {finding["key"]: finding for finding in values["findings"]}


def severities(out):
    return {key: finding["severity"] for key, finding in findings(out).items()}


def rotated(image, degrees):
    centre = ((SIDE - 1) / 2, (SIDE - 1) / 2)
    turn = cv2.getRotationMatrix2D(centre, degrees, 1)
    return cv2.warpAffine(image, turn, image.shape[::-1], flags=cv2.INTER_CUBIC)


def sharpened(image):
    return cv2.filter2D(image, -1, np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32))


def plant_faults(root):
    """Adds, to slices whose position tells the label, what an audit must find."""
    for patient, i in ((10, 5), (11, 6)):  # one picture, two classes
        name = f"P{patient} ({i}).png"
        write_picture(
            root / "train/fracture" / name, cv2.imread(str(root / "train/normal" / name), 0)
        )
    for patient, i, degrees in ((12, 1, 37), (13, 2, 90), (14, 5, 180), (15, 7, 251)):
        copy = rotated(slice_of(100 * patient + i - 1), degrees)
        copy = sharpened(copy) if i > 1 else copy
        place = root / "val" / ("fracture" if i < 5 else "normal")
        write_picture(place / f"P{patient} ({i})-rotated1.png", copy)
    for i in range(4):  # a patient of one class
        write_picture(root / f"train/fracture/P20 ({i + 1}).png", slice_of(2000 + i))
    return root


def in_a_process(root, out):
    done = subprocess.run(
        [sys.executable, "-m", "msa_flax.audit", "--root", root, "--out", out, *PATTERNS],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == WRITTEN
    return done


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return write_slices(tmp_path_factory.mktemp("audit") / "clean")


def test_planted_faults_are_found_and_counted(tmp_path):
    root = plant_faults(write_slices(tmp_path / "faulty", by_position=True))
    done = in_a_process(root, tmp_path / "new/out")
    found = findings(tmp_path / "new/out")

    assert found["duplicates"]["severity"] == "high"
    counts = {"sets": 2, "files": 4, "sets across classes": 2, "sets across splits": 0}
    assert found["duplicates"]["counts"] == counts
    assert set(found["duplicates"]["examples"]) == {
        f"train/{name}/P{patient}.png"
        for name in ("fracture", "normal")
        for patient in ("10 (5)", "11 (6)")
    }
    families = found["families"]["counts"]
    assert (families["with copies"], families["images in them"], families["largest"]) == (6, 12, 2)
    assert families["names divided by pixels"] == families["pixel families of several names"] == 0
    for key in ("leakage by name", "leakage by pixels"):
        assert found[key]["severity"] == "high"
        assert found[key]["counts"] == {"val in train": 4, "val": 28}
        assert all("-rotated1" in name for name in found[key]["examples"])
    assert found["one-class groups"]["severity"] == "medium"
    assert found["one-class groups"]["examples"] == ["P20"]
    assert found["groups across splits"]["severity"] == "high"
    assert found["groups across splits"]["counts"]["groups in two splits"] == 4
    position = found["label from slice position"]
    assert position["severity"] == "high"
    # Of 90 images only the two that are also in the wrong class contradict the rule.
    assert position["counts"]["family"]["accuracy"] == pytest.approx(88 / 90)
    assert position["counts"]["group"]["accuracy"] == pytest.approx(88 / 90)

    order = ["high", "medium", "open", "low", "none"]
    listed = [order.index(finding["severity"]) for finding in found.values()]
    assert listed == sorted(listed)
    report = (tmp_path / "new/out/audit.md").read_text()
    for finding in found.values():
        if finding["severity"] in ("high", "medium"):
            assert finding["title"] in done.stdout
        assert finding["title"] in report
    assert "HIGH    exact duplicates" in done.stdout
    for name in ("audit.png", "families.png"):
        assert cv2.imread(str(tmp_path / "new/out" / name)) is not None
        assert name in report
    assert "not a medical device" in done.stdout


def test_the_same_folder_without_faults_is_not_accused(clean, tmp_path):
    done = in_a_process(clean, tmp_path / "out")
    found = severities(tmp_path / "out")
    assert {key: value for key, value in found.items() if value in ("high", "medium")} == {}
    for key in ("duplicates", "leakage by name", "one-class groups"):
        assert found[key] == "none"
    # No search by pixels finds all copies, so its silence is not called good news.
    assert found["families"] == found["leakage by pixels"] == "open"
    assert "Not searched: copies" in " ".join(done.stdout.split())
    assert "fits no file name" not in done.stderr
    assert not {"HIGH", "MEDIUM"} & set(done.stdout.split())
    values = json.loads((tmp_path / "out/audit.json").read_text())
    assert (values["name"], values["n"]) == ("clean", 80)
    assert values["classes"] == ["normal", "fracture"]
    assert values["splits"] == ["train", "val"]


def test_an_audit_of_a_folder_needs_neither_jax_nor_tensorflow(clean, tmp_path):
    code = (
        "import sys; from msa_flax import audit, cli;"
        f"cli.call(audit.main, audit.define_flags, 'x', ['audit', '--root={clean}', '--out=o']);"
        "sys.exit(bool({'jax', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "o/audit.json").exists()
