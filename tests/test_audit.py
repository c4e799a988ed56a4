"""What an audit finds: what was planted, nothing else, and on the splits that are trained with."""

import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from msa_flax import audit, cli, train
from msa_flax.config import Config, DataConfig, ModelConfig, TrainConfig

SIDE = 160  # pixels; below about 120 a copy's noise does not survive being enlarged to 224
FAMILY = r"^(?P<family>P\d+ \((?P<slice>\d+)\))"
GROUP = r"^(?P<group>P\d+)"
PATTERNS = (f"--family_pattern={FAMILY}", f"--group_pattern={GROUP}")
WRITTEN = {"audit.json", "audit.md", "audit.png", "families.png"}


def call(*arguments):
    return cli.call(audit.main, audit.define_flags, audit.__doc__, ["audit", *map(str, arguments)])


def findings(out):
    values = json.loads((out / "audit.json").read_text())
    return {finding["key"]: finding for finding in values["findings"]}


def severities(out):
    return {key: finding["severity"] for key, finding in findings(out).items()}


def slice_of(seed, side=SIDE):
    """Smooth shapes under a scanner's noise: any two of them are different slices."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    image = np.full((side, side), 60.0)
    for _ in range(4):
        across, down, width = *rng.uniform(-0.25, 0.25, 2), rng.uniform(0.05, 0.2)
        bump = np.exp(-((x - across) ** 2 + (y - down) ** 2) / (2 * width**2))
        image += rng.uniform(20, 70) * bump
    noise = cv2.GaussianBlur(rng.normal(0, 1, image.shape), (0, 0), 0.7)
    return np.clip(image + 8 * noise / noise.std(), 0, 255).astype(np.uint8)


def rotated(image, degrees):
    centre = ((SIDE - 1) / 2, (SIDE - 1) / 2)
    turn = cv2.getRotationMatrix2D(centre, degrees, 1)
    return cv2.warpAffine(image, turn, image.shape[::-1], flags=cv2.INTER_CUBIC)


def sharpened(image):
    return cv2.filter2D(image, -1, np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32))


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def make_set(root, *, by_position=False):
    """80 slices: patients P10 to P16 in train/, P17 to P19 in val/, eight slices each.

    Half of each patient's slices are fractured: the first ones, or any.
    """
    for patient in range(10, 20):
        part = "train" if patient < 17 else "val"
        order = np.random.default_rng(patient).permutation(8)
        for i in range(8):
            name = "fracture" if (i if by_position else order[i]) < 4 else "normal"
            image = slice_of(100 * patient + i)
            save(root / part / name / f"P{patient} ({i + 1}).png", image)
    return root


def plant_faults(root):
    """Adds, to slices whose position tells the label, what an audit must find."""
    for patient, i in ((10, 5), (11, 6)):  # one picture, two classes
        name = f"P{patient} ({i}).png"
        save(root / "train/fracture" / name, cv2.imread(str(root / "train/normal" / name), 0))
    for patient, i, degrees in ((12, 1, 37), (13, 2, 90), (14, 5, 180), (15, 7, 251)):
        copy = rotated(slice_of(100 * patient + i - 1), degrees)
        copy = sharpened(copy) if i > 1 else copy
        place = root / "val" / ("fracture" if i < 5 else "normal")
        save(place / f"P{patient} ({i})-rotated1.png", copy)
    for i in range(4):  # a patient of one class
        save(root / f"train/fracture/P20 ({i + 1}).png", slice_of(2000 + i))
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
    return make_set(tmp_path_factory.mktemp("audit") / "clean")


def test_planted_faults_are_found_and_counted(tmp_path):
    root = plant_faults(make_set(tmp_path / "faulty", by_position=True))
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

    order = ["high", "medium", "low", "none"]
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
    for key in ("duplicates", "families", "leakage by name", "one-class groups"):
        assert found[key] == "none"
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


def test_a_configured_experiment_is_audited_on_the_splits_that_it_would_train_with(
    clean, tmp_path, capsys
):
    (tmp_path / "wrapped").mkdir()
    shutil.copytree(clean, tmp_path / "copy")
    (tmp_path / "copy/train/normal/empty.png").touch()
    (tmp_path / "wrapped/set").symlink_to(tmp_path / "copy")
    (tmp_path / "wrapped/notes").mkdir()  # training finds the images beside it; so must the audit
    config = (
        "--config.data.source=folder",
        f"--config.data.root={tmp_path / 'wrapped'}",
        "--config.data.protocol=published",
        "--config.data.image_size=64",
        "--config.data.on_bad_file=skip",
        f"--config.data.family_pattern={FAMILY}",
        f"--config.data.group_pattern={GROUP}",
    )
    assert call(*config, f"--out={tmp_path / 'out'}") == 0
    found = findings(tmp_path / "out")
    values = json.loads((tmp_path / "out/audit.json").read_text())
    assert (values["n"], values["splits"]) == (80, ["train", "validation", "test"])
    assert found["unreadable"]["counts"] == {"unreadable": 1, "files": 81}
    assert found["balance"]["counts"]["test"] == [12, 12]  # "published": its val
    assert sum(found["balance"]["counts"]["validation"]) == 12  # a fifth of 56, class by class
    # Images were drawn for validation, not groups: nearly all of them are in training too.
    assert found["groups across splits"]["severity"] == "high"
    assert "bytes" in values["label_from"]
    assert "groups and splits" in capsys.readouterr().out


PHANTOM = ("--config.data.phantom_patients=12", "--config.data.image_size=64")


def test_the_phantom_is_audited_and_shortcuts_are_fitted_or_say_why_not(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert call(*PHANTOM, "--ladder") == 0
    values = json.loads((tmp_path / "audit/audit.json").read_text())
    assert (values["n"], values["splits"]) == (96, ["train", "validation", "test"])
    assert "bytes" not in values["label_from"]  # there are no files
    assert findings(tmp_path / "audit")["groups across splits"]["severity"] == "none"
    rungs = {rung["rung"]: rung for rung in values["ladder"]}
    assert rungs["majority class"]["test"]["auc"] == 0.5
    assert 0 <= rungs["thumbnail, logistic regression"]["test"]["accuracy"] <= 1
    for name in ("frozen ImageNet features, linear", "permuted labels"):
        assert rungs[name]["reason"] == "there are no ImageNet weights"
    out = capsys.readouterr().out
    assert "test accuracy" in out
    assert "the model" not in out
    assert "Shortcut ladder" in (tmp_path / "audit/audit.md").read_text()


def test_a_run_is_audited_on_its_own_splits_and_compared_with_shortcuts(clean, tmp_path, capsys):
    config = Config(
        model=ModelConfig(backbone="lenet_alexnet", attention="none", pretrained="none"),
        data=DataConfig(root=str(clean), image_size=64, family_pattern=FAMILY, group_pattern=GROUP),
        train=TrainConfig(epochs=1, batch_size=8),
    ).validate()
    workdir = tmp_path / "run"
    train.train_run(workdir, config)
    capsys.readouterr()
    assert call(f"--workdir={workdir}", "--ladder") == 0
    values = json.loads((workdir / "audit/audit.json").read_text())
    rows = [line.split(",") for line in (workdir / "splits.csv").read_text().splitlines()[1:]]
    tally = {split: sum(row[1] == split for row in rows) for split in values["splits"]}
    counts = findings(workdir / "audit")["balance"]["counts"]
    assert {split: sum(counts[split]) for split in values["splits"]} == tally
    for split in ("validation", "test"):
        metrics = json.loads((workdir / f"eval/{split}/metrics.json").read_text())["metrics"]
        scores = {name: metrics[name]["value"] for name in ("accuracy", "auc")}
        assert values["model"][split] == scores
    table = capsys.readouterr().out.split("shortcut  ", 1)[1].splitlines()
    names = [line.split("  ")[0] for line in table if line.strip()]
    model, gain = names.index("the model"), "what the model adds to the best shortcut"
    assert names.index("permuted labels") == model - 1
    assert names[model + 1] == gain
    best = max(r["test"]["accuracy"] for r in values["ladder"] if "test" in r)
    added = values["model"]["test"]["accuracy"] - best
    assert f"{added:+.3f}" in next(line for line in table if line.startswith(gain))

    (workdir / "run.json").write_text("{}")
    assert call(f"--workdir={workdir}") == 2
    assert "not the ones" in capsys.readouterr().err
