"""What is printed: the table of metrics, its notes, and lines on calibration."""

import json

import numpy as np
import pytest
from prediction_tables import predictions_of, random_predictions

from msa_flax.evaluation import calibration, calibration_summary
from msa_flax.evaluation.predictions import sigmoid
from msa_flax.evaluation.summary import NAMES, TABLE4, metrics_json
from msa_flax.evaluation.terminal import calibration_lines, metrics_table
from msa_flax.files import write_json


def as_json(labels, probabilities, group, stamps=()):
    logits = np.log(probabilities / (1 - probabilities))
    predictions = predictions_of(labels, logits, group, probability=probabilities)
    return metrics_json(predictions, split="test", threshold=0.5, stamps=stamps, seconds=4.4164)


def random_case(groups, seed=0, n=300):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    group = np.char.mod("B%02d", np.arange(n) % groups) if groups else np.full(n, "")
    return labels, sigmoid(rng.normal(size=n) + labels), group


def table_of(**splits):
    text = metrics_table(splits)
    lines = text.splitlines()
    return lines, {line.split("  ")[0]: line for line in lines}


def unknown(counts, *stamps):
    labels = np.repeat([1, 1, 0, 0], counts)  # tp, fn, fp, tn
    probabilities = np.repeat([0.9, 0.1, 0.8, 0.2], counts)
    return as_json(labels, probabilities, np.full(len(labels), ""), stamps)


def test_the_table_shows_values_intervals_reasons_stamps_and_the_notice():
    lines, rows = table_of(
        validation=unknown((3, 1, 2, 4), "copies cross the split"),
        test=unknown((0, 0, 2, 4), "copies cross the split"),
    )
    assert list(rows)[2:10] == ["images", "groups", *TABLE4]
    assert "0.7000 [0.3968, 0.8922]" in rows["accuracy"]
    assert "0.6667 [0.3000, 0.9032]" in rows["specificity"]
    assert rows["recall"].endswith("undefined")
    assert "3 1 2 4" in rows["TP FN FP TN"]
    said = "undefined (the images are of one class only): auc, sensitivity_at_specificity_95, "
    assert f"test: {said}calibration_slope, calibration_intercept" in lines
    said = "undefined (there is no 'fracture' among the images): recall, average_precision"
    assert f"test: {said}" in lines
    assert lines.count("stamp: copies cross the split") == 1
    assert lines[-1] == "Research use only, not a medical device."
    starts = {line.index("4.4") for line in lines if line.startswith("seconds")}
    assert starts == {lines[0].index("validation")}


def test_the_table_says_how_its_intervals_were_made():
    lines, _ = table_of(test=as_json(*random_case(groups=0)))
    notes = lines[lines.index("") + 1 :]
    assert notes[:3] == [
        "[low, high] at 95 % of accuracy, precision, recall, specificity, npv: Wilson's interval, "
        "taking images as independent",
        "[low, high] at 95 % of auc: DeLong's interval on the logit scale, taking images as "
        "independent",
        "test: no interval (without groups there is one for proportions and the AUC only): all "
        "others",
    ]
    lines, rows = table_of(test=as_json(*random_case(groups=12)))
    assert lines[lines.index("") + 1 :] == [
        "[low, high] at 95 %: from 2,000 draws of whole groups",
        "Research use only, not a medical device.",
    ]
    assert all("[" in rows[name] for name in NAMES)


def test_proportions_without_an_error_have_a_line_of_their_own():
    labels, _, group = random_case(groups=12)
    lines, rows = table_of(test=as_json(labels, np.where(labels, 0.9, 0.1), group))
    notes = lines[lines.index("") + 1 :]
    assert notes[1] == (
        "[low, high] at 95 % of accuracy, precision, recall, specificity, npv: Clopper and "
        "Pearson's interval, each group as one trial"
    )
    assert "1.0000 [0.7354, 1.0000]" in rows["accuracy"]  # 0.025^(1/12)
    same = "test: no interval (it is the same in every draw of groups): "
    assert any(line.startswith(f"{same}f1, auc, mcc") for line in notes)


def test_too_few_groups_are_one_line_below_a_table_without_intervals():
    one, two = (as_json(*random_case(groups=1, seed=seed)) for seed in (0, 1))
    lines, rows = table_of(validation=one, test=two)
    assert lines[lines.index("") + 1 :] == [
        "validation, test: no interval (1 group; a clustered interval needs 10): all metrics",
        "Research use only, not a medical device.",
    ]
    assert not any("[" in rows[name] for name in NAMES)


def test_metrics_that_were_read_back_make_the_same_table(tmp_path):
    got = as_json(*random_case(groups=12))
    write_json(tmp_path / "a.json", got)
    assert metrics_table({"test": json.loads((tmp_path / "a.json").read_text())}) == metrics_table(
        {"test": got}
    )


# --- calibration ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated_test_images():
    """What metrics.json holds of calibrated test images, without and with its added sections."""
    of = {"checkpoint": "best", "step": 12, "data_fingerprint": "f" * 64}
    fitted = calibration.fit(random_predictions("validation"), **of)
    test = random_predictions("test", seed=1)
    values = metrics_json(test, split="test", threshold=0.5, stamps=[], seconds=1.0)
    found = calibration.apply(fitted, test.logit, alpha=0.1)
    return values, values | calibration_summary.sections(
        fitted, test, found, values=values, alpha=0.1, doubts=[]
    )


def test_calibration_takes_a_few_lines_and_none_where_there_is_none(calibrated_test_images):
    without, values = calibrated_test_images
    lines = calibration_lines({"test": values}).splitlines()
    assert len(lines) == 3
    assert "calibrated on 80 validation images: temperature (" in lines[0]
    assert "abstaining on" in lines[1]
    assert "not guaranteed: the 80 validation images" in lines[2]
    assert calibration_lines({"test": without}) == ""
    reason = calibration_summary.unavailable("because")
    assert calibration_lines({"v": without | reason}) == "v: not calibrated: because\n"


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        ("images", "finds at least 90 % of new 'fracture' images; it was chosen on 60"),
        (
            "groups",
            "every 'fracture' image of at least 90 % of new groups (patients or series); it",
        ),
    ],
)
def test_an_operating_point_is_said_in_plain_words(counted, said):
    point = {"threshold": 0.0312345, "sensitivity": 0.9, "confidence": 0.95, "counted": counted}
    point |= {"n": 60, "guarantee": True, "reason": ""}
    about = {"positive": "fracture"}
    (line,) = calibration_lines({"test": about | {"operating_point": point}}).splitlines()
    start = "test: images with a probability of 0.03123 or more are called 'fracture'; with 95 % "
    assert line.startswith(start + "confidence this threshold ")
    assert said in line
    assert line.endswith(f"60 validation {counted} with 'fracture'")
    doubtful = point | {"guarantee": False, "reason": "it was chosen on these images"}
    _, line = calibration_lines({"test": about | {"operating_point": doubtful}}).splitlines()
    assert line == "test: that sensitivity is not guaranteed: it was chosen on these images"
