"""Experiment studies.py: written, audited, trained, evaluated and in one table."""

import json

import command_line
import numpy as np
import pytest
import studies
import study
from challenge_folder import BOX_HEAD, HEAD, write_study, write_table

from msa_flax import audit, cli, evaluate
from msa_flax.files import write_json


@pytest.fixture
def small(monkeypatch, capsys):
    """The experiment with the smallest network, one epoch, and commands in this process."""

    def get_config(arg):
        config = study.get_config(arg)
        config.model.alpha, config.model.pretrained, config.data.image_size = 0.125, "none", 32
        config.data.rsna_every, config.data.folds, config.data.allow_leakage = 1, 3, True
        config.train.epochs = config.train.steps_per_dispatch = 1
        return config

    def command(name, *flags):
        module = {"audit": audit, "evaluate": evaluate}[name]
        if name == "audit":
            write_json(
                next(f for f in flags if f.startswith("--out=")).removeprefix("--out=")
                + "/audit.json",
                {"ladder": [{"rung": "slice position", "test": {"auc": 0.5}}]},
            )
            return
        code = cli.call(module.main, module.define_flags, module.__doc__, [name, *flags])
        assert code == 0, capsys.readouterr().err

    monkeypatch.setattr(studies, "get_config", get_config)
    monkeypatch.setattr(studies, "run_command", command)
    monkeypatch.setattr(studies, "_write_studies", write_twelve_studies)
    monkeypatch.setattr(studies, "DIFFICULTIES", {"open": ("4 mm, 900 HU", [])})


def write_twelve_studies(name, options):
    """Every second study has a fracture, in its slices 12 and 13; their mask is a square."""
    root = options.out / "phantom" / name
    if root.exists():
        return
    (root / "masks").mkdir(parents=True)
    mask = np.zeros((2, 32, 32), np.uint8)
    mask[:, 8:12, 8:12] = 2
    for k in range(12):
        write_study(root, f"1.2.{k}", grey=100 * (k % 2))
        np.savez(root / f"masks/1.2.{k}.npz", slice_number=np.array([12, 13]), mask=mask)
    rows = [[f"1.2.{k}", k % 2, 0, k % 2, 0, 0, 0, 0, 0] for k in range(12)]
    write_table(root / "train.csv", HEAD, rows)
    boxes = [[f"1.2.{k}", 8, 8, 4, 4, number] for k in range(1, 12, 2) for number in (12, 13)]
    write_table(root / "train_bounding_boxes.csv", BOX_HEAD, boxes)


def test_everything_is_made_once_and_is_in_the_table(small, tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--studies", "12", "--seeds", "0", "--models", "msa"]
    assert studies.main(arguments) == 0, capsys.readouterr()
    said = capsys.readouterr().out
    assert "| 4 mm, 900 HU | MSA-CSpineNet | 1 |" in said
    assert "slice position: 0.500" in said
    assert "attention 3 x 3" in said
    kept = tmp_path / "results/studies/open/msa/seed-0"
    maps = json.loads((kept / "maps.json").read_text())
    assert maps["slices"] > 0
    assert 0 < maps["area"] < 1
    assert set(maps["maps"]) == {"Grad-CAM", *(f"attention {k} x {k}" for k in (3, 5, 7))}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert studies.main(arguments) == 0
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    trained = {path for path in before if "results" not in path.parts}
    assert {path: before[path] for path in trained} == {path: again[path] for path in trained}


def test_masks_are_found_by_name_and_lose_no_small_fracture(tmp_path):
    mask = np.zeros((2, 64, 64), np.uint8)
    mask[1, 40, 20] = 5
    np.savez(tmp_path / "S.npz", slice_number=np.array([7, 9]), mask=mask)
    found = studies._mask(tmp_path, "train_images/S/9.dcm", 32)
    assert np.argwhere(found).tolist() == [[20, 10]]
    assert not studies._mask(tmp_path, "train_images/S/7.dcm", 32).any()


def test_results_that_are_not_there_are_said(tmp_path, capsys):
    assert command_line.call(studies.main, ["--out", str(tmp_path), "--models"]) == 2
    assert "expected finished runs" in capsys.readouterr().err


def test_an_unknown_network_is_named():
    with pytest.raises(ValueError, match="expected a network out of msa, none, mobilenet_v2"):
        study.get_config("resnet50")
