"""The points of curves are scikit-learn's, also for images that count several times."""

import numpy as np
import pytest
from sklearn import metrics as reference

from msa_flax.evaluation.curves import precision_recall_curve, roc_curve
from msa_flax.evaluation.metrics import auc


def labels_and_probabilities(n=200):
    """Two in five images have a probability of their own, the others share one with some."""
    rng = np.random.default_rng(0)
    probabilities = np.round(rng.beta(2, 2, n), 2).astype(np.float32)
    return (rng.random(n) < probabilities).astype(int), probabilities


def draws(n, number=5):
    return np.random.default_rng(1).multinomial(n, np.full(n, 1 / n), number).astype(float)


def test_roc_points_are_scikit_learns():
    labels, probabilities = labels_and_probabilities()
    weights = draws(len(labels))
    false_rate, recall, thresholds = roc_curve(labels, probabilities, weights)
    for i, weight in enumerate(weights):
        x, y, t = reference.roc_curve(
            labels, probabilities, sample_weight=weight, drop_intermediate=False
        )
        # scikit-learn leaves out thresholds that no drawn image has; there the curve stands still.
        at = np.append(True, np.isin(thresholds, t))
        np.testing.assert_allclose(false_rate[i][at], x, rtol=1e-12)
        np.testing.assert_allclose(recall[i][at], y, rtol=1e-12)


def test_precision_recall_points_are_scikit_learns():
    labels, probabilities = labels_and_probabilities()
    recall, precision, thresholds = precision_recall_curve(labels, probabilities)
    p, r, t = reference.precision_recall_curve(labels, probabilities)
    np.testing.assert_array_equal(thresholds, t[::-1])
    np.testing.assert_allclose(recall, r[-2::-1], rtol=1e-12)
    np.testing.assert_allclose(precision, p[-2::-1], rtol=1e-12)


@pytest.mark.parametrize("curve", [roc_curve, precision_recall_curve])
def test_without_weights_every_image_counts_once(curve):
    labels, probabilities = labels_and_probabilities()
    alone = curve(labels, probabilities)
    together = curve(labels, probabilities, np.ones((2, len(labels))))
    for one, two in zip(alone[:2], together[:2], strict=True):
        np.testing.assert_array_equal(np.stack([one, one]), two)


def test_the_area_under_the_roc_points_is_the_auc():
    labels, probabilities = labels_and_probabilities()
    false_rate, recall, _ = roc_curve(labels, probabilities)
    assert np.trapezoid(recall, false_rate) == pytest.approx(auc(labels, probabilities), rel=1e-12)


def test_one_class_has_no_false_positive_rate():
    false_rate, recall, _ = roc_curve(np.ones(3, int), np.array([0.1, 0.5, 0.9]))
    assert np.isnan(false_rate).all()
    np.testing.assert_allclose(recall, [0, 1 / 3, 2 / 3, 1], rtol=1e-12)
