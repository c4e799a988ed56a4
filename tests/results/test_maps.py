"""The maps that a run writes of its own images; test_explain_command.py checks those of explain."""

import csv
import dataclasses

import numpy as np
import pytest

from msa_flax import run as runs
from msa_flax.config import Config, DataConfig, ModelConfig
from msa_flax.evaluation.metrics import outcomes
from msa_flax.evaluation.predictions import WORST, Predictions
from msa_flax.reporting.gallery import choose_cases
from msa_flax.reporting.saved import read_run
from msa_flax.results.maps import explain_errors
from msa_flax.results.scores import evaluate_split

CONFIG = Config(
    model=ModelConfig(backbone="lenet_alexnet", attention="none", pretrained="none"),
    data=DataConfig(source="phantom", protocol="kfold", phantom_patients=12, image_size=64),
).validate()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, untrained_run):
    """A run that has learned nothing, evaluated, so that about half of its images are errors."""
    workdir = tmp_path_factory.mktemp("runs") / "phantom"
    started = untrained_run(workdir, CONFIG)
    run = dataclasses.replace(runs.restore(workdir), loaded=started.data)
    evaluate_split(run, "test")
    return run


def explained(run):
    with (run.results("test") / "errors/explanations.csv").open(newline="") as file:
        return {row["example_id"] for row in csv.DictReader(file)}


def test_the_worst_errors_are_explained_and_open_the_gallery(evaluated):
    table = Predictions.read(evaluated.results("test") / "predictions.csv")
    outcome = outcomes(table.label, table.probability, 0.5)
    explain_errors(evaluated, split="test", threshold=0.5)
    errors = [np.flatnonzero(outcome == key) for key in ("fn", "fp")]
    assert len(explained(evaluated)) == sum(min(len(rows), WORST) for rows in errors) > 0
    assert explained(evaluated) <= set(table.example_id[np.concatenate(errors)].tolist())
    found = choose_cases(read_run(evaluated.workdir, "test"))
    assert found.command == ""
    assert all(case.pictures for case in found.cases)


def test_without_an_error_the_table_is_empty_and_an_earlier_one_is_replaced(evaluated):
    explain_errors(evaluated, split="test", threshold=0.5)
    table = Predictions.read(evaluated.results("test") / "predictions.csv")
    right = dataclasses.replace(table, probability=table.label.astype(np.float32))
    path = evaluated.results("test") / "predictions.csv"
    before = path.read_bytes()
    right.write(path)
    explain_errors(evaluated, split="test", threshold=0.5)
    assert explained(evaluated) == set()
    path.write_bytes(before)
