"""Calibration slope and intercept: how labels follow from logits, in many draws at once."""

import numpy as np

from msa_flax.evaluation.metrics import SortedImages, chunks

_ITERATIONS = 50  # Newton's method takes about six, and a few more where steps are halved
_ROUNDING = 1e-6  # of the largest logit: what float32 and the order of sums make of equal ones
_CLOSE = 1e-6  # the length of the last step; Newton's next one would be about its square


def slope_and_intercept(images: SortedImages, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the intercept a and slope b of P(fracture) = 1 / (1 + exp(-a - b logit)).

    They maximise the likelihood (Cox 1958, logistic recalibration): 0 and 1 where the probabilities
    are right, a slope below 1 where they are too extreme. There is no maximum, and the result is
    NaN, where a threshold on the logit separates the classes in either direction (Albert and
    Anderson 1984); images of one class and logits that are all the same, but for rounding, are
    cases of it.

    Args:
        images: n images with finite logits.
        weights: int [draws, groups].

    Returns:
        name to float [draws].
    """
    if np.ptp(images.logit) <= _ROUNDING * np.abs(images.logit).max(initial=0.0):
        nothing = np.full(len(weights), np.nan)
        return {"calibration_slope": nothing, "calibration_intercept": nothing}
    centre, scale = float(np.mean(images.logit)), float(np.std(images.logit)) or 1.0
    x, y = (images.logit - centre) / scale, images.label.astype(np.float64)
    everything = np.ones((1, images.groups), np.intp)
    begin = np.zeros(2)
    if classes_overlap(images, everything)[0]:
        begin = _fit(x, y, everything[:, images.group].astype(np.float64), begin)[0]
    found = np.full((len(weights), 2), np.nan)
    start = 0
    for chunk in chunks(weights, len(x)):
        fitted = np.flatnonzero(classes_overlap(images, chunk))
        weight = chunk[fitted][:, images.group].astype(np.float64)
        found[start + fitted] = _fit(x, y, weight, begin)
        start += len(chunk)
    slope = found[:, 1] / scale
    return {"calibration_slope": slope, "calibration_intercept": found[:, 0] - slope * centre}


def classes_overlap(images: SortedImages, weights: np.ndarray) -> np.ndarray:
    """Returns for each draw whether the classes overlap: no threshold on the logit separates them.

    Args:
        images: n images.
        weights: int [draws, groups].

    Returns:
        bool [draws].
    """
    lowest, highest = np.full((2, images.groups), np.inf), np.full((2, images.groups), -np.inf)
    label = images.label.astype(np.intp)
    np.minimum.at(lowest, (label, images.group), images.logit)
    np.maximum.at(highest, (label, images.group), images.logit)
    drawn = weights > 0
    low = [np.where(drawn, values, np.inf).min(axis=1) for values in lowest]
    high = [np.where(drawn, values, -np.inf).max(axis=1) for values in highest]
    return (low[1] < high[0]) & (low[0] < high[1])


def _fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Maximises every draw's likelihood by Newton's method; a step that went too far is halved.

    Too far is where the likelihood falls along the step nearly as steeply as it rose before it.
    The likelihood is concave, so this needs its gradient only.

    Args:
        x: float [n].
        y: float [n], 0 or 1.
        weight: float [draws, n].
        begin: float [2], intercept and slope to begin with.

    Returns:
        float [draws, 2]; NaN where 50 steps were not enough.
    """
    from scipy.special import expit

    draws = len(weight)
    found = np.full((draws, 2), np.nan)
    active, at = np.arange(draws), np.tile(begin, (draws, 1))
    step, rise = np.zeros((draws, 2)), np.full(draws, np.inf)
    for _ in range(_ITERATIONS):
        if not len(active):
            break
        p = expit(at[:, :1] + at[:, 1:] * x)
        gradient = _moments(weight * (y - p), x, 2)
        too_far = np.einsum("dk,dk->d", gradient, step) < -0.9 * rise
        a, b, c = _moments(weight * p * (1 - p), x, 3).T  # the curvature [[a, b], [b, c]]
        det = np.maximum(a * c - b * b, np.finfo(np.float64).tiny)
        newton = np.stack([c, -b, -b, a], axis=1).reshape(-1, 2, 2) / det[:, None, None]
        newton = np.einsum("djk,dk->dj", newton, gradient)
        at = np.where(too_far[:, None], at - step / 2, at + newton)
        step = np.where(too_far[:, None], step / 2, newton)
        rise = np.where(too_far, rise / 2, np.einsum("dk,dk->d", gradient, newton))
        close = ~too_far & (np.abs(step).max(axis=1) < _CLOSE)
        found[active[close]] = at[close]
        keep = ~close
        active, at, step, rise = active[keep], at[keep], step[keep], rise[keep]
        weight = weight[keep] if close.any() else weight
    return found


def _moments(values: np.ndarray, x: np.ndarray, count: int) -> np.ndarray:
    """Returns the sums of values, values x, values x^2, ...: float [draws, count]."""
    return np.stack([np.einsum("dn,n->d", values, x**k) for k in range(count)], axis=1)
