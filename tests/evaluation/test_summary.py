"""Which interval a metric gets: one rule, and every one of its cases."""

import numpy as np
import pytest

from msa_flax.evaluation import intervals, metrics
from msa_flax.evaluation.predictions import sigmoid
from msa_flax.evaluation.summary import NAMES, TABLE4, compute_metrics

PROPORTIONS = ("accuracy", "precision", "recall", "specificity", "npv")


def case(groups=12, images=16, seed=0, distance=1.5):
    """Images of both classes, and of both calls, in every group."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), images)
    labels = np.arange(len(group)) % 2
    logits = distance * (labels - 0.5) + 0.5 * rng.normal(size=groups)[group]
    logits = (logits + rng.normal(size=len(group))).astype(np.float32)
    return labels, logits, np.char.mod("g%02d", group)


def computed(labels, logits, group=None):
    return compute_metrics(labels, sigmoid(logits), threshold=0.5, group=group, logits=logits)


def test_unknown_groups_give_wilsons_and_delongs_intervals_and_no_others():
    labels, logits, group = case()
    found = computed(labels, logits)["metrics"]
    assert found == computed(labels, logits, np.full(len(group), ""))["metrics"]
    for name, entry in found.items():
        method = "wilson" if name in PROPORTIONS else "delong" if name == "auc" else "none"
        assert entry["method"] == method, name
        assert (entry["low"] is None) == (entry["high"] is None) == (method == "none"), name
        assert ("interval_reason" in entry) == (method == "none"), name
        assert "reason" not in entry
        assert entry["groups"] == 0
    positive, negative = int(np.sum(labels)), int(np.sum(labels == 0))
    called = int(np.sum(logits >= 0))
    assert [found[name]["n"] for name in PROPORTIONS] == [
        *(len(labels), called, positive, negative, len(labels) - called)
    ]
    wilson = intervals.wilson(int(np.sum(logits[labels == 1] >= 0)), positive)
    assert (found["recall"]["low"], found["recall"]["high"]) == (wilson.low, wilson.high)


@pytest.mark.parametrize("groups", [10, 37])
def test_ten_groups_or_more_give_every_metric_a_clustered_interval(groups):
    found = computed(*case(groups))["metrics"]
    for name, entry in found.items():
        assert entry["method"] == "clustered bootstrap", name
        assert entry["low"] <= entry["value"] <= entry["high"], name
        assert entry["low"] < entry["high"], name
        assert entry["groups"] == groups
        assert not {"reason", "interval_reason"} & set(entry)


@pytest.mark.parametrize("groups", [1, 2, 9])
def test_fewer_groups_give_no_interval_and_say_how_many_they_are(groups):
    found = computed(*case(groups))["metrics"]
    for entry in found.values():
        assert (entry["low"], entry["high"], entry["method"]) == (None, None, "none")
        assert entry["value"] is not None
        assert entry["interval_reason"] == (
            f"{groups} group{'s' if groups > 1 else ''}; a clustered interval needs 10"
        )


def test_groups_that_are_known_of_some_images_only_give_no_interval():
    labels, logits, group = case(20)
    group = np.where(np.arange(len(group)) < 7, "", group)
    found = computed(labels, logits, group)
    for entry in found["metrics"].values():
        assert entry["interval_reason"] == "the group of 7 of 320 images is unknown"
    assert found["metrics"]["auc"]["groups"] == len(found["by_group"]) == 20
    assert "" not in found["by_group"]


def test_the_groups_that_count_are_those_of_the_images_that_a_metric_is_about():
    labels, logits, group = case(12)
    labels = np.where(np.isin(group, ["g00", "g01", "g02", "g03"]), labels, 0)
    found = computed(labels, logits, group)["metrics"]
    assert found["recall"]["groups"] == 4
    assert found["recall"]["n"] == labels.sum()
    assert "4 groups" in found["recall"]["interval_reason"]
    assert found["specificity"]["groups"] == 12
    assert found["specificity"]["method"] == "clustered bootstrap"


def test_nothing_wrong_in_any_group_still_leaves_a_lower_bound_for_proportions():
    labels, logits, group = case(15, distance=30)
    found = computed(labels, logits, group)["metrics"]
    for name in PROPORTIONS:
        assert (found[name]["value"], found[name]["high"]) == (1, 1)
        assert found[name]["low"] == pytest.approx(0.025 ** (1 / 15), abs=1e-9)
        assert found[name]["method"] == "clopper-pearson of groups"
    assert found["auc"]["value"] == 1
    assert found["auc"]["low"] is None
    assert "same in every draw" in found["auc"]["interval_reason"]


def test_a_metric_that_too_many_draws_leave_undefined_has_no_interval():
    # The one group with false alarms is missing from (11/12)^12 = 35 % of the draws, and without
    # it the classes are apart.
    labels, logits, group = case(12, distance=30)
    odd = np.flatnonzero((group == "g05") & (labels == 0))[0]
    logits[odd] = 40
    found = computed(labels, logits, group)["metrics"]
    assert found["calibration_slope"]["value"] is not None
    assert "draws of groups" in found["calibration_slope"]["interval_reason"]
    assert found["accuracy"]["low"] is not None


def test_intervals_are_made_of_the_draws_of_the_groups():
    labels, logits, group = case(20)
    logits += 1
    found = computed(labels, logits, group)["metrics"]
    _, index = np.unique(group, return_inverse=True)
    images = metrics.sort_images(labels, sigmoid(logits), threshold=0.5, logits=logits, group=index)
    draws = metrics.rank_metrics(images, intervals.draw_groups(20))
    of_bins = {"biased": True}
    for name, kind in (("auc", {}), ("ece", of_bins), ("ece_debiased", of_bins)):
        value = found[name]["value"]
        expected = intervals.clustered(value, draws[name], 20, ends=(0.0, 1.0), **kind)
        assert (found[name]["low"], found[name]["high"]) == (expected.low, expected.high)
        assert expected.low > 0


def test_each_group_has_the_values_that_its_images_alone_have():
    labels, logits, group = case(12)
    labels[group == "g03"] = 1
    found = computed(labels, logits, group)["by_group"]
    assert list(found) == sorted(set(group))
    for name, got in found.items():
        chosen = group == name
        alone = computed(labels[chosen], logits[chosen])
        assert got["n"] == 16
        assert got["confusion"] == alone["confusion"]
        assert set(got["metrics"]) == {"accuracy", "recall", "specificity", "auc"}
        for metric, value in got["metrics"].items():
            expected = alone["metrics"][metric]["value"]
            assert value == (expected and pytest.approx(expected, rel=1e-12)), metric
    assert found["g03"]["metrics"]["auc"] is found["g03"]["metrics"]["specificity"] is None


def test_leaving_groups_out_is_computing_without_them():
    labels, logits, group = case(14)
    chosen = ~np.isin(group, ["g00", "g07"])
    found = computed(labels[chosen], logits[chosen], group[chosen])
    again = computed(*(values[chosen].copy() for values in (labels, logits, group)))
    assert found == again
    everything = computed(labels, logits, group)["by_group"]
    assert found["by_group"] == {name: everything[name] for name in found["by_group"]}
    counts = [found["confusion"][key] for key in ("tp", "fn", "fp", "tn")]
    sums = [
        sum(entry["confusion"][key] for entry in found["by_group"].values())
        for key in ("tp", "fn", "fp", "tn")
    ]
    assert counts == sums


def test_the_names_of_groups_do_not_matter_but_who_is_in_them_does():
    labels, logits, group = case(12)
    found = computed(labels, logits, group)["metrics"]
    renamed = computed(labels, logits, np.char.add("x/", group))["metrics"]
    assert renamed == found
    other = computed(labels, logits, np.roll(group, 6))["metrics"]
    for name in NAMES:
        assert other[name]["value"] == pytest.approx(found[name]["value"], rel=1e-9)
        assert other[name]["high"] != found[name]["high"], name
    assert set(TABLE4) < set(NAMES) == set(found)
