import csv

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from msa_flax.evaluation import study
from msa_flax.evaluation.predictions import PredictionsError
from msa_flax.evaluation.study import Aggregation, StudyScores


def scores(label, slices, patient=None):
    names = np.array([f"S{i:03d}" for i in range(len(label))])
    return StudyScores(
        study=names,
        patient=names if patient is None else patient,
        label=np.array(label),
        slices=tuple(np.asarray(one, np.float64) for one in slices),
    )


@pytest.fixture
def drawn():
    """Sixty studies of 40 slices, noisy; in half of them, six slices are a little brighter."""
    rng = np.random.default_rng(0)
    label = np.arange(60) % 2
    logits = rng.normal(-2, 1, (60, 40))
    logits[label == 1, 10:16] += 1.5
    return scores(label, 1 / (1 + np.exp(-logits)))


def test_aggregations_by_hand():
    p = np.array([0.1, 0.5, 0.4])
    assert study.greatest(p) == 0.5
    assert study.mean(p) == pytest.approx(1 / 3)
    assert study.mean_of_top(p, top=2) == pytest.approx(0.45)
    assert study.mean_of_top(p) == pytest.approx(1 / 3)  # there are fewer than five
    assert study.noisy_or(p) == pytest.approx(1 - 0.9 * 0.5 * 0.6)


@pytest.mark.parametrize("name", study.AGGREGATIONS)
def test_an_aggregation_ignores_order_and_grows_with_each_slice(name, drawn):
    one = drawn.slices[0]
    function = study.AGGREGATIONS[name]
    assert function(one[::-1]) == pytest.approx(function(one), rel=1e-12)  # order of a sum
    assert function(np.minimum(1, one + 0.1)) > function(one)
    assert 0 <= function(one) <= 1


def test_noisy_or_of_certain_slices_is_one():
    assert study.noisy_or(np.array([1.0, 0.2])) == pytest.approx(1, abs=1e-6)  # float32's epsilon


def test_slices_are_gathered_by_study_in_any_order():
    names = np.array(["b", "a", "b", "a", "c"])
    p, label = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([0, 1, 0, 0, 0])
    patient = np.array(["2", "1", "2", "1", "2"])
    found = study.gather(names, p, label=label, patient=patient)
    assert found.study.tolist() == ["a", "b", "c"]
    assert found.label.tolist() == [1, 0, 0]
    assert found.patient.tolist() == ["1", "2", "2"]
    assert [one.tolist() for one in found.slices] == [[0.2, 0.4], [0.1, 0.3], [0.5]]
    known = study.gather(names, p, label={"a": 0, "b": 1, "c": 1}, patient=patient)
    assert known.label.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("names", "patient", "label", "reason"),
    [
        (["", "a"], ["1", "1"], [0, 0], "expected the study of every image, 1 have none"),
        (["a", "a"], ["1", "2"], [0, 0], "study a: expected one patient"),
        (["a", "b"], ["1", "2"], {"a": 1}, "study b: its label is not known"),
    ],
)
def test_slices_that_make_no_studies_are_refused(names, patient, label, reason):
    with pytest.raises(PredictionsError, match=reason):
        study.gather(np.array(names), np.array([0.1, 0.2]), label=label, patient=np.array(patient))


def test_the_best_on_validation_studies_is_chosen(drawn):
    found = study.choose(drawn)
    expected = {
        name: roc_auc_score(drawn.label, Aggregation(name=name).apply(drawn))
        for name in study.AGGREGATIONS
    }
    assert found.validation_auc == pytest.approx(
        expected | {"logistic": found.validation_auc["logistic"]}
    )
    assert found.name == max(found.validation_auc, key=lambda name: found.validation_auc[name])


def test_the_regression_is_chosen_where_no_single_feature_tells():
    # The label is the difference of the greatest and the mean, which rise and fall together.
    rng = np.random.default_rng(1)
    label = np.arange(80) % 2
    base = rng.normal(0, 3, 80)
    logits = np.repeat(base[:, None], 30, axis=1)
    logits[:, :6] += np.where(label, 1.5, 0.5)[:, None]
    found = study.choose(scores(label, 1 / (1 + np.exp(-logits))))
    assert found.name == "logistic"
    assert len(found.weights) == 4
    again = found.apply(scores(label, 1 / (1 + np.exp(-logits))))
    assert roc_auc_score(label, again) > 0.95
    assert ((again >= 0) & (again <= 1)).all()


