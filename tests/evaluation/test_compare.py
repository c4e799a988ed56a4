"""Runs compared: the rule for intervals and tests, against slow ones, and what must break them."""

import csv
import dataclasses
import io
import math

import numpy as np
import pytest
from prediction_tables import predictions_of
from scipy import stats
from sklearn import metrics as sklearn_metrics

from msa_flax.evaluation import compute_metrics, intervals, sigmoid
from msa_flax.evaluation.compare import (
    METRICS,
    ComparisonError,
    PairedDifference,
    as_csv,
    compare_runs,
)

PROPORTIONS = ("accuracy", "recall", "specificity")


def tables(seed=0, groups=30, images=6, *, runs=2, known=True, own=0.7, shared=0.7):
    """Equally good runs on images in groups; the groups shift all runs, and each run on its own."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), images)
    label = rng.permutation(np.arange(len(group)) % 2)
    hard = 1.5 * (2 * label - 1) / 2 + shared * rng.normal(size=groups)[group]
    found = []
    for _ in range(runs):
        logit = hard + own * rng.normal(size=groups)[group] + rng.normal(size=len(group))
        found.append(predictions_of(label, logit, np.char.mod("g%03d", group) if known else ""))
    return found


def changed(predictions, **columns):
    return dataclasses.replace(predictions, **columns)


def by_metric(*runs, thresholds=(0.5, 0.5, 0.5)):
    named = {f"run {i}": (run, thresholds[i]) for i, run in enumerate(runs)}
    return {row.metric: row for row in compare_runs(named) if row.second == "run 1"}


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(intervals, "DRAWS", 60)


# --- values ---------------------------------------------------------------------------------------


def test_values_are_those_of_metrics_json_at_each_runs_own_threshold():
    runs, thresholds = tables(), (0.3, 0.6)
    found = by_metric(*runs, thresholds=thresholds)
    entries = [
        compute_metrics(r.label, r.probability, threshold=t, group=r.group, logits=r.logit)[
            "metrics"
        ]
        for r, t in zip(runs, thresholds, strict=True)
    ]
    assert tuple(found) == METRICS
    for name, row in found.items():
        first, second = (entry[name]["value"] for entry in entries)
        assert (row.first_value, row.second_value) == (first, second)
        assert row.difference == second - first
        assert row.images == entries[0][name]["n"]


def test_b_and_c_count_the_images_that_one_run_calls_rightly():
    one, two = tables()
    found = by_metric(one, two, thresholds=(0.4, 0.5))
    right = [(one.probability >= 0.4) == one.label, (two.probability >= 0.5) == two.label]
    for name, about in (
        ("accuracy", one.label >= 0),
        ("recall", one.label == 1),
        ("specificity", one.label == 0),
    ):
        row = found[name]
        assert row.only_first == np.sum(right[0] & ~right[1] & about)
        assert row.only_second == np.sum(right[1] & ~right[0] & about)
        # both are quotients of whole numbers
        difference = (row.only_second - row.only_first) / row.images
        assert row.difference == pytest.approx(difference, abs=1e-12)
    assert {found[name].only_first for name in ("auc", "brier", "log_loss")} == {None}


# --- groups ---------------------------------------------------------------------------------------


def slow(runs, metric):
    """Interval and p of a difference from copied rows, for the draws of this package."""
    score = {
        "auc": lambda r, i: sklearn_metrics.roc_auc_score(r.label[i], r.probability[i]),
        "brier": lambda r, i: np.mean((r.probability[i].astype(float) - r.label[i]) ** 2),
        "log_loss": lambda r, i: np.mean(
            np.log1p(np.exp(-r.logit[i].astype(float) * (2 * r.label[i] - 1)))
        ),
        "accuracy": lambda r, i: np.mean((r.probability[i] >= 0.5) == r.label[i]),
    }[metric]
    names = np.unique(runs[0].group)
    found = []
    for draw in intervals.draw_groups(len(names)):
        rows = [np.flatnonzero(runs[0].group == g) for g in np.repeat(names, draw)]
        rows = np.concatenate(rows)
        found.append(score(runs[1], rows) - score(runs[0], rows))
    every = np.arange(len(runs[0]))
    value = score(runs[1], every) - score(runs[0], every)
    error = np.std(found, ddof=1) * math.sqrt(len(names) / (len(names) - 1))
    half = stats.t.ppf(0.975, len(names) - 1) * error
    return value - half, value + half, 2 * stats.t.sf(abs(value) / error, len(names) - 1)


def assert_as_slow(runs):
    found = by_metric(*runs)
    for name in ("auc", "brier", "log_loss", "accuracy"):
        row = found[name]
        low, high, p = slow(runs, name)
        # float64 sums of float32 probabilities, in another order
        assert (row.low, row.high) == pytest.approx((low, high), abs=1e-6), name
        assert row.method == "clustered bootstrap"
        if name != "accuracy":
            assert row.p == pytest.approx(p, abs=1e-4), name
            assert row.test == "t of groups"


def test_intervals_and_p_values_are_those_of_copied_rows(few_draws):
    assert_as_slow(tables(groups=12, own=0.3))


def test_the_comparison_notices_draws_that_the_runs_do_not_share(few_draws, monkeypatch):
    runs = tables(groups=12, own=0.3)  # with draws that they share, as in the test above
    shared, rng = intervals.draw_groups, np.random.default_rng(1)
    monkeypatch.setattr(intervals, "draw_groups", lambda n: rng.permutation(shared(n)))
    with pytest.raises(AssertionError):
        assert_as_slow(runs)


def test_an_interval_holds_0_where_p_is_above_5_percent_and_nowhere_else(few_draws):
    seen = set()
    for seed in range(4):
        one, two = tables(seed)
        worse = changed(two, logit=two.logit - seed, probability=sigmoid(two.logit - seed))
        for row in by_metric(one, worse).values():
            if row.test == "t of groups":
                assert (row.low <= 0 <= row.high) == (row.p >= 0.05)
                seen.add(row.p >= 0.05)
    assert seen == {True, False}


def test_proportions_are_tested_by_whole_groups():
    one, two = tables()
    found = by_metric(one, two)["accuracy"]
    right = [(run.probability >= 0.5) == run.label for run in (one, two)]
    totals = [
        int(np.sum(right[1][one.group == g]) - np.sum(right[0][one.group == g]))
        for g in np.unique(one.group)
    ]
    flipped = np.random.default_rng(0).choice([-1, 1], (20000, len(totals))) @ totals
    share = np.mean(np.abs(flipped) >= abs(sum(totals)))
    assert found.p == pytest.approx(share, abs=0.015)  # four standard errors of 20,000 samples
    assert found.test == "flips of groups"


def test_equal_runs_are_called_different_no_more_often_than_they_should(monkeypatch):
    monkeypatch.setattr(intervals, "DRAWS", 150)  # an error that is known to 6 % is enough here
    samples = 150
    rejected = dict.fromkeys((*METRICS, "groups ignored"), 0)
    for seed in range(samples):
        runs = tables(seed, images=4, own=1.5)
        for name, row in by_metric(*runs).items():
            rejected[name] += row.p < 0.05
        ignored = by_metric(*(changed(run, group=np.full(len(run), "")) for run in runs))
        rejected["groups ignored"] += ignored["specificity"].p < 0.05
    shares = {name: count / samples for name, count in rejected.items()}
    # 0.05 and 1.7 standard errors of a share of 150 samples
    assert all(shares[name] <= 0.08 for name in METRICS), shares
    assert shares["groups ignored"] > 0.08, shares  # the mutation
    assert shares["groups ignored"] > shares["specificity"] + 0.05, shares


@pytest.mark.parametrize("fractured", [9, 10])
def test_an_auc_depends_on_the_groups_of_the_rarer_class(fractured, few_draws):
    one, two = tables()
    number = np.array([int(name[1:]) for name in one.group])
    label = (number < fractured).astype(int)
    found = by_metric(*(changed(run, label=label) for run in (one, two)))
    assert found["auc"].groups == found["recall"].groups == fractured
    assert found["specificity"].groups == 30 - fractured
    assert (found["auc"].p is None) == (fractured == 9)
    if fractured == 9:
        assert found["auc"].reason.startswith("of one class there are 9 groups")
        assert found["recall"].low is None
        assert found["recall"].p is not None
        assert found["brier"].p is not None


def test_few_groups_have_no_interval_but_an_exact_test_of_proportions():
    for name, row in by_metric(*tables(groups=9)).items():
        assert (row.low, row.high, row.method) == (None, None, "none")
        assert "9 groups; a clustered interval needs 10" in row.reason
        assert (row.p is not None) == (name in PROPORTIONS)


def test_groups_that_are_known_in_part_or_not_the_same_are_refused():
    one, two = tables()
    part = np.where(np.arange(len(one)) < 5, "", one.group)
    other = np.where(np.arange(len(one)) < 7, "x", one.group)
    for runs, said in (
        ((changed(one, group=part), changed(two, group=part)), "5 of 180 images is unknown"),
        ((one, changed(two, group=other)), "other groups for 7 of 180 images"),
        ((one, changed(two, group=np.full(len(two), ""))), "other groups for 180 of 180"),
    ):
        for row in by_metric(*runs).values():
            assert said in row.reason
            assert (row.low, row.p, row.p_holm, row.groups) == (None, None, None, 0)
            assert row.difference is not None


# --- independent images ---------------------------------------------------------------------------


def test_without_groups_images_are_taken_as_independent():
    found = by_metric(*tables(known=False))
    assert (found["auc"].method, found["auc"].test) == ("delong", "delong")
    for name in PROPORTIONS:
        row = found[name]
        assert (row.method, row.test) == ("agresti-min", "mcnemar")
        b, c = row.only_first, row.only_second
        assert row.p == pytest.approx(stats.binomtest(min(b, c), b + c).pvalue, rel=1e-9)
    for name in ("brier", "log_loss"):
        assert found[name].p is None
        assert "without groups" in found[name].reason
    assert {row.groups for row in found.values()} == {0}


# --- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_the_order_of_the_images_changes_nothing(known, few_draws):
    one, two = tables(known=known)
    order = np.random.default_rng(0).permutation(len(two))
    assert by_metric(one, two.take(order)) == by_metric(one, two)


@pytest.mark.parametrize("known", [True, False])
def test_changing_sides_changes_signs(known, few_draws):
    one, two = tables(known=known)
    there, back = by_metric(one, two), by_metric(two, one)
    for name, row in there.items():
        other = back[name]
        assert row.difference == -other.difference
        assert (row.only_first, row.only_second) == (other.only_second, other.only_first)
        assert (row.method, row.test, row.p_holm is None) == (
            (other.method, other.test, other.p_holm is None)
        )
        if row.p is not None:  # the same sums, with other signs
            assert row.p == pytest.approx(other.p, rel=1e-9)
            assert row.low == pytest.approx(-other.high, abs=1e-12)


@pytest.mark.parametrize("known", [True, False])
def test_a_run_does_not_differ_from_itself(known, few_draws):
    run, _ = tables(known=known)
    for name, row in by_metric(run, run).items():
        assert row.difference == 0
        if name in PROPORTIONS:
            assert (row.only_first, row.only_second, row.p) == (0, 0, 1)
        else:
            assert row.p is None
            assert row.low is None
            assert row.reason


@pytest.mark.parametrize("label", [0, 1])
def test_images_of_one_class_leave_metrics_undefined_and_say_why(label, few_draws):
    one, two = (changed(run, label=np.full(len(run), label)) for run in tables())
    found = by_metric(one, two)
    for name in ("auc", "specificity" if label else "recall"):
        row = found[name]
        assert (row.first_value, row.difference, row.low, row.p) == (None, None, None, None)
        assert row.reason.startswith(("the images are of one class", "there is no "))
    assert found["accuracy"].p is not None


def test_every_further_run_is_compared_with_the_first_and_all_tests_are_one_family(few_draws):
    runs = {name: (run, 0.5) for name, run in zip("abc", tables(runs=3), strict=True)}
    found = compare_runs(runs)
    assert [(r.first, r.second) for r in found] == [("a", x) for x in "bc" for _ in METRICS]
    p = np.array([row.p for row in found])
    order = np.argsort(p)
    assert found[order[0]].p_holm == pytest.approx(min(1, 12 * p[order[0]]), rel=1e-12)
    assert all(row.p_holm >= row.p for row in found)
    alone = {row.metric: row.p for row in compare_runs({"a": runs["a"], "b": runs["b"]})}
    assert alone == {row.metric: row.p for row in found if row.second == "b"}


# --- files and refusals ---------------------------------------------------------------------------


def test_the_csv_holds_everything_to_the_last_digit():
    found = compare_runs({"a, b": (tables()[0], 0.5), "c": (tables(known=False)[1], 0.5)})
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert list(rows[0]) == [field.name for field in dataclasses.fields(PairedDifference)]
    for row, cells in zip(found, rows, strict=True):
        for name, value in dataclasses.asdict(row).items():
            assert cells[name] == ("" if value is None else str(value))


def test_runs_that_cannot_be_compared_are_refused():
    one, two = tables()
    shorter = two.take(np.arange(len(two) - 3))
    label = np.where(np.arange(len(two)) < 4, 1 - two.label, two.label)
    for runs, said in (
        ((one,), "two or more runs to compare, got 1"),
        ((one, shorter), "expected the 180 images of run 0, got 177, of which 177"),
        ((one, changed(two, label=label)), "other labels of 4 images"),
    ):
        with pytest.raises(ComparisonError, match=said):
            by_metric(*runs)
    assert ComparisonError.exit_code == 2
