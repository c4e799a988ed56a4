"""Calibration after training: temperature, isotonic regression, Venn-Abers.

Each maps the logits of a network to probabilities of a fracture, and is fitted on images that the
network was not trained on. The order of the images changes nothing, not even the last bit.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from msa_flax.evaluation.metrics import CLASSES

COLDEST, HOTTEST = 0.05, 20.0  # temperatures; beyond, probabilities are 0 and 1, or all 0.5
_SEPARATED = (
    "a logit of 0 separates the images, so that the likelihood grows without end as the "
    "temperature falls; Platt's smoothed labels were used"
)
_USELESS = (
    f"the likelihood still grows at a temperature of {HOTTEST:g}, the highest allowed: the logits "
    "say next to nothing about the labels"
)
_STEEP = (
    f"the likelihood still grows at a temperature of {COLDEST:g}, the lowest allowed: the logits "
    "are far too small"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Temperature:
    """A temperature, 0.05..20: logits are divided by it. The reason, if it is no plain optimum."""

    value: float
    reason: str = ""

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Returns the calibrated logits, float64 [n], of ``logits``, float [n]."""
        return np.asarray(logits, np.float64) / self.value


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Isotonic:
    """A rising curve through points: logits and the probabilities there, both of them rising."""

    logit: tuple[float, ...]
    probability: tuple[float, ...]

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Returns probabilities, float64 [n]: linear between points, constant beyond the last."""
        return np.interp(np.asarray(logits, np.float64), self.logit, self.probability)


def unusable(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str] = CLASSES) -> str:
    """Returns why nothing can be fitted on these images, or "" where it can.

    Args:
        logits: float [n].
        labels: int [n], 1 fracture, 0 normal.
        classes: names of the labels 0 and 1.
    """
    labels = np.asarray(labels).astype(bool)
    if labels.all() or not labels.any():
        return f"there is no {classes[not labels.any()]!r} among the images to fit it on"
    if np.ptp(np.asarray(logits, np.float64)) == 0:
        return "all logits of the images to fit it on are the same"
    return ""


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> Temperature:
    """Returns the temperature T with the largest likelihood of P(fracture) = 1/(1+exp(-logit/T)).

    Guo et al. (2017, "On Calibration of Modern Neural Networks", section 4.2). The likelihood is
    concave in 1/T, so its slope has one zero at most. There is none where no image lies on the
    wrong side of logit 0; the labels are then taken as (m + 1)/(m + 2) and 1/(n + 2) for m
    fractures and n normal images (Platt 1999, section 2.2). T is kept in 0.05..20 (ours).

    Args:
        logits: float [n], not all the same.
        labels: int [n], 1 fracture, 0 normal, some of each.

    Raises:
        ValueError: the images are such that nothing can be fitted.
    """
    from scipy import optimize, special

    x, y = _ordered(logits, labels)
    target, reason = y.astype(np.float64), ""
    if np.all(np.where(y, x, -x) >= 0):
        fractures, reason = int(y.sum()), _SEPARATED
        target = np.where(y, (fractures + 1) / (fractures + 2), 1 / (len(y) - fractures + 2))

    def slope(inverse: float) -> float:
        return float(np.mean((special.expit(inverse * x) - target) * x))

    lowest, highest = 1 / HOTTEST, 1 / COLDEST
    if slope(lowest) >= 0:
        return Temperature(value=HOTTEST, reason=_USELESS)
    if slope(highest) <= 0:
        return Temperature(value=COLDEST, reason=reason or _STEEP)
    found = optimize.brentq(slope, lowest, highest, xtol=1e-14)
    return Temperature(value=1 / float(found), reason=reason)


def fit_isotonic(logits: np.ndarray, labels: np.ndarray) -> Isotonic:
    """Returns the rising curve with the least squared error (Zadrozny and Elkan 2002).

    Scikit-learn's IsotonicRegression. Its ends are often probabilities of exactly 0 and 1.

    Args:
        logits: float [n], not all the same.
        labels: int [n], 1 fracture, 0 normal, some of each.

    Raises:
        ValueError: the images are such that nothing can be fitted.
    """
    from sklearn.isotonic import IsotonicRegression

    x, y = _ordered(logits, labels)
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(x, y)
    return Isotonic(
        logit=tuple(curve.X_thresholds_.tolist()), probability=tuple(curve.y_thresholds_.tolist())
    )


def venn_abers(
    logits: np.ndarray, labels: np.ndarray, new: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two probabilities of a fracture that Venn-Abers prediction gives a new image.

    The new image joins the others, once as normal and once as a fracture; each time isotonic
    regression says what its probability is. One of the two is calibrated, exactly and in finite
    samples, if all images are exchangeable (Vovk and Petej 2014, "Venn-Abers predictors").

    Args:
        logits: float [n], not all the same.
        labels: int [n], 1 fracture, 0 normal, some of each.
        new: float [m], logits of the new images.

    Returns:
        (low, high), float64 [m] each, 0 <= low < high <= 1; low < 1 and high > 0.

    Raises:
        ValueError: the images are such that nothing can be fitted.
    """
    from scipy import optimize

    x, y = _ordered(logits, labels)
    levels, level, count = np.unique(x, return_inverse=True, return_counts=True)
    hits = np.bincount(level, y)
    new = np.asarray(new, np.float32).astype(np.float64)
    place = np.searchsorted(levels, new)
    tied = levels[np.minimum(place, len(levels) - 1)] == new
    # What comes out depends on the place among the levels alone; 2 n + 1 places at most.
    places, where = np.unique(2 * place + tied, return_inverse=True)
    found = np.empty((len(places), 2))
    for i, (at, tie) in enumerate(np.stack(np.divmod(places, 2), axis=1)):
        weight = count.astype(np.float64) if tie else np.insert(count * 1.0, at, 0.0)
        total = hits.copy() if tie else np.insert(hits, at, 0.0)
        weight[at] += 1
        for label in (0, 1):
            total[at] += label
            found[i, label] = optimize.isotonic_regression(total / weight, weights=weight).x[at]
    return found[where, 0], found[where, 1]


def merge(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns the one probability for two: high / (1 - low + high), float64 [m], above 0, below 1.

    It has the least regret in log loss (Vovk, Petej and Fedorova 2015, section 4).
    """
    return high / (1 - low + high)


def _ordered(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits, float64 [n] in float32's precision, and labels, bool [n], rising."""
    if reason := unusable(logits, labels):
        raise ValueError(reason)
    x = np.asarray(logits, np.float32).astype(np.float64)
    y = np.asarray(labels).astype(bool)
    order = np.lexsort((y, x))
    return x[order], y[order]
