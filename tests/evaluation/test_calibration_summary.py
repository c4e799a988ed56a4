"""What metrics.json says of calibrated values: scores, sets, reasons and guarantees."""

import csv

import numpy as np
import pytest
from prediction_tables import random_predictions

from msa_flax.evaluation import calibration_summary
from msa_flax.evaluation.calibration import PROBABILITIES, Calibration, apply, fit
from msa_flax.evaluation.summary import metrics_json
from msa_flax.evaluation.terminal import calibration_lines
from msa_flax.files import write_json

OF = {"checkpoint": "best", "step": 12, "data_fingerprint": "f" * 64}
METHODS = ("temperature", "isotonic", "venn_abers")


def calibrated(calibration, logits, alpha=0.1):
    return apply(calibration, logits, alpha=alpha)


def sections(calibration, table, *, alpha=0.1, doubts=()):
    values = metrics_json(table, split="test", threshold=0.5, stamps=[], seconds=1.0)
    found = calibrated(calibration, table.logit, alpha=alpha)
    return values, calibration_summary.sections(
        calibration, table, found, values=values, alpha=alpha, doubts=doubts
    )


def test_sections_hold_the_scores_beside_the_uncalibrated_ones(tmp_path):
    calibration, test = (
        fit(random_predictions("validation", n=400), **OF),
        random_predictions("test", 400, seed=1),
    )
    values, found = sections(calibration, test)
    write_json(tmp_path / "metrics.json", values | found)  # no NaN, nothing JSON cannot say
    part = found["calibration"]
    for score in calibration_summary.SCORES:
        assert part["uncalibrated"][score] == values["metrics"][score]
    brier = np.mean((calibrated(calibration, test.logit).probability["isotonic"] - test.label) ** 2)
    # The table's probabilities are float32, of seven digits.
    assert part["isotonic"]["metrics"]["brier"]["value"] == pytest.approx(brier, abs=1e-6)
    for name in METHODS:
        entry = part[name]["metrics"]["brier"]
        assert entry["method"] == "clustered bootstrap"
        assert entry["groups"] == 20
    assert part["temperature"]["parameters"] == {"temperature": calibration.temperature.value}
    # Logits were made three times too large for their noise: dividing by about 1.5 is better.
    better = part["temperature"]["metrics"]["log_loss"]["value"]
    assert better < values["metrics"]["log_loss"]["value"]


def test_an_isotonic_probability_of_0_for_a_fracture_has_no_log_loss_but_a_reason():
    labels = np.repeat([0, 1], 20)
    calibration = fit(
        random_predictions("validation", logits=np.linspace(-2, 2, 40), labels=labels), **OF
    )
    test = random_predictions("test", logits=np.linspace(2, -2, 40), labels=labels)
    _, found = sections(calibration, test)
    entry = found["calibration"]["isotonic"]["metrics"]["log_loss"]
    assert entry["value"] is None
    assert "the loss is infinite" in entry["reason"]
    assert found["calibration"]["venn_abers"]["metrics"]["log_loss"]["value"] > 0
    warm = found["calibration"]["temperature"]["parameters"]
    assert "Platt's" in warm["reason"]


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (np.linspace(-2, 2, 30), np.zeros(30, int), "no 'fracture'"),
        (np.linspace(-2, 2, 30), np.ones(30, int), "no 'normal'"),
        (np.full(30, 0.5), np.arange(30) % 2, "are the same"),
    ],
)
def test_degenerate_validation_images_leave_conformal_sets_and_a_reason(
    logits, labels, said, tmp_path
):
    fit(random_predictions("validation", logits=logits, labels=labels), **OF).write(
        tmp_path / "c.json"
    )
    calibration = Calibration.read(tmp_path / "c.json")
    test = random_predictions("test", seed=1)
    values, found = sections(calibration, test)
    for name in METHODS:
        assert set(found["calibration"][name]) == {"reason"}
        assert said in found["calibration"][name]["reason"]
    write_json(tmp_path / "m.json", values | found)
    calibrated(calibration, test.logit).write(tmp_path / "t.csv", test.example_id)
    with (tmp_path / "t.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert [row[name] for name in PROBABILITIES] == [""] * 5
    assert row["set"] in ("neither", "normal", "fracture", "both")
    for name, label in (("fracture", 1), ("normal", 0)):
        if label not in labels:
            assert found["conformal"]["coverage"][name]["value"] == 1
            limit = found["conformal"]["thresholds"][name]
            assert (limit["n"], limit["logit"]) == (0, None)
            assert "takes 9 validation images of that class, there are 0" in limit["reason"]
    said_of_it = calibration_lines({"test": values | found})
    assert said in said_of_it
    assert all(line.startswith("test: ") for line in said_of_it.splitlines())


@pytest.mark.parametrize(
    ("groups", "doubts", "guarantee", "said"),
    [
        (None, [], True, "probability 0.9 or more for each class"),
        (20, [], False, "the 80 validation images are of 20 groups"),
        (0, [], False, "groups unknown"),
        (0, ["groups unknown"], False, "groups unknown"),
        (None, ["copies cross the split"], False, "copies cross the split"),
        (None, ["from elsewhere", "series cross the split"], False, "elsewhere; series cross"),
    ],
)
def test_a_guarantee_is_given_only_where_images_may_be_exchangeable(
    groups, doubts, guarantee, said
):
    calibration = fit(random_predictions("validation", groups=groups), **OF)
    test = random_predictions("test", seed=1, groups=groups)
    _, found = sections(calibration, test, doubts=doubts)
    assert found["conformal"]["guarantee"] is guarantee
    assert said in found["conformal"]["reason"]
    assert found["conformal"]["reason"].count("groups unknown") <= 1


def test_several_evaluated_images_of_one_group_end_the_guarantee_too():
    calibration = fit(random_predictions("validation", groups=None), **OF)
    _, found = sections(calibration, random_predictions("test", seed=1, groups=20))
    assert not found["conformal"]["guarantee"]
    assert "the 80 evaluated images are of 20 groups" in found["conformal"]["reason"]


def test_alpha_is_chosen_when_it_is_used():
    calibration, test = (
        fit(random_predictions("validation"), **OF),
        random_predictions("test", seed=1),
    )
    shares = [
        sections(calibration, test, alpha=alpha)[1]["conformal"]["coverage"]["overall"]["value"]
        for alpha in (0.05, 0.2, 0.5)
    ]
    assert shares == sorted(shares, reverse=True)
    np.testing.assert_array_equal(
        calibrated(calibration, test.logit, alpha=0.2).p_values,
        calibrated(calibration, test.logit).p_values,
    )


def test_the_order_of_rows_changes_nothing():
    calibration, test = fit(random_predictions("validation"), **OF), random_predictions("test")
    other = test.take(np.random.default_rng(1).permutation(len(test)))
    assert sections(calibration, other) == sections(calibration, test)


def test_an_operating_point_comes_with_where_it_was_chosen_and_what_is_doubtful():
    fitted = fit(random_predictions("validation"), **OF, sensitivity=0.8)
    (found,) = calibration_summary.operating_point(fitted, []).values()
    assert found["threshold"] == fitted.operating_point.threshold
    assert found["chosen_on"] == {"split": "validation", "checkpoint": "best", "step": 12}
    assert (found["guarantee"], found["reason"]) == (True, "")
    (found,) = calibration_summary.operating_point(fitted, ["one", "two"]).values()
    assert (found["guarantee"], found["reason"]) == (False, "one; two")
    without = fit(random_predictions("validation"), **OF)
    assert calibration_summary.operating_point(without, []) == {}
