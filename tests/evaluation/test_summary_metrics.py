import json
import math

import numpy as np
import pytest
from prediction_tables import predictions_of
from sklearn import metrics as sklearn_metrics

from msa_flax.evaluation.predictions import PredictionsError, sigmoid
from msa_flax.evaluation.summary import NAMES, TABLE4, compute_metrics, metrics_json
from msa_flax.files import write_json


def from_counts(tp, fn, fp, tn):
    labels = np.repeat([1, 1, 0, 0], [tp, fn, fp, tn])
    probabilities = np.repeat([0.9, 0.1, 0.8, 0.2], [tp, fn, fp, tn])
    return labels, probabilities


def values(labels, probabilities, threshold=0.5):
    found = compute_metrics(labels, probabilities, threshold=threshold)["metrics"]
    return {name: entry["value"] for name, entry in found.items()}


def random_case(seed=0, n=300):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return labels, sigmoid(rng.normal(size=n) + labels)


def as_json(labels, probabilities, group="B10", stamps=(), **columns):
    columns = {"probability": probabilities} | columns
    logits = np.log(probabilities / (1 - probabilities))
    return metrics_json(
        predictions_of(labels, logits, group, **columns),
        split="test",
        threshold=0.5,
        stamps=stamps,
        seconds=4.4164,
    )


def test_a_hand_computed_case_has_the_hand_computed_metrics():
    found = compute_metrics(*from_counts(3, 1, 2, 4), threshold=0.5)
    assert found["confusion"] == {"tp": 3, "fn": 1, "fp": 2, "tn": 4}
    assert TABLE4 == NAMES[:6] == ("accuracy", "precision", "recall", "specificity", "f1", "auc")
    got = values(*from_counts(3, 1, 2, 4))
    assert {name: got[name] for name in TABLE4} == {
        "accuracy": 0.7,
        "precision": 0.6,
        "recall": 0.75,
        "specificity": 4 / 6,
        "f1": 6 / 9,
        # of the 24 pairs: 3 x (2 + 4) right, 1 x 2 wrong (0.1 < 0.8), 1 x 4 wrong (0.1 < 0.2)
        "auc": 18 / 24,
    }
    others = {
        "npv": 4 / 5,
        "mcc": (3 * 4 - 2 * 1) / math.sqrt(5 * 4 * 6 * 5),
        "net_benefit": 3 / 10 - 2 / 10,
        "brier": (3 * 0.1**2 + 0.9**2 + 2 * 0.8**2 + 4 * 0.2**2) / 10,
        # down to 0.9 three of four fractures are found, at 0.8 two of six normal images are called
        "sensitivity_at_specificity_95": 3 / 4,
        "average_precision": 3 / 4 + 1 / 4 * 4 / 10,
        "log_loss": -(3 * math.log(0.9) + math.log(0.1) + 2 * math.log(0.2) + 4 * math.log(0.8))
        / 10,
    }
    # Probabilities are float32, which have seven digits.
    assert {name: got[name] for name in others} == pytest.approx(others, rel=1e-6)


def test_the_counts_of_paper_1s_test_row_give_its_numbers_within_a_unit_of_the_last_digit():
    got = values(*from_counts(200, 0, 1, 199))
    table4 = {
        "accuracy": 0.9975,
        "precision": 0.9950,
        "f1": 0.9974,
        "recall": 0.9999,
        "specificity": 0.9950,
    }
    for name, published in table4.items():
        # 1e-4 is the last digit, half of it is our own rounding to four digits.
        assert got[name] == pytest.approx(published, abs=1.5e-4), name


def test_no_neighbouring_confusion_matrix_gives_paper_1s_test_row():
    for counts in ((199, 1, 1, 199), (200, 0, 2, 198), (200, 0, 0, 200)):
        assert abs(values(*from_counts(*counts))["accuracy"] - 0.9975) > 1.5e-4


def test_a_probability_equal_to_the_threshold_is_called_a_fracture():
    found = compute_metrics(np.array([1, 0]), np.array([0.5, 0.4999]), threshold=0.5)
    assert found["confusion"] == {"tp": 1, "fn": 0, "fp": 0, "tn": 1}


def test_the_threshold_is_compared_in_float32_as_the_table_stores_it():
    # float32(0.7) is below the float64 0.7; stored and read back it must still count as reached.
    found = compute_metrics(np.array([1, 0]), np.array([0.7, 0.1], np.float32), threshold=0.7)
    assert found["confusion"]["tp"] == 1


