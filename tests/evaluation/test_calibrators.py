"""Calibrators against libraries and definitions, and what they do where there is no best one."""

import numpy as np
import pytest
from scipy import optimize, special
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from msa_flax.evaluation.calibrators import (
    COLDEST,
    HOTTEST,
    fit_isotonic,
    fit_temperature,
    merge,
    unusable,
    venn_abers,
)


def images(seed=0, n=200, *, heat=2.0, decimals=None):
    """Logits that are too large by a factor, with labels; float32, as in predictions.csv."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.3, 1.5, n)
    labels = (rng.random(n) < special.expit(logits)).astype(int)
    logits = heat * logits
    return (logits if decimals is None else logits.round(decimals)).astype(np.float32), labels


def loss(inverse, logits, labels):
    x = logits.astype(np.float64)
    return np.mean(np.logaddexp(0, np.where(labels == 1, -x, x) * inverse))


@pytest.mark.parametrize("heat", [0.5, 1.0, 3.0])
def test_the_temperature_is_where_the_loss_is_least(heat):
    logits, labels = images(heat=heat)
    found = optimize.minimize_scalar(
        loss, bracket=(0.1, 1), args=(logits, labels), options={"xtol": 1e-12}
    )
    temperature = fit_temperature(logits, labels)
    # A minimum is flat: its place is known to the root of the float64 precision.
    assert temperature.value == pytest.approx(1 / found.x, rel=1e-6)
    assert temperature.reason == ""
    # It undoes what made the logits too large, up to the spread of 200 labels (0.15, once drawn).
    assert temperature.value / heat == pytest.approx(1, abs=0.3)


def test_the_temperature_is_scikit_learns():
    pytest.importorskip("sklearn", minversion="1.8")
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Network(ClassifierMixin, BaseEstimator):
        def fit(self, x, y):
            self.classes_ = np.unique(y)
            return self

        def decision_function(self, x):
            return x[:, 0]

        def predict(self, x):
            return (x[:, 0] >= 0).astype(int)

    logits, labels = images()
    x = logits.astype(np.float64)[:, None]
    frozen = FrozenEstimator(Network().fit(x, labels))
    theirs = CalibratedClassifierCV(frozen, method="temperature", ensemble=False).fit(x, labels)
    ours = special.expit(fit_temperature(logits, labels).apply(logits))
    # Their minimiser stops where the loss no longer falls, at about 1e-8 of the temperature.
    np.testing.assert_allclose(ours, theirs.predict_proba(x)[:, 1], rtol=0, atol=1e-6)


def test_dividing_by_a_temperature_keeps_the_order_and_the_auc():
    logits, labels = images()
    calibrated = fit_temperature(logits, labels).apply(logits)
    np.testing.assert_array_equal(np.argsort(calibrated), np.argsort(logits))
    assert roc_auc_score(labels, calibrated) == roc_auc_score(labels, logits)


def test_a_temperature_of_separated_images_is_that_of_platts_labels():
    logits = np.array([-3, -1, -0.5, 0.5, 2], np.float32)
    labels = np.array([0, 0, 0, 1, 1])
    found = fit_temperature(logits, labels)
    assert "Platt's smoothed labels" in found.reason
    target = np.array([1 / 5, 1 / 5, 1 / 5, 3 / 4, 3 / 4])

    def smoothed(inverse):
        x = inverse * logits.astype(np.float64)
        return np.mean(np.logaddexp(0, x) - target * x)

    least = optimize.minimize_scalar(smoothed, bracket=(0.1, 1), options={"xtol": 1e-12})
    assert found.value == pytest.approx(1 / least.x, rel=1e-6)  # flat, as above


@pytest.mark.parametrize(
    ("logits", "labels", "value", "said"),
    [
        ([-1, 1, 2, -2], [1, 0, 0, 1], HOTTEST, "next to nothing"),
        ([-0.001, 0.001, 0.001, 0.001, -0.001], [0, 1, 1, 0, 0], COLDEST, "far too small"),
    ],
)
def test_a_temperature_has_bounds_and_says_when_it_meets_them(logits, labels, value, said):
    found = fit_temperature(np.array(logits, np.float32), np.array(labels))
    assert found.value == value
    assert said in found.reason


@pytest.mark.parametrize("decimals", [None, 0])
def test_the_isotonic_curve_is_scikit_learns_with_ties_and_beyond_its_ends(decimals):
    logits, labels = images(decimals=decimals)
    new = np.append(images(seed=1)[0], np.float32([-50, 50]))
    theirs = IsotonicRegression(out_of_bounds="clip").fit(logits.astype(np.float64), labels)
    ours = fit_isotonic(logits, labels).apply(new)
    # Two ways to interpolate a straight line differ in rounding only.
    np.testing.assert_allclose(ours, theirs.predict(new.astype(np.float64)), rtol=0, atol=1e-12)


def by_definition(logits, labels, new):
    """Two isotonic regressions for each new image, of all images and the new one."""
    found = np.empty((len(new), 2))
    for i, one in enumerate(new):
        for label in (0, 1):
            x, y = np.append(logits, one).astype(np.float64), np.append(labels, label)
            found[i, label] = IsotonicRegression().fit(x, y).predict([np.float64(one)])[0]
    return found[:, 0], found[:, 1]


def venn_cases():
    for decimals in (None, 0):
        logits, labels = images(n=60, decimals=decimals)
        new = np.concatenate([images(seed=1, n=40)[0], logits[:20], np.float32([-50, 50])])
        yield logits, labels, new


@pytest.mark.parametrize("case", list(venn_cases()), ids=["distinct", "ties"])
def test_venn_abers_is_two_isotonic_regressions_with_the_new_image(case):
    low, high = venn_abers(*case)
    # Sums of at most 61 numbers in another order: a few units in the last place.
    np.testing.assert_allclose((low, high), by_definition(*case), rtol=0, atol=1e-12)
    assert np.all((low >= 0) & (low < high) & (high <= 1))
    merged = merge(low, high)
    assert np.all((low < merged) & (merged < high))


def test_venn_abers_without_the_new_image_is_another_thing(monkeypatch):
    logits, labels, new = next(venn_cases())
    alone = fit_isotonic(logits, labels).apply(new)
    low, _ = venn_abers(logits, labels, new)
    assert np.max(np.abs(low - alone)) > 0.05
    rounded = logits.round()
    right = by_definition(rounded, labels, new)[0]
    real = optimize.isotonic_regression

    def unweighted(y, weights):
        return real(y, weights=np.ones_like(weights))

    monkeypatch.setattr(optimize, "isotonic_regression", unweighted)
    assert np.max(np.abs(venn_abers(rounded, labels, new)[0] - right)) > 0.01


def test_venn_abers_is_that_of_the_package():
    before = np.geterr()
    theirs = pytest.importorskip("venn_abers")
    np.seterr(**before)  # importing it turns warnings off
    for logits, labels, new in venn_cases():
        fractured = [special.expit(x.astype(np.float64)) for x in (logits, new)]
        p = [np.stack([1 - x, x], axis=1) for x in fractured]
        with np.errstate(all="ignore"):
            merged, both = theirs.VennAbers().fit(p[0], labels).predict_proba(p[1])
        low, high = venn_abers(logits, labels, new)
        np.testing.assert_allclose(both, np.stack([low, high], axis=1), rtol=0, atol=1e-12)
        np.testing.assert_allclose(merged[:, 1], merge(low, high), rtol=0, atol=1e-12)


def test_one_of_the_two_probabilities_is_calibrated():
    """The theorem: choose high for fractures, low for normal images, and the mean is the rate."""
    chosen, truth, lower = [], [], []
    for seed in range(300):
        logits, labels = images(seed=seed, n=31)
        low, high = venn_abers(logits[1:], labels[1:], logits[:1])
        chosen.append(float(high[0] if labels[0] else low[0]))
        lower.append(float(low[0]))
        truth.append(labels[0])
    # 300 labels know their rate to sqrt(0.25 / 300) = 0.03.
    assert np.mean(chosen) == pytest.approx(np.mean(truth), abs=3 * 0.03)
    assert np.mean(lower) < np.mean(truth) - 0.05  # low alone is not


@pytest.mark.parametrize("decimals", [None, 0])
def test_the_order_of_the_images_changes_not_one_bit(decimals):
    logits, labels = images(decimals=decimals)
    order = np.random.default_rng(1).permutation(len(logits))
    moved, new = (logits[order], labels[order]), images(seed=2)[0]
    assert fit_temperature(*moved) == fit_temperature(logits, labels)
    assert fit_isotonic(*moved) == fit_isotonic(logits, labels)
    np.testing.assert_array_equal(venn_abers(*moved, new), venn_abers(logits, labels, new))
    np.testing.assert_array_equal(
        venn_abers(*moved, new[::-1])[0], venn_abers(logits, labels, new)[0][::-1]
    )


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        ([1, 2], [0, 0], "no 'fracture'"),
        ([1, 2], [1, 1], "no 'normal'"),
        ([], [], "no 'fracture'"),
        ([1, 1, 1], [0, 1, 1], "all logits of the images to fit it on are the same"),
    ],
)
def test_what_cannot_be_fitted_is_said(logits, labels, said):
    logits, labels = np.array(logits, np.float32), np.array(labels, int)
    assert said in unusable(logits, labels)
    for fit in (fit_temperature, fit_isotonic, lambda *known: venn_abers(*known, logits)):
        with pytest.raises(ValueError, match=said):
            fit(logits, labels)


def test_no_new_images_are_no_error():
    low, high = venn_abers(*images(), np.empty(0, np.float32))
    assert low.shape == high.shape == (0,)
