"""The numbers of an operating point are scikit-learn's, and are counted as evaluate counts."""

import numpy as np
import pytest
from sklearn import metrics as reference

from msa_flax.evaluation import compute_metrics
from msa_flax.reporting import points


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_every_number_is_scikit_learns(table, threshold):
    run = table()
    found = points.values(points.counts(run.label, run.probability, threshold))
    called = (run.probability >= np.float32(threshold)).astype(int)
    arguments = (run.label, called)
    assert found == pytest.approx(
        {
            "accuracy": reference.accuracy_score(*arguments),
            "sensitivity": reference.recall_score(*arguments),
            "specificity": reference.recall_score(*arguments, pos_label=0),
            "ppv": reference.precision_score(*arguments),
            "npv": reference.precision_score(*arguments, pos_label=0),
            "f1": reference.f1_score(*arguments),
            "mcc": reference.matthews_corrcoef(*arguments),
        },
        rel=1e-12,
    )


def test_images_at_the_threshold_are_counted_as_evaluate_counts_them():
    label, probability = np.array([1, 0, 1, 0]), np.array([0.1, 0.1, 0.3, 0.7], np.float32)
    for threshold in (0.1, 0.3, 0.7, 0.0, 1.0):  # 0.1 is not the float32 nearest to it
        assert (
            points.counts(label, probability, threshold)
            == compute_metrics(label, probability, threshold=threshold)["confusion"]
        )


def test_what_has_no_denominator_is_undefined():
    found = points.values({"tp": 0, "fn": 3, "fp": 0, "tn": 5})
    assert found["accuracy"] == 0.625
    assert [found[key] for key in ("ppv", "f1", "mcc")] == [None] * 3
    assert points.shown(found["ppv"]) == "undefined"


@pytest.mark.parametrize(
    ("value", "text"),
    # Ties as JavaScript's toFixed rounds them; what only looks like a tie goes where it belongs.
    [
        (0.90625, "0.9063"),
        (0.96875, "0.9688"),
        (-0.03125, "-0.0313"),
        (0.00015, "0.0001"),  # 0.000149999... in binary
        (0.0, "0.0000"),
        (1, "1.0000"),
        (2 / 3, "0.6667"),
    ],
)
def test_numbers_are_rounded_as_in_the_page(value, text):
    assert points.shown(value) == text


def test_an_interval_that_is_not_there_is_empty():
    assert points.interval({"value": 1.0, "low": None, "high": None}) == ""
    assert points.interval({"low": 0.25, "high": 0.75}) == "[0.2500, 0.7500]"