def test_tied_scores_count_half_in_the_auc():
    assert values(np.array([0, 1, 0, 1]), np.full(4, 0.3))["auc"] == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_the_metrics_of_table_4_agree_with_scikit_learn(seed):
    labels, probabilities = random_case(seed)
    called = probabilities >= 0.5
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, called),
        "precision": sklearn_metrics.precision_score(labels, called),
        "recall": sklearn_metrics.recall_score(labels, called),
        "specificity": sklearn_metrics.recall_score(labels, called, pos_label=0),
        "f1": sklearn_metrics.f1_score(labels, called),
        "auc": sklearn_metrics.roc_auc_score(labels, probabilities),
    }
    # The same ratios of the same counts, at most a few roundings of float64 apart.
    got = values(labels, probabilities)
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_the_auc_is_the_share_of_pairs_in_the_right_order():
    labels, probabilities = random_case(n=80)
    positive, negative = probabilities[labels == 1], probabilities[labels == 0]
    above = positive[:, None] > negative[None, :]
    # A mean of whole numbers: only float64 rounding is left.
    assert values(labels, probabilities)["auc"] == pytest.approx(above.mean(), rel=1e-12)


def test_permuting_the_rows_changes_nothing():
    labels, probabilities = random_case()
    order = np.random.default_rng(1).permutation(len(labels))
    before = compute_metrics(labels, probabilities, threshold=0.5)
    assert compute_metrics(labels[order], probabilities[order], threshold=0.5) == before


def test_permuting_probabilities_against_labels_does_change_the_metrics():
    labels, probabilities = random_case()
    order = np.random.default_rng(1).permutation(len(labels))
    assert values(labels, probabilities[order])["auc"] < values(labels, probabilities)["auc"] - 0.1


def test_swapping_the_classes_swaps_recall_and_specificity():
    labels, probabilities = random_case()
    assert not np.any(probabilities == 0.5)  # on the threshold the swap would not be symmetric
    before, after = values(labels, probabilities), values(1 - labels, 1 - probabilities)
    assert after["recall"] == before["specificity"]
    assert after["specificity"] == before["recall"]
    assert after["accuracy"] == before["accuracy"]
    # Both sides are counts of the same pairs.
    assert after["auc"] == pytest.approx(before["auc"], rel=1e-12)
    assert after["recall"] != before["recall"]


def test_the_intervals_are_wilsons():
    entry = compute_metrics(*from_counts(3, 1, 2, 4), threshold=0.5)["metrics"]["accuracy"]
    n, p, z = 10, 0.7, 1.959963984540054  # the 97.5 % quantile of the normal distribution
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # The same closed form; rounding only.
    assert entry["low"] == pytest.approx((centre - half) / (1 + z**2 / n), rel=1e-9)
    assert entry["high"] == pytest.approx((centre + half) / (1 + z**2 / n), rel=1e-9)
    assert entry["method"] == "wilson"


APART = dict.fromkeys(("calibration_slope", "calibration_intercept"), "separates the classes")
ONE_CLASS = dict.fromkeys((*APART, "auc", "sensitivity_at_specificity_95"), "one class")
NO_FRACTURE = ONE_CLASS | {"average_precision": "no 'fracture'"}


@pytest.mark.parametrize(
    ("counts", "undefined"),
    [
        (
            (0, 3, 0, 4),
            {"precision": "predicted", "f1": "precision", "mcc": "precision"} | APART,
        ),
        ((0, 0, 2, 4), {"recall": "no 'fracture'", "f1": "recall", "mcc": "recall"} | NO_FRACTURE),
        ((3, 1, 0, 0), {"specificity": "no 'normal'", "mcc": "specificity"} | ONE_CLASS),
        (
            (0, 0, 0, 4),
            {"precision": "predicted", "recall": "no 'fracture'"}
            | {"f1": "precision", "mcc": "precision"}
            | NO_FRACTURE,
        ),
        ((3, 0, 2, 0), {"npv": "predicted", "mcc": "npv"} | APART),
        ((0, 2, 3, 4), APART),
        ((3, 1, 2, 4), {}),
    ],
)
def test_what_is_undefined_is_none_with_a_reason_and_nothing_else_is(counts, undefined):
    found = compute_metrics(*from_counts(*counts), threshold=0.5)["metrics"]
    assert {name for name in NAMES if found[name]["value"] is None} == set(undefined)
    for name in NAMES:
        assert ("reason" in found[name]) == (name in undefined)
        if name in undefined:
            assert undefined[name] in found[name]["reason"]
            assert found[name]["low"] is found[name]["high"] is None
            assert found[name]["method"] == "none"


