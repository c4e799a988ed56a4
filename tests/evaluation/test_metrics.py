"""Metrics of weighted images against scikit-learn on images that really are there several times."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn import metrics as sklearn_metrics
from sklearn.linear_model import LogisticRegression

from msa_flax.evaluation import metrics
from msa_flax.evaluation.calibration_slope import slope_and_intercept

NAMES = {
    *("accuracy", "precision", "npv", "recall", "specificity", "f1", "mcc", "net_benefit"),
    *("brier", "log_loss", "auc", "average_precision", "sensitivity_at_specificity_95"),
    *("ece", "ece_debiased", "calibration_slope", "calibration_intercept"),
}


def images(seed=0, n=240, groups=12, ties=True):
    """Labels, probabilities (in steps of 0.025 or without ties), and groups of unequal size."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n).astype(bool)
    probability = expit(rng.normal(size=n) + 1.5 * (label - 0.5))
    if ties:
        probability = np.clip(np.round(probability / 0.025) * 0.025, 0.025, 0.975)
    # As predictions.csv holds them, so that rounding to float32 makes no difference later.
    probability = probability.astype(np.float32).astype(np.float64)
    return label, probability, np.minimum(rng.geometric(0.2, n) - 1, groups - 1)


def rows_of(label, probability, group, threshold=0.5):
    return metrics.sort_images(label, probability, threshold=threshold, group=group)


def everything(rows, weights):
    found = metrics.count_metrics(rows, weights) | metrics.rank_metrics(rows, weights)
    return found | slope_and_intercept(rows, weights)


def once(rows):
    return np.ones((1, rows.groups), int)


def second_opinion(label, probability, threshold=0.5):
    """All metrics by scikit-learn, or written out the slow way."""
    called = probability >= threshold
    false_rate, true_rate, _ = sklearn_metrics.roc_curve(
        label, probability, drop_intermediate=False
    )
    fit = LogisticRegression(C=np.inf, tol=1e-12, solver="newton-cholesky", max_iter=500)
    fit.fit(logit(probability)[:, None], label)
    hits, alarms = np.sum(called & label), np.sum(called & ~label)
    return {
        "accuracy": sklearn_metrics.accuracy_score(label, called),
        "precision": sklearn_metrics.precision_score(label, called),
        "npv": sklearn_metrics.precision_score(label, called, pos_label=0),
        "recall": sklearn_metrics.recall_score(label, called),
        "specificity": sklearn_metrics.recall_score(label, called, pos_label=0),
        "f1": sklearn_metrics.f1_score(label, called),
        "mcc": sklearn_metrics.matthews_corrcoef(label, called),
        "net_benefit": (hits - alarms * threshold / (1 - threshold)) / len(label),
        "brier": sklearn_metrics.brier_score_loss(label, probability),
        "log_loss": sklearn_metrics.log_loss(label, probability),
        "auc": sklearn_metrics.roc_auc_score(label, probability),
        "average_precision": sklearn_metrics.average_precision_score(label, probability),
        "sensitivity_at_specificity_95": true_rate[false_rate <= 0.05 + 1e-12].max(),
        "calibration_slope": fit.coef_[0, 0],
        "calibration_intercept": fit.intercept_[0],
        **calibration_errors(label, probability),
    }


def calibration_errors(label, probability):
    """The two sums over bins, one image after the other; images of one probability share a bin."""
    bins = {}
    for y, p in zip(label, probability, strict=True):
        higher, same = np.sum(probability > p), np.sum(probability == p)
        bins.setdefault(int(15 * (2 * higher + same) // (2 * len(label))), []).append((y, p))
    absolute = squared = 0.0
    for members in bins.values():
        n, (y, p) = len(members), np.mean(members, axis=0)
        absolute += n / len(label) * abs(p - y)
        noise = y * (1 - y) / (n - 1) if n > 1 else 0.0
        squared += n / len(label) * ((p - y) ** 2 - noise)
    return {"ece": absolute, "ece_debiased": math.sqrt(max(0.0, squared))}


@pytest.mark.parametrize("threshold", [0.5, 0.2])
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_every_metric_is_the_second_implementations(seed, ties, threshold):
    label, probability, group = images(seed, ties=ties)
    rows = rows_of(label, probability, group, threshold)
    found = everything(rows, once(rows))
    assert found.keys() == NAMES
    expected = second_opinion(label, probability, threshold)
    # Sums in another order, or scikit-learn's optimiser, which stops at a gradient of 1e-12.
    assert {name: value[0] for name, value in found.items()} == pytest.approx(expected, rel=1e-7)


def test_a_weight_is_a_number_of_copies():
    label, probability, group = images()
    rows = rows_of(label, probability, group)
    weights = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), size=25)
    found = everything(rows, weights)
    for i, weight in enumerate(weights):
        drawn = np.concatenate([np.flatnonzero(group == g) for g in np.repeat(range(12), weight)])
        expected = second_opinion(label[drawn], probability[drawn])
        assert {name: value[i] for name, value in found.items()} == pytest.approx(
            expected, rel=1e-7
        )


def test_weights_that_belong_to_other_groups_are_found_out():
    label, probability, group = images()
    weights = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), size=25)
    found = everything(rows_of(label, probability, group), weights)
    swapped = everything(rows_of(label, probability, (group + 1) % 12), weights)
    for name in NAMES:
        assert np.max(np.abs(found[name] - swapped[name])) > 1e-3, name


