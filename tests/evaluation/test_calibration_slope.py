"""Slopes and intercepts are those of an unpenalised logistic regression, where there is one."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from msa_flax.evaluation.calibration_slope import classes_overlap, slope_and_intercept
from msa_flax.evaluation.metrics import sort_images


def once(rows):
    """The weights of a single draw in which every group counts once."""
    return np.ones((1, rows.groups), int)


@pytest.mark.parametrize("swap", [(119, 121), (119, 122), (60, 180)])
def test_classes_that_hardly_overlap_are_fitted_as_scikit_learn_does(swap):
    # Newton's method without damping leaves the numbers there are on its first or second step.
    x = np.concatenate([np.linspace(-30, -0.1, 120), np.linspace(0.1, 30, 120)])
    label = np.arange(240) >= 120
    label[list(swap)] = ~label[list(swap)]
    rows = sort_images(label, expit(x), threshold=0.5, logits=x)
    found = slope_and_intercept(rows, once(rows))
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit(x[:, None], label)
    # lbfgs on a nearly flat likelihood: a few digits
    assert found["calibration_slope"][0] == pytest.approx(fit.coef_[0, 0], rel=1e-4)


def test_draws_far_from_the_fit_of_all_images_are_fitted_too():
    # With these outlying logits an undamped step from the fit of all images, where Newton's method
    # begins, ends at slopes of 10^4 and more for twelve of the draws.
    rng = np.random.default_rng(1)
    x, group = 3 * rng.standard_t(1.2, 40), np.arange(40) % 10
    label = x > 0
    label[rng.choice(40, 2, replace=False)] ^= True
    rows = sort_images(label, expit(x), threshold=0.5, logits=x, group=group)
    weights = rng.multinomial(10, np.full(10, 1 / 10), size=40)
    fitted = classes_overlap(rows, weights)
    found = slope_and_intercept(rows, weights)["calibration_slope"]
    assert np.array_equal(np.isfinite(found), fitted)
    assert 10 < np.sum(fitted) < 40
    for i in np.flatnonzero(fitted):
        fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000)
        fit.fit(x[:, None], label, sample_weight=weights[i][group])
        assert found[i] == pytest.approx(fit.coef_[0, 0], rel=1e-4)


@pytest.mark.parametrize(
    ("x", "label"),
    [
        ([-2, -1, 1, 2], [0, 0, 1, 1]),
        ([-2, -1, 1, 2], [1, 1, 0, 0]),
        ([-2, 0, 0, 2], [0, 0, 1, 1]),  # apart but for a tie: still no maximum
        ([1, 1, 1, 1], [0, 1, 0, 1]),
        ([-2, -1, 1, 2], [1, 1, 1, 1]),
    ],
)
def test_separated_classes_have_no_slope(x, label):
    x, label = np.array(x, float), np.array(label, bool)
    rows = sort_images(label, expit(x), threshold=0.5, logits=x)
    assert not classes_overlap(rows, once(rows))[0]
    assert all(np.isnan(value[0]) for value in slope_and_intercept(rows, once(rows)).values())


def test_logits_that_differ_by_rounding_alone_have_no_slope():
    x = np.float32([-0.520086527, -0.520086467, -0.520086527, -0.520086467])
    rows = sort_images(np.array([1, 0, 0, 1], bool), expit(x), threshold=0.5, logits=x)
    assert classes_overlap(rows, once(rows))[0]
    assert all(np.isnan(value[0]) for value in slope_and_intercept(rows, once(rows)).values())


def test_right_logits_have_slope_1_and_scaled_ones_the_inverse():
    rng = np.random.default_rng(0)
    x = 2 * rng.normal(size=50_000)
    label = rng.random(len(x)) < expit(x)
    for scale, shift in ((1.0, 0.0), (2.0, 1.0)):
        stretched = scale * x + shift
        rows = sort_images(label, expit(stretched), threshold=0.5, logits=stretched)
        found = slope_and_intercept(rows, once(rows))
        # standard errors of about 0.01
        assert found["calibration_slope"][0] == pytest.approx(1 / scale, abs=0.05)
        assert found["calibration_intercept"][0] == pytest.approx(-shift / scale, abs=0.05)
