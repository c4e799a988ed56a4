"""A threshold with a guarantee: how often it holds is counted, and what it takes is said."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from msa_flax.evaluation.operating_point import threshold_for_sensitivity
from msa_flax.evaluation.predictions import PredictionsError


def images(rng, fractures=120, normal=80):
    labels = np.repeat([1, 0], [fractures, normal])
    return labels, rng.beta(2 + 3 * labels, 3).astype(np.float32)


def test_the_threshold_is_the_order_statistic_that_clopper_pearson_allows():
    labels, probabilities = images(np.random.default_rng(0))
    found = threshold_for_sensitivity(labels, probabilities, 0.9)
    fractures = np.sort(probabilities[labels == 1])
    assert found.n == 120
    assert found.threshold == float(fractures[found.missed])
    assert np.sum(fractures >= np.float32(found.threshold)) == 120 - found.missed

    def bound(missed):  # one-sided, 95 %
        test = stats.binomtest(120 - missed, 120, alternative="greater")
        return test.proportion_ci(0.95, method="exact").low

    assert bound(found.missed) >= 0.9 > bound(found.missed + 1)
    assert found.guaranteed == pytest.approx(bound(found.missed), abs=1e-9)
    assert found.expected == (120 - found.missed) / 121


@pytest.mark.parametrize(("wanted", "fractures"), [(0.9, 60), (0.95, 200)])
def test_the_guarantee_holds_as_often_as_it_says(wanted, fractures):
    rng = np.random.default_rng(0)
    truth = stats.beta(5, 3)
    kept = []
    for _ in range(600):
        found = threshold_for_sensitivity(*images(rng, fractures, 10), wanted)
        kept.append(truth.sf(found.threshold))
    # The theorem says 95 % or more; 600 samples know that to 0.9 %.
    assert np.mean(np.array(kept) >= wanted) >= 0.95 - 3 * 0.009
    assert np.mean(kept) == pytest.approx(found.expected, abs=0.005)
    # A threshold that is one image higher does not have it: choosing by the sensitivity that was
    # seen would be right in about half of all cases.
    seen = [
        truth.sf(np.quantile(images(rng, fractures, 10)[1][:fractures], 1 - wanted))
        for _ in range(600)
    ]
    assert np.mean(np.array(seen) >= wanted) < 0.7


def test_ties_only_raise_the_sensitivity():
    labels, probabilities = images(np.random.default_rng(0))
    rounded = np.round(probabilities, 1)
    found = threshold_for_sensitivity(labels, rounded, 0.9)
    kept = np.mean(rounded[labels == 1] >= np.float32(found.threshold))
    assert kept >= 1 - found.missed / 120


def test_with_groups_each_counts_once_with_its_lowest_fracture():
    rng = np.random.default_rng(0)
    labels, probabilities = images(rng, 400, 100)
    group = np.char.mod("g%03d", np.concatenate([np.arange(400) % 80, np.arange(100)]))
    found = threshold_for_sensitivity(labels, probabilities, 0.9, group=group)
    lowest = [probabilities[(group == g) & (labels == 1)].min() for g in sorted(set(group[:400]))]
    alone = threshold_for_sensitivity(np.ones(80, int), np.array(lowest), 0.9)
    assert found == dataclasses.replace(alone, counted="groups")
    assert found.n == 80
    assert found.threshold < threshold_for_sensitivity(labels, probabilities, 0.9).threshold


@pytest.mark.parametrize(
    ("fractures", "wanted", "changes", "said"),
    [
        (58, 0.95, {}, "59 images with 'fracture', got 58, which allow at most 0.949;"),
        (0, 0.5, {}, "got 0;"),
        (28, 0.9, {}, "at least 29 images with 'fracture', got 28, which allow at most 0.898;"),
        (58, 0.95, {"group": np.arange(138).astype(str)}, "59 groups with 'fracture', got 58"),
        (58, 1.0, {}, "sensitivity: expected a number between 0 and 1, got 1"),
        (58, 0.9, {"group": np.full(138, "")}, "a known group for every image of 'fracture'"),
    ],
)
def test_what_cannot_be_guaranteed_is_refused_with_what_it_takes(fractures, wanted, changes, said):
    labels, probabilities = images(np.random.default_rng(0), fractures)
    with pytest.raises(PredictionsError, match=said):
        threshold_for_sensitivity(labels, probabilities, wanted, **changes)
    if "at least" in said and not changes:
        more = images(np.random.default_rng(0), fractures + 1)
        assert threshold_for_sensitivity(*more, wanted).missed == 0