def test_a_group_of_weight_0_is_a_group_that_is_not_there():
    label, probability, group = images()
    rows = rows_of(label, probability, group)
    weights = once(rows)
    weights[0, [1, 4]] = 0
    keep = ~np.isin(group, [1, 4])
    _, renumbered = np.unique(group[keep], return_inverse=True)
    fewer = rows_of(label[keep], probability[keep], renumbered)
    expected = everything(fewer, once(fewer))
    for name, value in everything(rows, weights).items():
        assert value == pytest.approx(expected[name], rel=1e-12), name


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.booleans())
def test_the_order_of_the_images_changes_no_bit(seed, n, ties):
    label, probability, group = images(seed, n=n, groups=5, ties=ties)
    order = np.random.default_rng(seed).permutation(n)
    rows = rows_of(label, probability, group)
    other = rows_of(label[order], probability[order], group[order])
    weights = np.random.default_rng(0).integers(0, 3, (7, rows.groups))
    expected = everything(other, weights)
    for name, value in everything(rows, weights).items():
        assert np.array_equal(value, expected[name], equal_nan=True), name


def test_many_draws_are_the_same_one_by_one():
    label, probability, group = images(n=3000)
    rows = rows_of(label, probability, group)
    weights = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), size=200)
    together = everything(rows, weights)
    for i in (0, 86, 87, 199):  # 87 draws go into a chunk
        for name, value in everything(rows, weights[i : i + 1]).items():
            assert value[0] == pytest.approx(together[name][i], rel=1e-12), name


@pytest.mark.parametrize(
    ("weights", "undefined"),
    [
        ([0, 0, 1], {"recall", "f1", "mcc", "auc", "average_precision"}),
        ([1, 0, 0], {"specificity", "npv", "mcc", "auc"}),
        ([1, 1, 1], set()),
    ],
)
def test_what_a_draw_leaves_undefined_is_nan(weights, undefined):
    # group 0 holds fractures above the threshold, 1 some of both, 2 normal images of both calls
    label = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0], bool)
    probability = np.array([0.9, 0.8, 0.3, 0.4, 0.7, 0.8, 0.6, 0.2, 0.1])
    rows = rows_of(label, probability, np.array([0, 0, 1, 1, 1, 1, 2, 2, 2]))
    found = everything(rows, np.array([weights]))
    if undefined:
        undefined |= {"calibration_slope", "calibration_intercept"}
        undefined |= {"sensitivity_at_specificity_95"}
    assert {name for name in NAMES if np.isnan(found[name][0])} == undefined


def test_a_perfect_table_of_any_size_has_exactly_1():
    for n in (7, 1000, 30001):
        label = np.arange(n) % 3 == 0
        rows = rows_of(label, np.where(label, 0.9, 0.1), np.zeros(n, int))
        found = metrics.count_metrics(rows, once(rows)) | metrics.rank_metrics(rows, once(rows))
        for name in ("accuracy", "f1", "mcc", "auc", "average_precision"):
            assert found[name][0] == 1, name


def test_the_specificity_of_exactly_19_in_20_is_allowed():
    label = np.repeat([True, False], [2, 40])
    probability = np.concatenate([[0.9, 0.5], [0.8, 0.7], np.linspace(0.1, 0.4, 38)])
    rows = rows_of(label, probability, np.zeros(42, int))
    # two false alarms in 40 are 5 %, so the threshold 0.5 may be used; a third would be too many
    assert metrics.rank_metrics(rows, once(rows))["sensitivity_at_specificity_95"][0] == 1
    probability[-1] = 0.6
    rows = rows_of(label, probability, np.zeros(42, int))
    assert metrics.rank_metrics(rows, once(rows))["sensitivity_at_specificity_95"][0] == 0.5


# --- calibration ----------------------------------------------------------------------------------


def test_equal_mass_bins_are_those_of_sorted_images_in_fifteen_equal_parts():
    label, probability, _ = images(n=300, ties=False)
    order = np.argsort(probability)
    gaps = [
        len(part) * abs(np.mean(probability[part]) - np.mean(label[part]))
        for part in np.array_split(order, 15)
    ]
    rows = rows_of(label, probability, np.zeros(300, int))
    assert metrics.rank_metrics(rows, once(rows))["ece"][0] == pytest.approx(
        sum(gaps) / 300, rel=1e-9
    )


def test_of_right_probabilities_the_debiased_error_is_far_nearer_to_0():
    rng = np.random.default_rng(0)
    found = {"ece": [], "ece_debiased": []}
    for _ in range(200):
        probability = expit(2 * rng.normal(size=300))
        rows = rows_of(rng.random(300) < probability, probability, np.zeros(300, int))
        now = metrics.rank_metrics(rows, once(rows))
        for name, values in found.items():
            values.append(now[name][0])
    # Theory for 15 bins of 20: 0.8 times a standard error of 0.09 in the mean, about 0.07, and for
    # what is under the root an expectation of 0, so that the median is about 0.
    assert 0.05 < np.mean(found["ece"]) < 0.09
    assert np.median(found["ece_debiased"]) < 0.015
    assert np.mean(found["ece_debiased"]) < np.mean(found["ece"]) / 2


def test_probabilities_that_are_too_high_by_a_tenth_have_an_error_of_a_tenth():
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.2, 0.9, 200_000)
    label = rng.random(len(probability)) < probability - 0.1
    rows = rows_of(label, probability, np.zeros(len(label), int))
    found = metrics.rank_metrics(rows, once(rows))
    # The standard error of a share of 200,000 is 0.001.
    assert found["ece"][0] == pytest.approx(0.1, abs=0.005)
    assert found["ece_debiased"][0] == pytest.approx(0.1, abs=0.005)
