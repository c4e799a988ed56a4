"""The curves are scikit-learn's; a resample is a data set with repeated images."""

import json

import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from msa_flax.reporting import bands, curves

# Sums of the same numbers in another order.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture
def run(table):
    found = table(400, groups=20)
    # Ties, which must be called together.
    coarse = np.round(found.probability, 2).astype(np.float32)
    return type(found)(
        **{name: getattr(found, name) for name in found.__slots__} | {"probability": coarse}
    )


@pytest.fixture
def weight():
    return np.random.default_rng(1).multinomial(400, np.full(400, 1 / 400), 3).astype(np.float64)


def test_the_roc_curve_is_scikit_learns(run, weight):
    fpr, tpr, thresholds = bands.roc(run.label, run.probability, weight)
    for a, b, w in zip(fpr, tpr, weight, strict=True):
        x, y, t = reference.roc_curve(
            run.label, run.probability, sample_weight=w, drop_intermediate=False
        )
        # scikit-learn leaves out scores of images of weight 0
        kept = np.append(True, np.isin(thresholds, t))
        np.testing.assert_allclose(a[kept], x, **CLOSE)
        np.testing.assert_allclose(b[kept], y, **CLOSE)


def test_a_weight_is_a_number_of_copies(run, weight):
    copied = np.repeat(np.arange(400), weight[0].astype(int))
    fpr, tpr, _ = bands.roc(run.label, run.probability, weight[:1])
    area = np.trapezoid(tpr[0], fpr[0])
    assert area == pytest.approx(
        reference.roc_auc_score(run.label[copied], run.probability[copied]), abs=1e-12
    )


def test_precision_and_recall_are_scikit_learns(run, weight):
    recall, precision, thresholds = bands.precision_recall(run.label, run.probability, weight)
    for a, b, w in zip(recall, precision, weight, strict=True):
        p, r, t = reference.precision_recall_curve(run.label, run.probability, sample_weight=w)
        kept = np.isin(thresholds, t)  # scikit-learn leaves out scores of images of weight 0
        np.testing.assert_allclose(a[kept], r[:-1][::-1], **CLOSE)
        np.testing.assert_allclose(b[kept], p[:-1][::-1], **CLOSE)


def test_the_average_precision_and_the_brier_score_are_scikit_learns(run):
    notes = " ".join(curves.precision_recall({"x": run}).notes)
    expected = reference.average_precision_score(run.label, run.probability)
    assert f"Average precision of x: {expected:.4f}." in notes
    notes = " ".join(curves.reliability({"x": run}).notes)
    brier = reference.brier_score_loss(run.label, run.probability.astype(np.float64))
    assert f"Brier score {brier:.4f}" in notes


def test_reliability_is_scikit_learns(run):
    total, mean, share = bands.reliability(run.label, run.probability, np.ones((1, 400)))
    true, predicted = calibration_curve(run.label, run.probability.astype(np.float64), n_bins=10)
    kept = total[0] > 0
    assert total.sum() == 400
    np.testing.assert_allclose(share[0, kept], true, rtol=1e-6)
    np.testing.assert_allclose(mean[0, kept], predicted, rtol=1e-6)  # of float32 probabilities


def test_net_benefit_is_what_its_formula_says(run, weight):
    thresholds = np.array([0.1, 0.5, 0.9])
    found = bands.net_benefit(run.label, run.probability, thresholds, weight)
    for k, w in enumerate(weight):
        for j, t in enumerate(thresholds):
            called = run.probability >= np.float32(t)
            tp = sum(w[i] for i in range(400) if called[i] and run.label[i])
            fp = sum(w[i] for i in range(400) if called[i] and not run.label[i])
            assert found[k, j] == pytest.approx(tp / 400 - fp / 400 * t / (1 - t), abs=1e-12)


def test_known_groups_are_drawn_whole(run):
    drawn = bands.resamples(run)
    assert "20 whole groups" in drawn.note
    for group in np.unique(run.group):
        assert (np.ptp(drawn.weight[:, run.group == group], axis=1) == 0).all()
    assert (drawn.weight.sum(axis=1) == 400).all()  # groups of equal size
    assert len(np.unique(drawn.weight)) > 2


