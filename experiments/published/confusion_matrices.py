"""All confusion matrices of two classes, and where among them a metric has a value.

With the sizes P and N of the classes a confusion matrix is two numbers, TP in 0..P and FP in 0..N.
Every metric here, of either class or averaged over both, grows or stays with TP and falls or stays
with FP: for a given TP those FP that give it a value within some reach are an interval, found by
bisection. A :class:`Region` holds such intervals, one per TP, never the (P + 1)(N + 1) matrices.
That the Matthews coefficient is monotone too is shown by the tests, which compare all this with a
loop over all matrices.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from msa_flax.evaluation.metrics import rates

METRICS = (
    *("accuracy", "precision", "recall", "specificity", "f1"),
    *("npv", "balanced_accuracy", "mcc"),
)
AVERAGED = frozenset({"precision", "recall", "f1"})  # may be a mean over the classes
SIDED = frozenset({"specificity", "npv"})  # always belong to the positive class
SLACK = 1e-12  # what float64 may be wrong by: a value on the edge of the reach is within it


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A part of all confusion matrices.

    Attributes:
        tp: TP of the first class, int [k].
        low, high: from which FP to which, int [k]; ``low > high`` is none.
    """

    tp: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def count(self) -> int:
        """How many matrices there are."""
        return int(np.maximum(self.high - self.low + 1, 0).sum())

    def rows(self, chosen: np.ndarray) -> "Region":
        """Returns some of the rows, chosen by a mask or by index."""
        return Region(self.tp[chosen], self.low[chosen], self.high[chosen])

    def both(self, other: "Region") -> "Region":
        """Returns what two regions with the same rows have in common."""
        low, high = np.maximum(self.low, other.low), np.minimum(self.high, other.high)
        return Region(self.tp, low, high)

    def without(self, part: "Region") -> "Region":
        """Returns what is left when a part with the same rows is taken out."""
        empty = part.low > part.high
        below = np.where(empty, self.high, part.low - 1)
        above = np.where(empty, self.high, part.high) + 1
        pieces = [(self.tp, self.tp), (self.low, above), (below, self.high)]
        left = Region(*map(np.concatenate, pieces))
        return left.rows(np.argsort(left.tp, kind="stable"))

    def take(self, limit: int, *, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Returns TP and FP of every ``step``-th matrix, of ``limit`` matrices at most."""
        ends = np.cumsum(np.maximum(self.high - self.low + 1, 0))
        chosen = np.arange(0, self.count, step)[:limit]
        row = np.searchsorted(ends, chosen, side="right")
        return self.tp[row], self.high[row] + 1 - (ends[row] - chosen)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The confusion matrices of two classes, and how their metrics are read.

    Attributes:
        n_positive, n_negative: images of the first and of the second class, 1 or more.
        averaging: "binary", "macro" (mean over the classes) or "weighted" (by their sizes), of
            precision, recall and F1.
        swapped: whether the second class is the positive one.
    """

    n_positive: int
    n_negative: int
    averaging: str
    swapped: bool

    def all(self) -> Region:
        """Returns all matrices."""
        tp = np.arange(self.n_positive + 1)
        return Region(tp, np.zeros_like(tp), np.full_like(tp, self.n_negative))

    def counts(self, tp: np.ndarray, fp: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns TP, FN, FP, TN of the positive class, given TP and FP of the first."""
        first = (tp, self.n_positive - tp, fp, self.n_negative - fp)
        return first[::-1] if self.swapped else first

    def values(self, name: str, tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
        """Returns a metric of matrices given by the first class's TP and FP, NaN if undefined."""
        return metric(name, self.averaging, self.counts(tp, fp))

    def within(self, region: Region, name: str, value: float, reach: float) -> Region:
        """Returns the part of a region, with all its rows, where a metric is near a value."""

        def values(fp: np.ndarray) -> np.ndarray:
            found = self.values(name, region.tp, fp)
            # Only the first and the last matrix can be undefined: none or all predicted positive
            return np.where(np.isnan(found), np.where(fp == 0, np.inf, -np.inf), found)

        reach += SLACK
        low = _first(lambda fp: values(fp) <= value + reach, region.low, region.high)
        high = _first(lambda fp: values(fp) < value - reach, low, region.high) - 1
        return Region(region.tp, low, high)


def metric(name: str, averaging: str, counts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns a metric of confusion matrices, float64 [k], NaN where it is undefined.

    F1 is undefined where precision is; macro and weighted F1 are means of the classes' F1.

    Args:
        name: out of ``METRICS``.
        averaging: see :class:`Space`; means nothing to a metric that is not in ``AVERAGED``.
        counts: TP, FN, FP, TN of the positive class, int [k] each.
    """
    if name == "balanced_accuracy":
        found = rates(*counts)
        return (found["recall"] + found["specificity"]) / 2
    if name not in AVERAGED or averaging == "binary":
        return rates(*counts)[name]
    tp, fn, fp, tn = counts
    share = 0.5 if averaging == "macro" else (tp + fn) / (tp + fn + fp + tn)
    own, other = (metric(name, "binary", c) for c in (counts, counts[::-1]))
    return share * own + (1 - share) * other


def _first(
    holds: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Returns for each row the first FP in low..high from which on something holds, or high + 1."""
    left, right = low, np.maximum(high + 1, low)
    last = high.max(initial=0)
    while (searching := left < right).any():
        middle = np.minimum((left + right) // 2, last)
        found = holds(middle)
        left = np.where(searching & ~found, middle + 1, left)
        right = np.where(searching & found, middle, right)
    return left
