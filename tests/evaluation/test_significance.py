"""Tests of pairs against their definitions, enumerations, and samples in which nothing differs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msa_flax.evaluation import significance
from msa_flax.evaluation.intervals import delong_variance
from msa_flax.evaluation.metrics import placements

Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def two_runs(rng, n=60, shared=1.0, distance=1.5):
    """Labels of independent images and two equally good scores, which share what is hard."""
    label = np.arange(n) % 2 == 1
    hard = distance * label + shared * rng.normal(size=n)
    return label, hard + rng.normal(size=n), hard + rng.normal(size=n)


# --- DeLong ---------------------------------------------------------------------------------------


def brute_force(label, first, second):
    """Difference, 95 % interval and p from all pairs of images, as DeLong et al. write them.

    The covariance matrices S10 and S01 of both runs' placements, and the contrast (-1, 1).
    """
    placements = []
    for scores in (first, second):
        positive, negative = scores[label], scores[~label]
        psi = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
        placements.append((psi.mean(axis=1), psi.mean(axis=0), psi.mean()))
    covariance = np.zeros((2, 2))
    for r, s in itertools.product(range(2), repeat=2):
        for part in range(2):
            one = placements[r][part] - placements[r][2]
            two = placements[s][part] - placements[s][2]
            covariance[r, s] += (one * two).sum() / (len(one) - 1) / len(one)
    contrast = np.array([-1.0, 1.0])
    error = math.sqrt(max(0.0, contrast @ covariance @ contrast))
    value = placements[1][2] - placements[0][2]
    if error < 1e-7:
        return value, None, None, None
    p = math.erfc(abs(value) / error / math.sqrt(2))
    return value, max(value - Z * error, -1), min(value + Z * error, 1), p


def assert_as_brute_force(label, first, second):
    _, low, high, p = brute_force(label, first, second)
    found, tested = significance.delong_test(label, first, second)
    if p is None:
        assert "is 0" in found.reason
        assert math.isnan(tested)
        return
    # both take roots of differences of order 1 of numbers that are exact to 1e-16
    assert (found.low, found.high, tested) == pytest.approx((low, high, p), abs=1e-7)
    assert found.method == "delong"


TIED = st.lists(
    st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5)), min_size=4, max_size=50
).filter(lambda rows: 2 <= sum(label for label, _, _ in rows) <= len(rows) - 2)


@settings(deadline=None, max_examples=60)
@given(TIED)
def test_delongs_test_is_that_of_all_pairs_whatever_the_ties(rows):
    label, first, second = map(np.array, zip(*rows, strict=True))
    assert_as_brute_force(label, first.astype(float), second.astype(float))


@pytest.fixture
def unpaired(monkeypatch):
    """The mutation: the variance of a difference is that of two AUCs of different images."""
    seen = []

    def remembered(labels, scores):
        seen.append(placements(labels, scores))
        return seen[-1]

    def without_covariance(above, below):
        return sum(delong_variance(*one) for one in seen[-2:])

    def mutate():
        monkeypatch.setattr(significance, "placements", remembered)
        monkeypatch.setattr(significance, "delong_variance", without_covariance)

    return mutate


def test_the_comparison_notices_a_variance_without_the_covariance(unpaired):
    data = two_runs(np.random.default_rng(0))
    assert_as_brute_force(*data)
    unpaired()
    with pytest.raises(AssertionError):
        assert_as_brute_force(*data)


def test_the_variance_of_a_difference_from_a_constant_is_that_of_the_auc():
    label, scores, _ = two_runs(np.random.default_rng(1))
    found, _ = significance.delong_test(label, np.zeros(len(label)), scores)
    error = (found.high - found.low) / 2 / Z
    assert error**2 == pytest.approx(delong_variance(*placements(label, scores)), rel=1e-9)


def rejections(samples, shared):
    rng = np.random.default_rng(0)
    found = [
        significance.delong_test(*two_runs(rng, shared=shared))[1] < 0.05 for _ in range(samples)
    ]
    return np.mean(found)


def test_delong_calls_equal_runs_different_in_5_percent_of_samples(unpaired):
    # Three standard errors of a share of 500 samples.
    assert rejections(500, shared=2) == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 500))
    unpaired()
    assert rejections(200, shared=2) < 0.01  # its variance is several times as large


@pytest.mark.parametrize(
    ("label", "first", "second", "said"),
    [
        ([1, 1, 0, 0], [4, 1, 2, 3], [4, 1, 2, 3], "variance of the difference is 0"),
        ([1, 1, 0, 0], [4, 3, 2, 1], [9, 8, 1, 2], "variance of the difference is 0"),
        ([1, 1, 0, 0], [4, 3, 2, 1], [1, 2, 3, 4], "variance of the difference is 0"),
        ([1, 0, 0, 0], [4, 3, 2, 1], [1, 2, 3, 4], "two images of each class"),
        ([1, 1, 1, 1], [4, 3, 2, 1], [1, 2, 3, 4], "one class"),
    ],
)
def test_aucs_whose_difference_has_no_variance_have_no_test_and_a_reason(
    label, first, second, said
):
    found, p = significance.delong_test(np.array(label), np.array(first), np.array(second))
    assert said in found.reason
    assert found.method == "none"
    assert np.isnan([found.low, found.high, p]).all()


# --- proportions ----------------------------------------------------------------------------------


def mcnemar(b, c):
    """McNemar's exact two-sided p value, from binomial coefficients."""
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
    return min(1.0, 2 * tail / 2 ** (b + c))