def test_probabilities_of_0_and_1_have_no_logit_and_no_finite_loss_where_they_are_wrong():
    labels, probabilities = np.array([1, 1, 0, 0]), np.array([1.0, 0.4, 0.6, 0.0])
    found = compute_metrics(labels, probabilities, threshold=0.5)["metrics"]
    assert found["log_loss"]["value"] == pytest.approx(2 * math.log(1 / 0.4) / 4, rel=1e-6)
    assert "no logit" in found["calibration_slope"]["reason"]
    found = compute_metrics(1 - labels, probabilities, threshold=0.5)["metrics"]
    assert "infinite" in found["log_loss"]["reason"]
    logits = np.array([40.0, -0.4, 0.4, -40.0])  # with their logits there is nothing undefined
    found = compute_metrics(1 - labels, probabilities, threshold=0.5, logits=logits)["metrics"]
    assert found["log_loss"]["value"] == pytest.approx(20, abs=0.5)
    assert found["calibration_slope"]["value"] < 0


def test_at_a_threshold_of_1_there_is_no_net_benefit():
    found = compute_metrics(*from_counts(3, 1, 2, 4), threshold=1.0)["metrics"]
    assert "no hit outweighs" in found["net_benefit"]["reason"]


def test_without_images_everything_is_undefined():
    found = compute_metrics(np.zeros(0, int), np.zeros(0), threshold=0.5)
    assert {entry["reason"] for entry in found["metrics"].values()} == {"there are no images"}
    assert found["by_group"] == {}


def test_f1_is_zero_where_every_call_is_wrong():
    assert values(*from_counts(0, 2, 3, 4))["f1"] == 0


def test_metrics_json_has_the_published_form():
    labels, probabilities = from_counts(2, 0, 1, 1)
    group, stamps = np.array(["B1", "B2", "", "B2"]), ["series cross the split"]
    got = as_json(labels, probabilities, group, stamps)
    assert set(got) == {
        "schema_version",
        "split",
        "n",
        "groups",
        "negative",
        "positive",
        "threshold",
        "stamps",
        "confusion",
        "metrics",
        "by_group",
        "seconds",
    }
    assert got["schema_version"] == 1
    assert got["positive"] == "fracture"
    assert (got["n"], got["groups"], got["split"]) == (4, 2, "test")
    assert got["stamps"] == ["series cross the split"]
    assert set(got["metrics"]) == set(NAMES)
    assert list(got["by_group"]) == ["B1", "B2"]
    assert json.loads(json.dumps(got)) == got
    assert all(
        type(v) in (int, float, str, type(None))
        for e in got["metrics"].values()
        for v in e.values()
    )


def test_metrics_are_made_of_the_groups_and_logits_of_the_predictions():
    labels, probabilities = random_case()
    group = np.char.mod("B%02d", np.arange(len(labels)) % 12)
    logits = np.random.default_rng(5).normal(size=len(labels))
    got = as_json(labels, probabilities, group=group, logit=logits)
    expected = compute_metrics(labels, probabilities, threshold=0.5, group=group, logits=logits)
    assert {name: got[name] for name in expected} == expected
    without = compute_metrics(labels, probabilities, threshold=0.5)["metrics"]
    assert without["log_loss"]["value"] != got["metrics"]["log_loss"]["value"]


def test_rows_of_another_split_are_refused():
    labels, probabilities = from_counts(1, 1, 1, 1)
    with pytest.raises(PredictionsError, match="'train'"):
        as_json(labels, probabilities, split=np.array(["test", "train", "test", "test"]))


def test_written_json_has_the_same_bytes_in_any_order_and_undefined_values_as_null(tmp_path):
    got = as_json(*from_counts(0, 0, 2, 4))
    write_json(tmp_path / "a.json", got)
    write_json(tmp_path / "b.json", dict(reversed(got.items())))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    read = json.loads((tmp_path / "a.json").read_text())
    assert read["metrics"]["auc"]["value"] is None
    assert read == got


def test_the_same_predictions_in_any_order_give_the_same_bytes(tmp_path):
    labels, probabilities = random_case()
    group = np.char.mod("B%02d", np.arange(len(labels)) % 12)
    order = np.random.default_rng(3).permutation(len(labels))
    write_json(tmp_path / "a.json", as_json(labels, probabilities, group=group))
    other = as_json(labels[order], probabilities[order], group=group[order])
    write_json(tmp_path / "b.json", other)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    again = as_json(labels, probabilities, group=group[order])  # other groups, other intervals
    assert again["metrics"]["auc"]["value"] == other["metrics"]["auc"]["value"]
    assert again["metrics"]["auc"]["low"] != other["metrics"]["auc"]["low"]
