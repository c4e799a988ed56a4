"""The curves of a run that figures and charts draw, each with the band around it.

A resample gives each image a weight, how often it was drawn; a band holds 95 % of the curves of the
resamples, point by point.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.evaluation import intervals
from msa_flax.evaluation.curves import precision_recall_curve, roc_curve
from msa_flax.evaluation.metrics import called_fractures, net_benefit, ratio
from msa_flax.evaluation.predictions import Predictions

RESAMPLES = 400
GRID = np.linspace(0, 1, 101)  # where bands of ROC and precision-recall curves are computed
THRESHOLDS = np.arange(1, 100) / 100  # where the net benefit is computed
_LARGEST = 4_000_000  # weights in memory; with more images there are fewer resamples
_FEWEST_RESAMPLES = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """The curve of one run.

    Attributes:
        x, y: float [m], x growing; empty where the curve is undefined.
        band: x, lower and upper limit, float [g] each, NaN where undefined; None without a band.
        area: the AUC of a ROC curve, the average precision of a precision-recall curve, else NaN.
        count: images per point of a reliability curve, float [m]; empty for other curves.
        undefined: the reason why there is no curve, or "".
    """

    x: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    y: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    band: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    area: float = math.nan
    count: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    undefined: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resamples:
    """How often each image was drawn in each resample.

    Attributes:
        weight: float [resamples, n]; no rows where there is to be no band.
        note: how bands were made, or why there are none; a sentence.
    """

    weight: np.ndarray
    note: str


def resample(predictions: Predictions) -> Resamples:
    """Draws whole groups with replacement where at least ten are known, else images, or nothing.

    The rule is that of the intervals in ``metrics.json``: images are drawn where no image's group
    is known; with fewer than ten groups, or where only some groups are known, there is no band.
    """
    n = len(predictions)
    number = min(RESAMPLES, max(_FEWEST_RESAMPLES, _LARGEST // max(n, 1)))
    rng = np.random.default_rng(0)
    known = predictions.group != ""
    if not known.any():
        return Resamples(
            weight=rng.multinomial(n, np.full(n, 1 / n), number).astype(np.float64),
            note=f"Bands: 95 % of {number} resamples of single images, because groups are unknown; "
            "images of one patient are not independent, so the true uncertainty is larger.",
        )
    names, member = np.unique(predictions.group, return_inverse=True)
    groups, reason = len(names), ""
    if not known.all():
        reason = f"the group of {int((~known).sum())} of {n} images is unknown"
    elif groups < intervals.FEWEST:
        reason = intervals.too_few(groups)
    if reason:
        return Resamples(weight=np.zeros((0, n)), note=f"No bands: {reason}.")
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), number)
    return Resamples(
        weight=drawn[:, member].astype(np.float64),
        note=f"Bands: 95 % of {number} resamples of {groups} whole groups, point by point.",
    )


def roc(run: Predictions, resamples: Resamples | None = None) -> Curve:
    """Returns the true positive rate against the false positive rate."""
    if len(np.unique(run.label)) < 2:
        return Curve(undefined="its images are of one class only")

    def draws(weight: np.ndarray) -> np.ndarray:
        return at(*roc_curve(run.label, run.probability, weight)[:2], GRID)

    x, y, _ = roc_curve(run.label, run.probability)
    return Curve(x=x, y=y, area=float(np.trapezoid(y, x)), band=_band(GRID, draws, resamples))


def precision_recall(run: Predictions, resamples: Resamples | None = None) -> Curve:
    """Returns the precision against the recall, as steps.

    A precision holds from its recall down to the next lower one, so ``y[i]`` is the height of the
    step that ends at ``x[i]``, and the area under the steps is the average precision, the sum of
    (R_k - R_(k-1)) P_k.
    """
    if not run.label.any():
        return Curve(undefined="none of its images is of the positive class")

    def draws(weight: np.ndarray) -> np.ndarray:
        recall, precision, _ = precision_recall_curve(run.label, run.probability, weight)
        return at(recall, precision, GRID, step=True)

    x, y, _ = precision_recall_curve(run.label, run.probability)
    x, y = np.append(0, x), np.append(y[0], y)
    area = float(np.sum(np.diff(x) * y[1:]))
    return Curve(x=x, y=y, area=area, band=_band(GRID, draws, resamples))


def reliability(run: Predictions, resamples: Resamples | None = None) -> Curve:
    """Returns the share of fractures against the mean probability, in ten bins of equal width.

    A bin includes its upper end, the first one 0 too; an empty bin has no point.
    """
    inner = np.linspace(0, 1, 11)[1:-1]
    member = np.searchsorted(inner, run.probability)[:, None] == np.arange(10)
    member = member[:, member.any(axis=0)]

    def shares(weight: np.ndarray) -> np.ndarray:
        return ratio((weight * run.label) @ member, weight @ member)

    count = member.sum(axis=0)
    mean = run.probability.astype(np.float64) @ member / count
    y = shares(np.ones((1, len(run))))[0]
    return Curve(x=mean, y=y, count=count, band=_band(mean, shares, resamples))


def decision(run: Predictions, resamples: Resamples | None = None) -> Curve:
    """Returns the net benefit against the threshold probability."""
    called = np.stack([called_fractures(run.probability, t) for t in THRESHOLDS], axis=1)
    positive = np.asarray(run.label, bool)

    def benefits(weight: np.ndarray) -> np.ndarray:
        tp, fp = (weight[:, part] @ called[part] for part in (positive, ~positive))
        return net_benefit(tp, fp, weight.sum(axis=1, keepdims=True), THRESHOLDS)

    y = benefits(np.ones((1, len(run))))[0]
    return Curve(x=THRESHOLDS, y=y, band=_band(THRESHOLDS, benefits, resamples))


def learning(
    rows: Sequence[Mapping[str, Any]], split: str, quantity: str
) -> tuple[list[int], list[float]]:
    """Returns epochs and values of a quantity on a split, from rows of ``metrics.jsonl``.

    Args:
        rows: with "epoch", "split", and quantities; rows of other kinds, and null, are left out.
        split: "train" or "validation".
        quantity: "accuracy" or "loss".
    """
    chosen = [r for r in rows if r.get("split") == split and r.get(quantity) is not None]
    return [row["epoch"] for row in chosen], [row[quantity] for row in chosen]


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


def _band(
    x: np.ndarray, draws: Callable[[np.ndarray], np.ndarray], resamples: Resamples | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Returns x with the 2.5 and 97.5 % points of the resampled curves.

    Undefined values (NaN) are left out; a point that is always undefined stays NaN.
    """
    if resamples is None or not len(resamples.weight):
        return None
    values = draws(resamples.weight)
    low, high = np.full(len(x), np.nan), np.full(len(x), np.nan)
    defined = ~np.isnan(values).all(axis=0)
    if defined.any():
        low[defined], high[defined] = np.nanpercentile(values[:, defined], [2.5, 97.5], axis=0)
    return x, low, high
