import numpy as np
import pytest
from scipy import stats

from msa_flax.auditing.predictability import predictability, shortcut_findings


def families_of_copies(number=40, copies=5):
    """Families of copies, half of each label: the family and the label of each image."""
    family = np.repeat(np.arange(number), copies)
    return family, family % 2


@pytest.mark.parametrize("number", [8, 40])  # one by one, and in five folds
def test_a_fact_that_is_the_label_predicts_it(number):
    family, label = families_of_copies(number)
    found = predictability(label.astype(float), label, family, family)
    assert (found.accuracy, found.high, found.reason) == (1.0, pytest.approx(1.0), "")
    assert found.majority == 0.5
    assert found.folds == (8 if number == 8 else 5)


def test_one_fact_among_many_and_a_threshold_of_it_are_enough():
    family, label = families_of_copies()
    rng = np.random.default_rng(0)
    told = label + rng.uniform(-0.4, 0.4, 200)
    facts = np.stack([np.ones(200), rng.normal(size=200), told], axis=1)
    assert predictability(facts, label, family, family).accuracy == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_noise_predicts_no_better_than_the_commonest_class(seed):
    family = np.arange(1000)
    rng = np.random.default_rng(seed)
    label = (rng.random(1000) < 0.3).astype(int)
    found = predictability(rng.normal(size=1000), label, family, family)
    assert found.majority == pytest.approx(1 - label.mean())
    assert found.majority - 0.05 < found.accuracy < found.majority + 0.02
    assert found.low < found.majority


@pytest.mark.parametrize("number", [10, 60])
def test_a_fact_of_the_family_alone_does_not_score_because_folds_keep_families_of_copies(number):
    rng = np.random.default_rng(1)
    family, _ = families_of_copies(number, copies=20)
    label = rng.permutation(number)[family] % 2
    fact = rng.normal(size=number)[family]  # tells the family, and nothing of its label
    found = predictability(fact, label, family, family)
    assert found.accuracy < 0.65  # a tree on 9 or 48 families: chance is 0.5
    # The mutation: the same tree on folds of images has seen 19 copies of each.
    units = np.arange(len(family))
    assert predictability(fact, label, units, family).accuracy > found.accuracy + 0.1


def test_a_fact_of_the_group_predicts_in_other_families_and_not_in_other_groups():
    family = np.repeat(np.arange(80), 4)
    group = np.array(["ABCDEFGH"[i // 10] for i in family])
    fact = np.array([ord(name) for name in group.tolist()], dtype=float)
    label = np.isin(group, ["A", "C", "D", "H"]).astype(int)
    assert predictability(fact, label, family, family).accuracy > 0.95
    found = predictability(fact, label, group, family)
    assert found.folds == 8
    assert found.accuracy < 0.7


@pytest.mark.parametrize(("number", "folds"), [(2, 2), (10, 10), (11, 5), (60, 5)])
def test_folds_divide_no_unit_and_predict_every_image_once(number, folds, monkeypatch):
    from sklearn import model_selection

    seen = []

    def spied(tree, facts, target, *, groups, cv):
        seen.extend(cv.split(facts, target, groups))
        return original(tree, facts, target, groups=groups, cv=cv)

    original = model_selection.cross_val_predict
    monkeypatch.setattr(model_selection, "cross_val_predict", spied)
    rng = np.random.default_rng(number)
    unit = rng.permutation(np.repeat(np.arange(number), 4))
    label = np.arange(4 * number) % 2
    found = predictability(rng.normal(size=4 * number), label, unit, unit)
    assert found.folds == len(seen) == folds
    assert sorted(i for _, held in seen for i in held.tolist()) == list(range(4 * number))
    for fitted, held in seen:
        assert not set(unit[fitted].tolist()) & set(unit[held].tolist())


@pytest.mark.parametrize(
    ("facts", "target", "unit", "reason"),
    [
        ([3, 3, 3, 3], [0, 1, 0, 1], [0, 1, 2, 3], "it is the same for every image"),
        ([[3, 4]] * 4, [0, 1, 0, 1], [0, 1, 2, 3], "it is the same for every image"),
        ([1, 2, 3, 4], [1, 1, 1, 1], [0, 1, 2, 3], "there is only one answer"),
        ([1, 2, 3, 4], [0, 1, 0, 1], [7, 7, 7, 7], "there is nothing to leave out"),
    ],
)
def test_what_cannot_be_measured_has_a_reason_and_no_number(facts, target, unit, reason):
    found = predictability(
        np.array(facts, float), np.array(target), np.array(unit), np.array([0, 1, 2, 3])
    )
    assert found.reason == reason
    assert np.isnan([found.accuracy, found.low, found.high]).all()
    assert found.folds == 0
    assert found.majority == max(np.bincount(target)) / 4


def test_more_than_two_answers_can_be_predicted():
    family = np.repeat(np.arange(30), 4)
    found = predictability(family % 3 * 1.0, family % 3, family, family)
    assert (found.accuracy, found.majority) == (1.0, pytest.approx(1 / 3))


def test_the_interval_counts_families_not_images():
    # Ten families of twenty copies: one family is always wrong, so nine trials of ten are right.
    family = np.repeat(np.arange(10), 20)
    label = family % 2
    fact = label.astype(float)
    fact[family == 3] = 0.0
    found = predictability(fact, label, family, family)
    assert found.accuracy == pytest.approx(0.9)
    ten = stats.binomtest(9, 10).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((ten.low, ten.high))
    # The mutation: with every image a trial it would be four times as narrow.
    images = predictability(fact, label, family, np.arange(200))
    assert found.high - found.low > 3 * (images.high - images.low)


def judged(fact, label, family):
    """Returns the findings about one fact by their keys, as an audit makes them."""
    found = {"mean": {"family": predictability(fact, label, family, family)}}
    found["slice position"] = {"family": predictability(0 * fact, label, family, family)}
    return {finding.key: finding for finding in shortcut_findings("label", found)}


@pytest.mark.parametrize("number", [1, 2, 4])
def test_too_few_families_do_not_turn_a_shortcut_off(number):
    family = np.repeat(np.arange(number), 24 // number)
    label = np.arange(24) * number // 24 % 2 if number > 1 else np.arange(24) % 2
    finding = judged(label + np.linspace(0, 0.4, 24), label, family)["label from mean"]
    assert finding.severity == "medium"
    assert "AUC 1.000 in these images" in finding.evidence
    assert "too few families" in finding.evidence


def test_what_few_families_cannot_tell_is_open_and_not_good_news():
    fact = np.random.default_rng(0).normal(size=24)
    for family in (np.zeros(24, int), np.repeat(np.arange(3), 8), np.repeat(np.arange(6), 4)):
        findings = judged(fact, np.arange(24) % 2, family)
        assert findings["label, cannot be told"].severity == "open"
        assert "mean" in findings["label, cannot be told"].evidence
        assert "mean" not in findings["label from other facts"].evidence


def test_many_families_can_tell_that_a_fact_tells_nothing():
    fact = np.random.default_rng(0).normal(size=2000)
    findings = judged(fact, np.arange(2000) % 2, np.arange(2000))
    assert list(findings) == ["label from other facts"]


def test_order_among_a_handful_of_images_is_chance():
    label = np.array([0, 0, 0, 1, 1, 1])
    assert np.isnan(predictability(label * 1.0, label, np.zeros(6), np.zeros(6)).auc)
    assert predictability(label * 1.0, label, np.zeros(6), np.zeros(6)).to_dict()["auc"] is None
