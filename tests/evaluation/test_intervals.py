"""Every interval against a second, slower implementation, and against what must break it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from msa_flax.evaluation import intervals
from msa_flax.evaluation.metrics import auc, placements
from msa_flax.evaluation.predictions import sigmoid
from msa_flax.evaluation.summary import compute_metrics

Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def clusters(seed=0, groups=30, images=12, shared=1.0, distance=2.0):
    """Images whose scores share something with the other images of their group."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), images)
    label = rng.integers(0, 2, len(group))
    logit = distance * (label - 0.5) + shared * rng.normal(size=groups)[group]
    return label, logit + rng.normal(size=len(group)), np.char.mod("g%03d", group)


def entries(label, logit, group=None, threshold=0.5):
    found = compute_metrics(label, sigmoid(logit), threshold=threshold, group=group, logits=logit)
    return found["metrics"]


def width(entry):
    return entry["high"] - entry["low"]


# --- proportions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "total"), [(0, 7), (7, 10), (399, 400), (50, 50)])
def test_clopper_pearson_is_made_of_beta_quantiles(count, total):
    found = intervals.clopper_pearson(count, total)
    low = stats.beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = stats.beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    # scipy finds the ends by bisection, to about 1e-12.
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_clopper_pearson_covers_every_proportion_and_wilson_all_of_them_on_average():
    chances = np.linspace(0.01, 0.99, 99)
    coverage = {"clopper_pearson": [], "wilson": []}
    for method, found in coverage.items():
        ends = [getattr(intervals, method)(k, 30) for k in range(31)]
        for p in chances:
            inside = [end.low <= p <= end.high for end in ends]
            found.append(float(np.sum(stats.binom.pmf(range(31), 30, p) * inside)))
    assert min(coverage["clopper_pearson"]) >= 0.95
    assert np.mean(coverage["wilson"]) == pytest.approx(0.95, abs=0.01)  # its own rounding of 30


def test_a_proportion_of_all_or_none_takes_a_group_as_a_trial():
    label, logit, group = clusters(groups=20, distance=40)
    entry = entries(label, logit, group)["accuracy"]
    assert entry["value"] == 1
    assert entry["method"] == "clopper-pearson of groups"
    # no group of 20 had an error: the chance of that is 2.5 % where a group is right with this
    assert entry["low"] == pytest.approx(0.025 ** (1 / 20), abs=1e-9)
    assert entry["high"] == 1
    assert intervals.all_or_none(0.0, 20).high == pytest.approx(1 - entry["low"], abs=1e-9)


# --- DeLong ---------------------------------------------------------------------------------------


def brute_force(label, scores):
    """AUC and its variance from all pairs, as DeLong, DeLong and Clarke-Pearson write it."""
    positive, negative = scores[label == 1], scores[label == 0]
    psi = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    v10, v01 = psi.mean(axis=1), psi.mean(axis=0)
    auc = psi.mean()
    s10 = ((v10 - auc) ** 2).sum() / (len(v10) - 1)
    s01 = ((v01 - auc) ** 2).sum() / (len(v01) - 1)
    return auc, s10 / len(v10) + s01 / len(v01)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=4, max_size=60).filter(
        lambda rows: 2 <= sum(label for label, _ in rows) <= len(rows) - 2
    )
)
def test_auc_and_variance_are_those_of_all_pairs_whatever_the_ties(rows):
    label, scores = np.array(rows).T
    expected, variance = brute_force(label, scores)
    assert auc(label, scores) == pytest.approx(expected, abs=1e-12)
    found = intervals.delong_variance(*placements(label, scores))
    assert found == pytest.approx(variance, abs=1e-12)
    assert expected == pytest.approx(sklearn_metrics.roc_auc_score(label, scores), abs=1e-12)


def test_delongs_variance_is_that_of_a_bootstrap_over_images():
    label, logit, _ = clusters(shared=0.0)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        rows = rng.integers(0, len(label), len(label))
        found.append(auc(label[rows], logit[rows]))
    # A variance from 1,000 draws has a relative standard error of 4.5 %; the bootstrap's own bias
    # is a few per cent. Images of shuffled labels would have five times this variance.
    assert np.var(found) == pytest.approx(
        intervals.delong_variance(*placements(label, logit)), rel=0.25
    )


