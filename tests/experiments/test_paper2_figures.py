"""experiments/paper2_figures.py on a tiny run, as a user calls it."""

import csv
import dataclasses
import json
import pathlib
import shutil

import command_line
import numpy as np
import optax
import paper2_figures
import pytest

from msa_flax import data, files
from msa_flax.config import quickstart
from msa_flax.data.splits import assign_splits
from msa_flax.evaluation.predictions import Predictions
from msa_flax.models import create_model, initialise
from msa_flax.results.scores import evaluate_split
from msa_flax.run import Data, Run, restore
from msa_flax.run_files import RUN_FILES
from msa_flax.training.checkpoint import Checkpoints
from msa_flax.training.steps import create_state
from msa_flax.training.xla import prepare_jax

PICTURES = ("roc", "precision_recall", "confusion", "learning_curves", "robustness")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What training leaves, of a network that was not trained: its logits are made to spread."""
    workdir = tmp_path_factory.mktemp("runs") / "first" / "seed-0"
    workdir.mkdir(parents=True)
    prepare_jax()  # the script, in this process and in another, then compiles nothing
    config = quickstart()
    config.data.phantom_patients, config.data.image_size, config.model.alpha = 12, 32, 0.125
    examples = data.load(config.data)
    splits = assign_splits(examples, config.data, seed=0)
    model = create_model(config.model)
    variables = initialise(model, seed=0)
    untrained = Run(
        workdir=workdir, config=config, model=model, variables=variables, step=0, checkpoint="best"
    )
    logits = untrained.predict(examples.images)
    (head,) = variables["params"]["classifier"].values()
    mean, deviation = logits.mean(), logits.std()
    head["kernel"], head["bias"] = head["kernel"] / deviation, np.full(1, -mean / deviation)
    Checkpoints(workdir).save_best(create_state(variables, optax.sgd(0.1)), {})
    files.write_json(workdir / "config.json", {"config": config.to_dict()})
    splits.write(workdir / "splits.csv")
    hashes = {name: files.sha256(workdir / name) for name in RUN_FILES}
    facts = {"data_fingerprint": examples.fingerprint, "files": hashes}
    files.write_json(workdir / "run.json", facts)
    rows = [
        {"step": 9 * epoch, "epoch": epoch, "split": split, "loss": 1 / epoch, "accuracy": 0.5}
        for epoch in (1, 2)
        for split in ("train", "validation")
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stamped = Data(examples=examples, splits=splits, stamps=["a stamp"])
    evaluate_split(dataclasses.replace(restore(workdir), loaded=stamped), "test")
    return workdir


@pytest.fixture
def copied(trained, tmp_path):
    """A second run with the same test set."""
    return pathlib.Path(shutil.copytree(trained, tmp_path / "second" / "seed-0"))


def refused(capsys, *arguments):
    code = command_line.call(paper2_figures.main, [str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


def test_two_runs_are_compared_and_disturbed(trained, copied, tmp_path, capsys):
    out = tmp_path / "out"
    assert paper2_figures.main([str(trained), str(copied), "--out", str(out)]) == 0
    assert "not a medical device" in capsys.readouterr().out
    assert sorted(path.stem for path in out.glob("*.png")) == sorted(PICTURES)
    with (out / "robustness.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["run", "corruption", "severity", "n", "accuracy", "auc"]
    assert len(rows) == 2 * 5 * 6
    half = len(rows) // 2
    assert {row["run"] for row in rows[:half]} == {"first/seed-0"}
    assert {row["run"] for row in rows[half:]} == {"second/seed-0"}
    for one, other in zip(rows[:half], rows[half:], strict=True):  # the same run twice
        assert {**one, "run": ""} == {**other, "run": ""}
    metrics = json.loads((trained / "eval/test/metrics.json").read_text())
    for row in rows:
        assert int(row["n"]) == metrics["n"]
        if row["severity"] == "0":
            assert float(row["accuracy"]) == metrics["metrics"]["accuracy"]["value"]
            assert float(row["auc"]) == metrics["metrics"]["auc"]["value"]
    assert len({row["auc"] for row in rows}) > 1


def test_fewer_images_are_evenly_chosen_with_the_classes_in_proportion():
    n = 40
    label = (np.arange(n) % 4 == 0).astype(int)
    columns = dict.fromkeys(("split", "fold", "group", "family"), np.full(n, ""))
    table = Predictions(
        example_id=np.array([f"{i:02d}" for i in range(n)]),
        label=label,
        logit=np.zeros(n),
        probability=np.full(n, 0.5),
        **columns,
    )
    ids = paper2_figures.choose(table, 8)
    assert len(set(ids)) == 8
    assert label[ids.astype(int)].sum() == 2
    assert sorted(paper2_figures.choose(table, None)) == sorted(paper2_figures.choose(table, 99))
    assert len(paper2_figures.choose(table, None)) == n


def test_the_number_of_images_is_obeyed(trained, tmp_path):
    assert paper2_figures.main([str(trained), "--out", str(tmp_path), "--images", "6"]) == 0
    with (tmp_path / "robustness.csv").open(newline="") as file:
        assert {row["n"] for row in csv.DictReader(file)} == {"6"}


def test_bad_input_is_said_in_one_sentence(capsys, trained, copied, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "required" in refused(capsys)
    assert "--out" in refused(capsys, trained)
    assert "expected 1 or more, got 0" in refused(capsys, trained, *out, "--images", 0)
    assert "invalid choice" in refused(capsys, trained, *out, "--split", "other")
    assert "without config.json" in refused(capsys, tmp_path / "nowhere", *out)
    assert "more than once" in refused(capsys, trained, trained, *out)
    said = refused(capsys, trained, *out, "--split", "train")
    assert "run python -m msa_flax.evaluate" in said
    assert not (tmp_path / "out").exists()

    table = copied / "eval/test/predictions.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-1]))
    said = refused(capsys, trained, copied, *out)
    assert "the same test images" in said
    assert f"{len(lines) - 2} of them the same" in said
    table.write_text("".join([*lines[:-1], lines[-1].replace("phantom/", "other/", 1)]))
    said = refused(capsys, copied, *out)
    assert "are not in its data" in said
