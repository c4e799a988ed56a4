"""Scores of methods beside those of controls: intervals, what they are over, or why not."""

import numpy as np
import pytest
from scipy import stats

from msa_flax.saliency.trials.verdicts import (
    Measure,
    compare_with_controls,
    judge,
    standard_error,
)

LOWER = Measure(name="deletion (logit)", better=-1, decides=True)
HIGHER = Measure(name="insertion (logit)", better=1, decides=True)
BESIDE = Measure(name="mass inside", better=1)


def test_intervals_over_images_are_those_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    scores = {"map": rng.normal(size=30), "random_map": rng.normal(size=30)}
    (result, _) = compare_with_controls(LOWER, scores, controls=["random_map"])
    expected = stats.ttest_rel(scores["map"], scores["random_map"]).confidence_interval(0.95)
    (found,) = result.differences
    np.testing.assert_allclose([found.low, found.high], [*expected], rtol=1e-12)


def test_standard_errors_are_those_of_a_bootstrap_of_whole_groups():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), rng.integers(4, 7, 40))
    values = rng.normal(size=40)[groups] + rng.normal(size=len(groups))
    drawn = rng.multinomial(40, np.full(40, 1 / 40), size=20_000)
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    expected = np.std((drawn @ sums) / (drawn @ counts)) * np.sqrt(40 / 39)
    # 20,000 draws know a deviation to 0.5 %; groups of unequal size make a difference of 1 %.
    assert standard_error(values, groups) == pytest.approx(expected, rel=0.03)
    assert standard_error(values, np.arange(len(values))) < 0.7 * expected


@pytest.mark.parametrize(
    ("groups", "units", "over", "reason"),
    [
        (np.arange(24) // 2, 12, "groups", ""),
        (np.arange(24) // 3, 24, "images", "8 groups; an interval over them needs 10"),
        (None, 24, "images", "groups are unknown"),
        (np.array([""] + ["a"] * 23), 24, "images", "groups are unknown"),
    ],
)
def test_an_interval_says_what_it_is_over(groups, units, over, reason):
    rng = np.random.default_rng(0)
    scores = {"map": rng.normal(size=24) + 9, "random_map": rng.normal(size=24)}
    (result, _) = judge({HIGHER: scores}, controls=["random_map"], groups=groups, reach=1.0)
    (found,) = result.differences
    assert (found.units, found.over, found.reason) == (units, over, reason)
    assert result.verdict.answer == "yes"
    assert ("of these images, not of new patients" in result.verdict.reason) == (over == "images")


def test_scores_are_compared_on_the_images_where_all_are_defined():
    scores = {
        "map": np.array([np.nan, 1, 2, 3]),
        "random_map": np.array([5, np.nan, 1, 1]),
        "centre_prior": np.array([5.0, 5, 1, 2]),
    }
    result = compare_with_controls(BESIDE, scores, controls=["random_map", "centre_prior"])[0]
    assert (result.n, result.images, result.score) == (2, 4, 2.5)
    assert [found.control_score for found in result.differences] == [1, 1.5]
    nothing = compare_with_controls(
        BESIDE, scores | {"map": np.full(4, np.nan)}, controls=["random_map"]
    )[0]
    assert (nothing.n, nothing.differences) == (0, ())


@pytest.mark.parametrize(
    ("count", "groups", "said"),
    [(12, 1, "1 group; an"), (12, 2, "2 groups; an"), (1, 1, "1 image; an"), (2, 1, "2 images;")],
)
def test_reasons_count_in_plain_english(count, groups, said):
    scores = {"map": np.arange(count) + 1.0, "random_map": np.zeros(count)}
    names = np.array([f"series {i % groups}" for i in range(count)])
    result = compare_with_controls(HIGHER, scores, controls=["random_map"], groups=names)[0]
    assert result.differences[0].reason.startswith(said)