def test_delongs_interval_is_symmetrical_on_the_logit_scale_and_stays_below_1():
    label, logit, _ = clusters(seed=2, groups=10, images=6, distance=4, shared=0.0)
    value, variance = brute_force(label, logit)
    found = intervals.delong_interval(label, logit)
    error = math.sqrt(variance)
    centre, half = math.log(value / (1 - value)), Z * error / (value * (1 - value))
    expected = [1 / (1 + math.exp(-(centre + sign * half))) for sign in (-1, 1)]
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)
    assert found.low < value < found.high < 1
    assert value + Z * error > 1  # what it would be without the logit


@pytest.mark.parametrize(
    ("label", "scores", "said"),
    [
        ([1, 1, 0, 0], [4, 3, 2, 1], "the AUC of the images is 1"),
        ([0, 0, 1, 1], [4, 3, 2, 1], "the AUC of the images is 0"),
        ([1, 1, 0, 0], [5, 5, 5, 5], "the AUC of the images is 0.5"),
        ([1, 1, 1, 1], [4, 3, 2, 1], "one class"),
        ([0, 0, 0, 0], [4, 3, 2, 1], "one class"),
        ([1, 0, 0, 0], [2, 3, 2, 1], "two images of each class"),
    ],
)
def test_an_auc_without_variance_has_no_interval_and_a_reason(label, scores, said):
    found = intervals.delong_interval(np.array(label), np.array(scores))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.method == "none"
    assert said in found.reason


# --- groups ---------------------------------------------------------------------------------------


def test_the_draws_are_2000_times_as_many_groups_as_there_are_and_always_the_same():
    draws = intervals.draw_groups(12)
    assert draws.shape == (2000, 12)
    assert np.all(draws.sum(axis=1) == 12)
    assert np.array_equal(draws, intervals.draw_groups(12))
    # each count is binomial(12, 1/12); its mean over 24,000 has a standard error of 0.006
    assert draws.mean() == 1
    assert draws.var() == pytest.approx(11 / 12, abs=0.05)


def by_hand(value, draws, groups, scale):
    there, back, slope = scale
    error = max(np.std(there(draws), ddof=1), np.std(draws, ddof=1) * slope)
    half = stats.t.ppf(0.975, groups - 1) * error * math.sqrt(groups / (groups - 1))
    return back(there(value) - half), back(there(value) + half)


@pytest.mark.parametrize("scale", ["logit", "log", "as it is"])
def test_the_clustered_interval_is_students_t_on_a_scale_without_ends(scale):
    draws = np.random.default_rng(0).beta(30, 3, 2000)
    found = intervals.clustered(
        0.9, draws, 20, ends={"logit": (0, 1), "log": (0, np.inf)}.get(scale, (-np.inf, np.inf))
    )
    by_name = {
        "logit": (lambda x: np.log(x / (1 - x)), lambda y: 1 / (1 + np.exp(-y)), 1 / 0.09),
        "log": (np.log, np.exp, 1 / 0.9),
        "as it is": (lambda x: x, lambda y: y, 1),
    }
    expected = by_hand(0.9, draws, 20, by_name[scale])
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)
    assert found.method == "clustered bootstrap"
    assert (found.high < 1) == (scale == "logit")  # without the logit it leaves the range


def test_a_draw_on_an_end_counts_as_half_as_far_from_it_as_the_nearest():
    draws = np.concatenate([np.full(500, 1.0), np.linspace(0.8, 0.98, 1500)])
    moved = np.where(draws == 1, 0.99, draws)
    found = [intervals.clustered(0.9, these, 30, ends=(0.0, 1.0)) for these in (draws, moved)]
    # the draws as they are differ a little, the larger of the two errors is that of the logits
    assert found[0] == found[1]


def test_where_one_group_makes_the_difference_the_error_is_that_of_the_draws_as_they_are():
    errors = np.random.default_rng(0).poisson(1.0, 2000)  # how often the one group is drawn
    draws = 1 - 0.01 * errors
    found = intervals.clustered(0.99, draws, 20, ends=(0.0, 1.0))
    half = stats.t.ppf(0.975, 19) * np.std(draws, ddof=1) * math.sqrt(20 / 19) / (0.99 * 0.01)
    low = 1 / (1 + math.exp(-(math.log(99) - half)))
    assert found.low == pytest.approx(low, rel=1e-9)