def signs(b, c, same=0):
    return np.repeat([-1, 1, 0], [b, c, same])


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (1, 0), (3, 3), (2, 9), (9, 2), (60, 90)])
def test_sign_flips_of_single_images_are_mcnemars_exact_test(b, c):
    # sums of at most 150 products of powers of two: exact to a few units in the last place
    assert significance.sign_flip_test(signs(b, c, 20)) == pytest.approx(mcnemar(b, c), rel=1e-12)


def test_sign_flips_of_single_images_are_what_statsmodels_has():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    for b, c in ((0, 4), (7, 3), (25, 41)):
        other = tables.mcnemar([[50, b], [c, 10]], exact=True).pvalue
        assert significance.sign_flip_test(signs(b, c)) == pytest.approx(float(other), rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-9, 9), min_size=0, max_size=9))
def test_the_sign_flip_test_is_the_share_of_all_choices_of_signs(totals):
    choices = itertools.product((-1, 1), repeat=len(totals))
    sums = [abs(sum(s * t for s, t in zip(c, totals, strict=True))) for c in choices]
    expected = np.mean([found >= abs(sum(totals)) for found in sums])
    found = significance.sign_flip_test(np.array(totals, int))
    assert found == pytest.approx(expected, abs=1e-12)  # both count 512 choices or fewer
    assert found == significance.sign_flip_test(-np.array(totals, int))


def test_sign_flips_of_groups_do_not_reject_equal_runs_too_often_where_mcnemar_does():
    rng = np.random.default_rng(0)
    # Ten images a group, all of which one of the runs calls wrongly: as good as one image.
    totals = 10 * rng.integers(-1, 2, (400, 20))
    of_groups = np.mean([significance.sign_flip_test(row) < 0.05 for row in totals])
    assert of_groups <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    ignored = [
        mcnemar(*(int(side.sum()) for side in (-row[row < 0], row[row > 0]))) < 0.05
        for row in totals
    ]
    assert np.mean(ignored) > 0.4


def test_agresti_and_mins_interval_fits_a_published_example():
    # Agresti, Categorical Data Analysis (2002), section 10.1: approval falls from 944 to 880 of
    # 1,600 people, 150 to disapproval and 86 back; printed with two digits.
    found = significance.agresti_min(150, 86, 1600)
    assert (round(found.low, 2), round(found.high, 2)) == (-0.06, -0.02)


def test_agresti_and_mins_interval_covers_what_it_should():
    """Its exact coverage, from all outcomes of 30 images, for several true proportions."""
    n, coverage = 30, []
    kinds = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    ends = [significance.agresti_min(b, c, n) for b, c in kinds]
    for first, second in itertools.product((0.02, 0.1, 0.2, 0.4), repeat=2):
        chances = [
            math.comb(n, b)
            * math.comb(n - b, c)
            * first**b
            * second**c
            * (1 - first - second) ** (n - b - c)
            for b, c in kinds
        ]
        value = second - first
        inside = [e.low - 1e-12 <= value <= e.high + 1e-12 for e in ends]
        coverage.append(np.dot(chances, inside))
    # 30 images make few different intervals; Agresti and Min report 0.93 to 0.98 for such counts.
    assert np.mean(coverage) == pytest.approx(0.955, abs=0.015)
    assert min(coverage) > 0.92


def test_agresti_and_mins_interval_changes_sides_with_the_runs():
    one, two = significance.agresti_min(3, 8, 40), significance.agresti_min(8, 3, 40)
    assert (one.low, one.high) == (-two.high, -two.low)
    assert significance.agresti_min(0, 1, 1).high <= 1


# --- many tests -----------------------------------------------------------------------------------


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1; the last may not fall below the third
    found = significance.holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02], rel=1e-12)  # one product each
    assert significance.holm(np.array([0.9, 0.8])).tolist() == [1, 1]
    assert significance.holm(np.array([0.2])).tolist() == [0.2]
    assert significance.holm(np.zeros(0)).tolist() == []
    undefined, other = significance.holm(np.array([np.nan, 0.01]))
    assert np.isnan(undefined)
    assert other == 0.02  # what is undefined counts as a test


def test_holm_is_what_statsmodels_has():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).random(40) ** 3
    p[:4] = p[4:8]  # ties
    # one product each
    np.testing.assert_allclose(
        significance.holm(p), multitest.multipletests(p, method="holm")[1], 1e-12
    )
