"""The commands as a user runs them, on a small phantom and folder.

Training, once more with the same seed, evaluation and explanation are processes of their own; what
is asked of their runs afterwards is asked in this one.
"""

import json
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
from commands import call
from tiny_training import FLAGS

from msa_flax.evaluation.summary import NAMES

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
SMALL = (
    *FLAGS,
    "--config.data.phantom_patients=12",
    "--config.train.epochs=2",
    "--config.train.log_every=1",
)


def command(name, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", f"msa_flax.{name}", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "phantom"
    done = command("train", "--workdir", workdir, *SMALL)
    return workdir, done


def results(workdir):
    """What "same seed, same bytes" means: tables as they are, metrics without the seconds."""
    files = ("splits.csv", "metrics.jsonl", "eval/test/predictions.csv")
    metrics = json.loads((workdir / "eval/test/metrics.json").read_text())
    metrics.pop("seconds")
    return [(workdir / name).read_bytes() for name in files], metrics


def test_training_writes_every_artefact_and_says_what_it_is(trained):
    workdir, done = trained
    expected = [
        *("config.json", "run.json", "splits.csv", "metrics.jsonl", "train.log"),
        *("checkpoints/best", "checkpoints/last"),
        *("eval/test/predictions.csv", "eval/test/metrics.json"),
        *("eval/validation/predictions.csv", "eval/validation/metrics.json"),
        *("eval/test/explanations/explanations.csv", "eval/test/errors/explanations.csv"),
        *("figures/samples.png", "figures/learning_curves.png"),
        *("figures/roc_confusion_test.png", "figures/gradcam_test.png"),
    ]
    assert [name for name in expected if not (workdir / name).exists()] == []
    assert list(workdir.glob("events.out.tfevents.*"))
    assert done.stderr.startswith("training quickstart in ")  # before anything is loaded
    for words in ("not a medical device", "synthetic phantom", "smaller than the paper's", "epoch"):
        assert words in done.stderr
    assert "detected 'fracture' images" in done.stdout
    run = json.loads((workdir / "run.json").read_text())
    assert run["schema_version"] == 1
    assert run["seed"] == 0
    assert len(run["data_fingerprint"]) == 64
    metrics = json.loads((workdir / "eval/test/metrics.json").read_text())
    assert set(metrics["metrics"]) == set(NAMES)
    assert len(metrics["by_group"]) == metrics["groups"]
    assert sum(metrics["confusion"].values()) == metrics["n"]


def test_the_same_seed_gives_the_same_bytes(trained, tmp_path):
    again = tmp_path / "again"
    command("train", "--workdir", again, *SMALL)
    assert results(again) == results(trained[0])


def test_a_finished_run_says_so_and_other_configurations_are_refused(trained, capsys):
    workdir, _ = trained
    before = results(workdir)
    assert call("train", "--workdir", workdir, *SMALL) == 0
    assert "training is finished" in capsys.readouterr().err
    assert results(workdir) == before
    assert call("train", "--workdir", workdir, *SMALL, "--config.train.seed=1") == 2
    assert "train.seed (0, now 1)" in capsys.readouterr().err
    assert results(workdir) == before


def test_evaluation_of_the_saved_run_gives_the_same_predictions(trained):
    workdir, _ = trained
    before = results(workdir)
    done = command("evaluate", "--workdir", workdir)
    assert results(workdir) == before
    assert "recall" in done.stdout
    assert "not a medical device" in done.stdout
    assert call("evaluate", "--workdir", workdir, "--checkpoint=last") == 0
    assert (workdir / "eval/test-last/metrics.json").exists()
    assert results(workdir) == before


@pytest.fixture
def folder(tmp_path):
    """A class-per-folder data set of four series, with copies of slices in both parts."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for name, bright in (("fracture", 90), ("normal", 0)):
            path = tmp_path / "set" / part / name
            path.mkdir(parents=True)
            for series in range(4):
                for number in range(3):
                    image = rng.integers(0, 120, (48, 48), dtype=np.uint8) + bright
                    offset = 100 if name == "normal" else 0
                    stem = f"CSFDV1B{series + 10} ({number + offset + 1})"
                    copy = "" if part == "train" else "-rotated1"
                    cv2.imwrite(str(path / f"{stem}{copy}.png"), image.astype(np.uint8))
    return tmp_path / "set"


def on_folder(folder, workdir):
    return (
        *("--workdir", workdir, f"--config={EXPERIMENTS / 'paper1_msa.py'}", *FLAGS),
        *(f"--config.data.root={folder}", "--config.model.pretrained=none"),
        "--config.train.epochs=2",
    )


def test_a_folder_of_images_is_trained_evaluated_elsewhere_and_explained(folder, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert call("train", *on_folder(folder, workdir), "--config.data.allow_leakage=false") == 2
    assert "allow_leakage" in capsys.readouterr().err
    assert not workdir.exists()

    done = command("train", *on_folder(folder, workdir))
    assert "stamp: copies cross the split" in done.stderr
    metrics = json.loads((workdir / "eval/test/metrics.json").read_text())
    assert metrics["n"] == 24
    assert "copies cross the split" in metrics["stamps"]

    assert call("evaluate", "--workdir", workdir, "--data_root", folder / "val") == 0
    external = json.loads((workdir / "eval/external/metrics.json").read_text())
    assert external["confusion"] == metrics["confusion"]

    image = next((folder / "val/fracture").glob("*.png"))
    out = tmp_path / "maps"
    command("explain", "--workdir", workdir, "--out", out, "--maps", image)
    assert len(list(out.glob("*.gradcam-fracture.png"))) == 1
    assert len(list(out.glob("*.npy"))) == 5

    assert call("explain", "--workdir", workdir, "--out", out, "no.png") == 2
    assert "no.png" in capsys.readouterr().err
