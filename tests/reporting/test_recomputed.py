"""The page's sections on calibration come from the tables, and what was typed in is named."""

import json

import numpy as np
import pytest
from saved_runs import calibrate_run, write_run

from msa_flax.evaluation.predictions import sigmoid
from msa_flax.reporting.page import render_page
from msa_flax.reporting.saved import read_run

STORED, METRICS = "checkpoints/calibration-best.json", "eval/test/metrics.json"
TABLE = "eval/test/calibrated.csv"


@pytest.fixture
def folder(tmp_path):
    folder = write_run(tmp_path / "w", groups=12, stamps=["series cross the split"])
    calibrate_run(folder)
    return folder


def change(folder, name, *path, to):
    values = json.loads((folder / name).read_text())
    *sections, last = path
    inside = values
    for key in sections:
        inside = inside[key]
    inside[last] = to
    (folder / name).write_text(json.dumps(values))


def test_what_evaluate_wrote_differs_in_nothing(folder):
    run = read_run(folder, "test")
    assert run.differences == []
    assert run.metrics == json.loads((folder / METRICS).read_text())
    assert "It was chosen" not in render_page(run)


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("calibration", "temperature", "metrics", "ece", "value"), 0.001),
        (("calibration", "isotonic", "metrics", "brier", "low"), 0.0),
        (("calibration", "fitted_on", "images", "all"), 8000),
        (("conformal", "coverage", "fracture", "value"), 0.999),
        (("conformal", "abstained", "value"), 0.0),
        (("conformal", "guarantee"), True),
        (("conformal", "reason"), "all is well"),
        (("operating_point", "sensitivity"), 0.99),
        (("operating_point", "guarantee"), True),
    ],
)
def test_a_number_typed_into_metrics_json_is_named_and_not_shown(folder, path, to):
    before = read_run(folder, "test")
    change(folder, METRICS, *path, to=to)
    run = read_run(folder, "test")
    (said,) = run.differences
    assert said.startswith(f"{'.'.join(path)} ({to} in metrics.json, ")
    assert run.metrics == before.metrics
    assert ".".join(path) in render_page(run)


def test_a_changed_table_or_calibration_is_named(folder):
    text = (folder / TABLE).read_text()
    (folder / TABLE).write_text(text.replace(",normal,", ",fracture,", 2))
    assert read_run(folder, "test").differences == ["calibrated.csv in 2 rows"]
    (folder / TABLE).unlink()
    assert read_run(folder, "test").differences == ["calibrated.csv is gone"]
    (folder / TABLE).write_text(text)
    change(folder, STORED, "temperature", "value", to=9.0)
    run = read_run(folder, "test")
    assert run.differences == ["temperature of calibration-best.json is not that of its logits"]
    assert run.metrics == json.loads((folder / METRICS).read_text())


def test_what_cannot_be_computed_again_is_said(folder):
    change(folder, STORED, "data_fingerprint", to="0" * 64)
    (said,) = read_run(folder, "test").differences
    assert said.startswith("nothing of calibration is computed again: the stored calibration is of")
    (folder / STORED).unlink()
    (said,) = read_run(folder, "test").differences
    assert said == "calibration-best.json is gone, so that nothing of calibration is computed again"


def test_a_threshold_that_was_chosen_later_is_not_said_to_be_this_one(folder):
    stored = json.loads((folder / STORED).read_text())
    point = stored["operating_point"]
    later = sorted(stored["logits"]["fracture"])[point["missed"] + 1]
    other = {"missed": point["missed"] + 1, "threshold": float(sigmoid(np.float32([later]))[0])}
    change(folder, STORED, "operating_point", to=point | other)
    run = read_run(folder, "test")
    assert "operating_point.threshold" in run.differences[0]
    assert run.metrics["operating_point"] is None
    render_page(run)