def test_the_regression_is_judged_on_studies_that_it_was_not_fitted_to():
    # Of noise: fitted and judged on the same 40 studies, three features reach an AUC above 0.6.
    rng = np.random.default_rng(3)
    aucs = [
        study.choose(scores(np.arange(40) % 2, rng.uniform(0, 1, (40, 8)))).validation_auc[
            "logistic"
        ]
        for _ in range(12)
    ]
    assert np.mean(aucs) < 0.55


def test_with_few_studies_nothing_is_chosen():
    found = study.choose(scores([0, 1] * 9, np.full((18, 5), 0.5)))
    assert (found.name, found.validation_auc) == ("top", {})


def test_metrics_have_intervals_over_patients(drawn):
    p = Aggregation(name="max").apply(drawn)
    threshold = study.best_threshold(drawn, p)
    found = study.study_metrics(drawn.label, p, patient=drawn.patient, threshold=threshold)
    auc = found["metrics"]["auc"]
    assert auc["value"] == pytest.approx(roc_auc_score(drawn.label, np.float32(p)))
    assert auc["low"] < auc["value"] < auc["high"]
    assert auc["method"] == "clustered bootstrap"
    assert sum(found["confusion"].values()) == 60
    twice = scores(drawn.label, drawn.slices, patient=np.repeat(drawn.study[::2], 2))
    known = {"patient": twice.patient, "threshold": 0.5}
    assert study.study_metrics(twice.label, p, **known)["metrics"]["auc"]["groups"] == 30


def test_an_auc_of_a_level_leaves_out_fractures_of_other_levels(drawn):
    p = Aggregation(name="max").apply(drawn)
    high = (drawn.label == 1) & (np.arange(60) < 30)
    levels = {"C1": high, "C7": np.zeros(60, bool)}
    known = {"patient": drawn.patient, "threshold": 0.5, "levels": levels}
    found = study.study_metrics(drawn.label, p, **known)["level_auc"]
    rows = high | (drawn.label == 0)
    assert found == {"C1": pytest.approx(roc_auc_score(high[rows], p[rows])), "C7": None}


def test_the_threshold_of_youden_is_the_best_of_all(drawn):
    p = np.float32(Aggregation(name="top").apply(drawn))
    chosen = study.best_threshold(drawn, p)

    def youden(threshold):
        called = p >= threshold
        return called[drawn.label == 1].mean() - called[drawn.label == 0].mean()

    assert youden(chosen) >= max(map(youden, np.linspace(0, 1, 1001))) - 1e-12  # rounding


def test_studies_of_one_class_have_no_threshold():
    with pytest.raises(PredictionsError, match="expected validation studies of both classes"):
        study.best_threshold(scores([1, 1], [[0.2], [0.3]]), np.array([0.2, 0.3]))


def test_the_loss_of_the_challenge_weighs_fractures_twice_and_the_study_seven_times():
    truth = np.array([[1, 1, 0, 0, 0, 0, 0, 0]])
    p = np.full((1, 8), 0.2)
    weight = np.array([14, 2, 1, 1, 1, 1, 1, 1])
    expected = log_loss(truth[0], p[0], sample_weight=weight)
    assert study.weighted_log_loss(truth, p) == pytest.approx(expected)
    assert np.isfinite(study.weighted_log_loss(truth, 1.0 - truth))


@pytest.mark.realdata
def test_the_loss_of_constant_answers_on_the_challenge_s_table(realdata):
    with (realdata / "data" / "rsna2022-labels" / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["patient_overall", *(f"C{k}" for k in range(1, 8))]
    truth = np.array([[int(row[name]) for name in columns] for row in rows])
    half, means = np.full(truth.shape, 0.5), np.tile(truth.mean(axis=0), (len(truth), 1))
    assert study.weighted_log_loss(truth, half) == pytest.approx(0.6931, abs=5e-5)  # four digits
    assert study.weighted_log_loss(truth, means) == pytest.approx(0.5638, abs=5e-5)