@pytest.mark.parametrize(
    ("groups", "change", "said"),
    [
        (1, lambda draws: draws, "1 group; a clustered interval needs 10"),
        (9, lambda draws: draws, "9 groups; a clustered interval needs 10"),
        (20, lambda draws: np.where(np.arange(2000) < 101, np.nan, draws), "101 of 2,000 draws"),
        (20, lambda draws: np.full(2000, 0.7), "the same in every draw"),
        (20, lambda draws: draws * 0 + 0.1 + 0.2, "the same in every draw"),
    ],
)
def test_a_clustered_interval_that_cannot_be_is_refused_with_the_number(groups, change, said):
    draws = np.random.default_rng(0).uniform(0.6, 0.9, 2000)
    found = intervals.clustered(0.7, change(draws), groups, ends=(0.0, 1.0))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert said in found.reason


def test_at_the_end_of_the_range_there_is_no_interval():
    draws = np.random.default_rng(0).uniform(0.6, 1.0, 2000)
    assert "end of its range" in intervals.clustered(1.0, draws, 20, ends=(0.0, 1.0)).reason
    assert not intervals.clustered(1.0, draws, 20).reason


def test_undefined_draws_up_to_one_in_twenty_are_left_out():
    draws = np.random.default_rng(0).uniform(0.6, 0.9, 2000)
    some = np.where(np.arange(2000) < 100, np.nan, draws)
    found = intervals.clustered(0.75, some, 20, ends=(0.0, 1.0))
    assert found == intervals.clustered(0.75, draws[100:], 20, ends=(0.0, 1.0))


def test_a_biased_metric_reaches_lower_by_the_bias_that_the_draws_show():
    draws = np.random.default_rng(0).normal(0.13, 0.01, 2000)
    plain = intervals.clustered(0.12, draws, 20)
    biased = intervals.clustered(0.12, draws, 20, ends=(0.0, 1.0), biased=True)
    shown = draws.mean() - 0.12
    assert plain.low - biased.low == pytest.approx((1 + math.sqrt(2)) * shown, rel=1e-9)
    assert plain.high == biased.high
    lower = intervals.clustered(0.12, draws - 0.02, 20, ends=(0.0, 1.0), biased=True)
    assert lower.low == pytest.approx(plain.low, rel=1e-9)  # no bias is shown: none is taken off


def test_copies_within_groups_do_not_narrow_clustered_intervals_and_do_narrow_the_others():
    label, logit, group = clusters()
    copied = [np.repeat(values, 4) for values in (label, logit, group)]
    once, again = entries(label, logit, group), entries(*copied)
    # ece_debiased takes images as independent where it removes their noise, and copies are not.
    for name in set(once) - {"ece_debiased"}:
        assert again[name]["value"] == pytest.approx(once[name]["value"], rel=1e-9), name
        assert width(again[name]) == pytest.approx(width(once[name]), rel=1e-6), name
    once, again = entries(label, logit), entries(*copied[:2])
    for name in ("accuracy", "auc"):
        # four times as many: half as wide, to within Wilson's and the logit's curvature
        assert width(again[name]) == pytest.approx(width(once[name]) / 2, rel=0.05)


def test_groups_that_are_handed_out_at_random_are_found_out():
    label, logit, group = clusters(groups=40, shared=2.0)
    shuffled = np.random.default_rng(0).permutation(group)
    right, wrong = entries(label, logit, group), entries(label, logit, shuffled)
    for name in ("accuracy", "auc", "brier", "log_loss", "specificity"):
        assert width(right[name]) > 1.3 * width(wrong[name]), (
            name
        )  # theory: sqrt(1 + 11 * correlation), more than 1.5


def test_groups_of_one_image_give_what_independent_images_have():
    label, logit, _ = clusters(shared=0.0, groups=50)
    each = np.arange(len(label)).astype(str)
    grouped, images = entries(label, logit, each), entries(label, logit)
    for name in ("accuracy", "recall", "auc"):
        assert grouped[name]["method"] == "clustered bootstrap" != images[name]["method"]
        # 2,000 draws know a standard error to 1.6 %; logit scale and Wilson differ in second order.
        assert width(grouped[name]) == pytest.approx(width(images[name]), rel=0.08), name
