"""Curves of predictions, and bands around them by resampling groups.

A resample gives each image a weight, how often it was drawn; curves are computed from weights, so
the curve itself is the one with all weights 1.
"""

import dataclasses

import numpy as np

from msa_flax.evaluation import intervals
from msa_flax.evaluation.predictions import Predictions

RESAMPLES = 400
_LARGEST = 4_000_000  # weights in memory; more images, fewer resamples
_FEWEST_RESAMPLES = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resamples:
    """How often each image was drawn in each resample.

    Attributes:
        weight: float [resamples, n]; no rows where there is no band.
        note: how bands were made, or why there are none; a sentence.
    """

    weight: np.ndarray
    note: str


def resamples(predictions: Predictions, *, seed: int = 0) -> Resamples:
    """Draws whole groups with replacement where at least ten are known, else images, or nothing.

    The rule is that of the intervals in ``metrics.json``: images are drawn where no image's group
    is known; fewer than ten groups, or images of unknown group among others, have no band.
    """
    n = len(predictions)
    number = min(RESAMPLES, max(_FEWEST_RESAMPLES, _LARGEST // max(n, 1)))
    rng = np.random.default_rng(seed)
    known = predictions.group != ""
    if not known.any():
        drawn = rng.multinomial(n, np.full(n, 1 / n), number)
        return Resamples(
            weight=drawn.astype(np.float64),
            note=f"Bands: 95 % of {number} resamples of single images, because groups are unknown; "
            "images of one patient are not independent, so the true uncertainty is larger.",
        )
    if not known.all():
        unknown = f"the group of {int((~known).sum())} of {n} images is unknown"
        return Resamples(weight=np.zeros((0, n)), note=f"No bands: {unknown}.")
    names, member = np.unique(predictions.group, return_inverse=True)
    groups = len(names)
    if groups < intervals.FEWEST:
        few = f"the images are of {groups} group{'s' * (groups != 1)}, and {intervals.FEWEST} are"
        return Resamples(
            weight=np.zeros((0, n)), note=f"No bands: {few} needed to say how much groups differ."
        )
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), number)
    return Resamples(
        weight=drawn[:, member].astype(np.float64),
        note=f"Bands: 95 % of {number} resamples of {groups} whole groups, point by point.",
    )


def percentiles(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the 2.5 and 97.5 % points of draws [resamples, m], or None where there are none.

    Undefined values (NaN) are left out; a column that is always undefined stays NaN.
    """
    if not len(draws):
        return None
    low, high = np.full(draws.shape[1], np.nan), np.full(draws.shape[1], np.nan)
    defined = ~np.isnan(draws).all(axis=0)
    if defined.any():
        low[defined], high[defined] = np.nanpercentile(draws[:, defined], [2.5, 97.5], axis=0)
    return low, high


def roc(
    labels: np.ndarray, scores: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns false positive rate, true positive rate, both [k, m + 1], and the scores [m].

    Point 0 is the origin; point i calls every image with a score at or above the i-th largest one.

    Args:
        labels: int [n].
        scores: float [n].
        weight: float [k, n].
    """
    fp, tp, thresholds = _cumulative(labels, scores, weight)
    return _share(fp, fp[:, -1:]), _share(tp, tp[:, -1:]), thresholds


def precision_recall(
    labels: np.ndarray, scores: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns recall and precision at every score, largest first, [k, m], and the scores [m]."""
    fp, tp, thresholds = _cumulative(labels, scores, weight)
    called = fp + tp
    return _share(tp, tp[:, -1:])[:, 1:], _share(tp, called)[:, 1:], thresholds


def at(x: np.ndarray, y: np.ndarray, grid: np.ndarray, *, step: bool = False) -> np.ndarray:
    """Returns y at the points of a grid for rows of growing x [k, m], as [k, len(grid)].

    Args:
        x: growing along each row; a row with NaN gives NaN.
        y: its values.
        grid: float [g].
        step: the value of the first point at or beyond the grid's, instead of interpolation.
    """
    rows = []
    for a, b in zip(x, y, strict=True):
        if np.isnan(a).any():
            rows.append(np.full(len(grid), np.nan))
        elif step:
            rows.append(b[np.minimum(np.searchsorted(a, grid - 1e-12), len(a) - 1)])
        else:  # of several points at one x the highest is the curve
            last = np.append(a[1:] != a[:-1], True)
            rows.append(np.interp(grid, a[last], b[last]))
    return np.array(rows).reshape(len(x), len(grid))


def net_benefit(
    labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Returns TP/n - FP/n * t / (1 - t) at each threshold t < 1, [k, len(thresholds)].

    Net benefit counts true positives, less the false positives that a threshold of t says one
    true positive is worth (Vickers and Elkin 2006).
    """
    called = np.asarray(scores, np.float32)[:, None] >= np.asarray(thresholds, np.float32)
    positive = np.asarray(labels, bool)
    total = weight.sum(axis=1, keepdims=True)
    tp = weight[:, positive] @ called[positive] / total
    fp = weight[:, ~positive] @ called[~positive] / total
    return tp - fp * thresholds / (1 - thresholds)


def reliability(
    labels: np.ndarray, scores: np.ndarray, weight: np.ndarray, *, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns weight, mean score and share of fractures in equal bins of the score, [k, bins].

    A bin includes its upper end, the first one 0 too. Mean and share are NaN in an empty bin.
    """
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    member = np.searchsorted(inner, scores)[:, None] == np.arange(bins)
    total = weight @ member
    mean = _share((weight * scores) @ member, total)
    return total, mean, _share((weight * labels) @ member, total)


def _cumulative(
    labels: np.ndarray, scores: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # equal scores are called together
    positive = np.asarray(labels, bool)[order]
    both = []
    for chosen in (~positive, positive):
        sums = np.cumsum(weight[:, order] * chosen, axis=1)[:, last]
        both.append(np.concatenate([np.zeros((len(weight), 1)), sums], axis=1))
    return both[0], both[1], ordered[last]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
