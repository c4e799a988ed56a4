"""The curves are scikit-learn's; a resample is a data set with repeated images."""

import dataclasses

import numpy as np
import pytest
from prediction_tables import mostly_right
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from msa_flax.plots import bands


@pytest.fixture(scope="module")
def run():
    """400 images in 20 groups, with ties, which share one threshold."""
    return mostly_right(400, groups=20, ties=True)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_precision_and_recall_are_those_of_a_threshold(run, threshold):
    called = run.probability >= np.float32(threshold)
    curve = bands.precision_recall(run)
    hits = (called & (run.label == 1)).sum()
    expected = (hits / run.label.sum(), hits / called.sum())
    points = zip(curve.x.tolist(), curve.y.tolist(), strict=True)
    assert any(point == pytest.approx(expected) for point in points)


def test_the_areas_are_scikit_learns(run):
    arguments = (run.label, run.probability)
    assert bands.roc(run).area == pytest.approx(reference.roc_auc_score(*arguments), abs=1e-12)
    expected = reference.average_precision_score(*arguments)
    assert bands.precision_recall(run).area == pytest.approx(expected, abs=1e-12)


def test_reliability_is_scikit_learns(run):
    curve = bands.reliability(run)
    true, predicted = calibration_curve(run.label, run.probability.astype(np.float64), n_bins=10)
    assert curve.count.sum() == 400
    np.testing.assert_allclose(curve.y, true, rtol=1e-6)
    np.testing.assert_allclose(curve.x, predicted, rtol=1e-6)  # of float32 probabilities


def test_net_benefit_is_what_its_formula_says(run):
    curve = bands.decision(run)
    for threshold in (0.1, 0.5, 0.9):
        called = run.probability >= np.float32(threshold)
        tp = sum(called[i] and run.label[i] for i in range(400))
        fp = sum(called[i] and not run.label[i] for i in range(400))
        (at,) = np.flatnonzero(np.isclose(curve.x, threshold))
        expected = tp / 400 - fp / 400 * threshold / (1 - threshold)
        assert curve.y[at] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "kind", [bands.roc, bands.precision_recall, bands.reliability, bands.decision]
)
def test_a_band_holds_the_curves_of_the_resamples(run, kind):
    """A resample is a data set in which some images are repeated and others are missing."""
    resamples = bands.resample(run)
    x, low, high = kind(run, resamples).band
    inside = []
    for weight in resamples.weight[:20]:
        rows = np.repeat(np.arange(400), weight.astype(int))
        fields = {f.name: getattr(run, f.name)[rows] for f in dataclasses.fields(run)}
        ids = np.array([f"{i:04d}" for i in range(len(rows))])
        curve = kind(dataclasses.replace(run, **fields | {"example_id": ids}))
        if kind is bands.reliability:  # its points lie elsewhere, where the bins' means are now
            y = np.interp(x, curve.x, curve.y)
        else:
            y = bands.at(curve.x[None], curve.y[None], x, step=kind is bands.precision_recall)[0]
        inside.append(((low <= y + 1e-9) & (y - 1e-9 <= high)).mean())
    assert 0.85 < np.mean(inside) < 1  # 0.95 in the long run


def test_known_groups_are_drawn_whole(run):
    drawn = bands.resample(run)
    assert "20 whole groups" in drawn.note
    for group in np.unique(run.group):
        assert (np.ptp(drawn.weight[:, run.group == group], axis=1) == 0).all()
    assert (drawn.weight.sum(axis=1) == 400).all()  # groups of equal size
    assert len(np.unique(drawn.weight)) > 2


def test_images_are_drawn_where_groups_are_unknown_and_nothing_where_they_are_few():
    unknown, few = (bands.resample(mostly_right(groups=n)) for n in (0, 9))
    assert "groups are unknown" in unknown.note
    assert len(unknown.weight) == bands.RESAMPLES
    assert "9 groups" in few.note
    assert len(few.weight) == 0
    assert "1 group;" in bands.resample(mostly_right(groups=1)).note


def test_nothing_is_drawn_where_only_some_groups_are_known():
    run = mostly_right(groups=20)
    group = np.where(np.arange(120) < 3, "", run.group)
    drawn = bands.resample(dataclasses.replace(run, group=group))
    assert "the group of 3 of 120 images is unknown" in drawn.note
    assert len(drawn.weight) == 0


def test_bands_of_groups_are_wider_where_groups_differ():
    """Images of a group share their error here, which resampling single images does not see."""
    run = mostly_right(600, groups=20)
    shift = np.random.default_rng(0).normal(0, 0.3, 20)[np.arange(600) * 20 // 600]
    probability = np.clip(0.5 + shift + 0.1 * (2 * run.label - 1), 0, 1)

    def width(group):
        changed = dataclasses.replace(run, group=group, probability=probability)
        _, low, high = bands.roc(changed, bands.resample(changed)).band
        return np.mean(high - low)

    assert width(run.group) > 1.5 * width(np.full(600, ""))


def test_a_curve_lies_in_its_band(run):
    for kind in (bands.roc, bands.precision_recall, bands.reliability, bands.decision):
        curve = kind(run, bands.resample(run))
        x, low, high = curve.band
        y = bands.at(curve.x[None], curve.y[None], x, step=kind is bands.precision_recall)[0]
        # Percentiles need not hold the estimate, and nearly always do.
        assert ((low <= y + 1e-6) & (y - 1e-6 <= high)).mean() > 0.9
        assert kind(run).band is None


def test_what_a_resample_leaves_undefined_is_left_out_of_the_band():
    """Ten groups of one image, one of them with a fracture: some resamples are of one class."""
    run = mostly_right(10, groups=10, label=(np.arange(10) == 0).astype(int))
    resamples = bands.resample(run)
    assert any(len(set(run.label[w > 0])) == 1 for w in resamples.weight)
    _, low, high = bands.roc(run, resamples).band
    assert not np.isnan([low, high]).any()


def test_curves_of_one_class_are_undefined_with_their_reason():
    normal = mostly_right(label=0)
    assert "of one class only" in bands.roc(normal).undefined
    assert "none of its images is of the positive class" in bands.precision_recall(normal).undefined
    assert bands.reliability(normal).undefined == bands.decision(normal).undefined == ""