def test_images_are_drawn_where_groups_are_unknown_and_nothing_where_they_are_few(table):
    unknown, few = bands.resamples(table(groups=0)), bands.resamples(table(groups=9))
    assert "groups are unknown" in unknown.note
    assert len(unknown.weight) == bands.RESAMPLES
    assert "9 groups" in few.note
    assert len(few.weight) == 0
    assert "1 group," in bands.resamples(table(groups=1)).note


def test_nothing_is_drawn_where_only_some_groups_are_known(table):
    found = table(groups=20)
    group = np.where(np.arange(120) < 3, "", found.group)
    values = {name: getattr(found, name) for name in found.__slots__}
    drawn = bands.resamples(type(found)(**values | {"group": group}))
    assert "the group of 3 of 120 images is unknown" in drawn.note
    assert len(drawn.weight) == 0


def test_bands_of_groups_are_wider_where_groups_differ(table):
    """Images of a group share their error here, which resampling single images does not see."""
    found = table(600, groups=20, spread=0.1)
    shift = np.random.default_rng(0).normal(0, 0.3, 20)[np.arange(600) * 20 // 600]
    values = {name: getattr(found, name) for name in found.__slots__}
    values["probability"] = np.clip(0.5 + shift + 0.1 * (2 * found.label - 1), 0, 1)

    def width(group):
        run = type(found)(**values | {"group": group})
        chart = curves.roc({"x": run}, threshold=0.5)
        (band,) = [t for t in chart.figure["data"] if t["name"] == "95 % band"]
        half = len(band["y"]) // 2
        return np.mean(np.subtract(band["y"][:half], band["y"][half:][::-1]))

    assert width(found.group) > 1.5 * width(np.full(600, ""))


def test_a_figure_is_plain_json_and_lies_in_its_band(table):
    run = table(300, groups=15)
    for chart in (
        curves.roc({"x": run}, threshold=0.5),
        curves.precision_recall({"x": run}),
        curves.reliability({"x": run}),
        curves.decision({"x": run}),
    ):
        json.dumps(chart.figure, allow_nan=False)
        assert chart.rows
        assert all(len(row) == len(chart.head) for row in chart.rows)
    band, line = curves.decision({"x": run}).figure["data"][2:4]
    half = len(band["y"]) // 2
    high, low = np.array(band["y"][:half]), np.array(band["y"][half:][::-1])
    inside = (low <= np.array(line["y"]) + 1e-6) & (np.array(line["y"]) - 1e-6 <= high)
    assert inside.mean() > 0.9  # percentiles need not hold the estimate, and nearly always do


def test_leaving_points_out_leaves_the_area_as_it_is(run):
    chart = curves.roc({"x": run}, threshold=0.5)
    (line,) = [trace for trace in chart.figure["data"] if trace["name"] == "x"]
    assert len(line["x"]) < len(np.unique(run.probability))
    expected = reference.roc_auc_score(run.label, run.probability)
    assert np.trapezoid(line["y"], line["x"]) == pytest.approx(expected, abs=1e-5)  # six digits


def test_a_curve_of_one_class_is_undefined_with_its_reason(table):
    normal = {"x": table(label=0)}
    roc, pr = curves.roc(normal, threshold=0.5), curves.precision_recall(normal)
    assert roc.figure is pr.figure is None
    assert "of one class only" in roc.notes[0]
    assert "no fracture" in pr.notes[0]
    json.dumps([curves.reliability(normal).figure, curves.decision(normal).figure])


def test_several_runs_are_told_apart_and_have_no_bands(table):
    chart = curves.roc({"a": table(), "b <i>": table(seed=1)}, threshold=0.5)
    names = [trace["name"] for trace in chart.figure["data"]]
    assert names == ["chance", "a", "b &lt;i&gt;"]  # Plotly reads HTML in names
    assert len({str(trace["line"]) for trace in chart.figure["data"]}) == 3
    assert {row[0] for row in chart.rows} == {"a", "b <i>"}


def test_learning_curves_show_both_splits():
    rows = [
        {"epoch": 1, "split": "train", "loss": 0.5},
        {"epoch": 1, "split": "validation", "loss": 0.7},
        {"epoch": 1, "split": "other", "loss": 9.0},
        {"step": 3, "seconds": 1.0},
    ]
    chart = curves.learning(rows, "loss")
    assert [trace["y"] for trace in chart.figure["data"]] == [[0.5], [0.7]]
    assert chart.rows == [["training", "1", "0.5000"], ["validation", "1", "0.7000"]]
