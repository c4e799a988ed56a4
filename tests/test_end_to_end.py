"""The commands as a user runs them, in processes of their own, on a small phantom and folder."""

import json
import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from msa_flax.evaluation.summary import NAMES

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
SMALL = (
    "--config.data.phantom_patients=12",
    "--config.data.image_size=32",
    "--config.train.epochs=2",
    "--config.train.log_every=1",
    "--config.model.alpha=0.125",
)


def command(name, *arguments, cache, check=None):
    environment = os.environ | {"MSA_FLAX_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-m", f"msa_flax.{name}", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if check is not None:
        assert done.returncode == check, done.stderr
    return done


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
    workdir = tmp_path_factory.mktemp("runs") / "phantom"
    done = command("train", "--workdir", workdir, *SMALL, cache=cache, check=0)
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


def test_the_same_seed_gives_the_same_bytes(trained, tmp_path, cache):
    again = tmp_path / "again"
    command("train", "--workdir", again, *SMALL, cache=cache, check=0)
    assert results(again) == results(trained[0])


def test_a_finished_run_says_so_and_other_configurations_are_refused(trained, cache):
    workdir, _ = trained
    before = results(workdir)
    done = command("train", "--workdir", workdir, *SMALL, cache=cache, check=0)
    assert "training is finished" in done.stderr
    assert results(workdir) == before
    other = command("train", "--workdir", workdir, *SMALL, "--config.train.seed=1", cache=cache)
    assert other.returncode == 2
    assert "train.seed (0, now 1)" in other.stderr
    assert results(workdir) == before


def test_evaluation_of_the_saved_run_gives_the_same_predictions(trained, cache):
    workdir, _ = trained
    before = results(workdir)
    done = command("evaluate", "--workdir", workdir, cache=cache, check=0)
    assert results(workdir) == before
    assert "recall" in done.stdout
    command("evaluate", "--workdir", workdir, "--checkpoint=last", cache=cache, check=0)
    assert (workdir / "eval/test-last/metrics.json").exists()
    assert results(workdir) == before
    assert "not a medical device" in done.stdout


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
        *("--workdir", workdir, f"--config={EXPERIMENTS / 'paper1_msa.py'}", *SMALL[1:]),
        *(f"--config.data.root={folder}", "--config.model.pretrained=none"),
        "--config.train.batch_size=8",
    )


def test_a_folder_of_images_is_trained_evaluated_elsewhere_and_explained(folder, tmp_path, cache):
    workdir = tmp_path / "run"
    refused = command(
        "train", *on_folder(folder, workdir), "--config.data.allow_leakage=false", cache=cache
    )
    assert refused.returncode == 2
    assert "allow_leakage" in refused.stderr
    assert not workdir.exists()

    done = command("train", *on_folder(folder, workdir), cache=cache, check=0)
    assert "stamp: copies cross the split" in done.stderr
    metrics = json.loads((workdir / "eval/test/metrics.json").read_text())
    assert metrics["n"] == 24
    assert "copies cross the split" in metrics["stamps"]

    command("evaluate", "--workdir", workdir, "--data_root", folder / "val", cache=cache, check=0)
    external = json.loads((workdir / "eval/external/metrics.json").read_text())
    assert external["confusion"] == metrics["confusion"]

    image = next((folder / "val/fracture").glob("*.png"))
    out = tmp_path / "maps"
    command("explain", "--workdir", workdir, "--out", out, "--maps", image, cache=cache, check=0)
    assert len(list(out.glob("*.gradcam-fracture.png"))) == 1
    assert len(list(out.glob("*.npy"))) == 5

    missing = command("explain", "--workdir", workdir, "--out", out, "no.png", cache=cache)
    assert missing.returncode == 2
    assert "no.png" in missing.stderr
