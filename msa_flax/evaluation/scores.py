"""Metrics of weighted images: what a metric is when a group counts twice, or not at all.

A bootstrap over groups needs thousands of metrics of the same images, each with every group counted
as often as it was drawn. Nothing is drawn here and no row is copied: a draw is a row of whole
numbers, one a group, and every function takes all draws at once. What a draw leaves undefined is
NaN. The images themselves are the draw in which every group counts once.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

BINS = 15  # of the calibration errors, as in Guo et al. (2017)
FALSE_ALARMS = 20  # one normal image in so many may be called a fracture: specificity 0.95
_CHUNK = 1 << 18  # images times draws held at a time: a few MiB, which stay in the cache


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Images in an order that does not depend on how they came: build it with :func:`ordered`.

    Attributes:
        label: bool [n], True for a fracture.
        probability: float64 [n], of a fracture, falling.
        logit: float64 [n]; infinite where nothing finite is known.
        group: int [n], 0 up to the number of groups, exclusive.
        called: bool [n], True where the image is called a fracture.
    """

    label: np.ndarray
    probability: np.ndarray
    logit: np.ndarray
    group: np.ndarray
    called: np.ndarray

    @property
    def groups(self) -> int:
        """The number of groups."""
        return int(self.group.max(initial=-1)) + 1


def ordered(
    label: np.ndarray,
    probability: np.ndarray,
    logit: np.ndarray,
    group: np.ndarray,
    called: np.ndarray,
) -> Rows:
    """Returns the images as :class:`Rows`; every sum over them is the same in any order.

    Args:
        label: bool [n].
        probability: float [n].
        logit: float [n].
        group: int [n].
        called: bool [n].
    """
    order = np.lexsort((group, logit, label, -probability))
    return Rows(
        label=label[order],
        probability=probability[order],
        logit=logit[order],
        group=group[order],
        called=called[order],
    )


def by_counts(rows: Rows, weights: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """Returns the metrics that are made of sums over images: one product of matrices.

    With the counts TP, FN, FP, TN: accuracy, precision, npv TN/(TN+FN), recall, specificity, F1;
    mcc (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)) (Matthews 1975); the net benefit
    TP/n - FP/n t/(1-t) of calling at the threshold t (Vickers and Elkin 2006); the Brier score,
    mean of (probability - label)^2; the log loss in nats, mean of log(1 + exp(-logit)) over
    fractures and of log(1 + exp(logit)) over normal images.

    Args:
        rows: n images.
        weights: int [draws, groups].
        threshold: the probability t that ``rows.called`` belongs to.

    Returns:
        name to float [draws].
    """
    y, called = rows.label, rows.called
    loss = np.logaddexp(0, np.where(y, -rows.logit, rows.logit))
    facts = [y & called, y & ~called, ~y & called, ~y & ~called]
    facts += [np.square(rows.probability - y), loss]
    sums = np.stack([np.bincount(rows.group, fact, minlength=rows.groups) for fact in facts])
    # einsum, because BLAS sums in an order that depends on the number of threads.
    tp, fn, fp, tn, square, loss = np.einsum("dg,kg->kd", weights.astype(np.float64), sums)
    total = tp + fn + fp + tn
    precision, recall = ratio(tp, tp + fp), ratio(tp, tp + fn)
    # Two roots of squares, so that a perfect table has exactly 1.
    margins = np.sqrt((tp + fp) * (tp + fn)) * np.sqrt((tn + fp) * (tn + fn))
    odds = threshold / (1 - threshold) if threshold < 1 else np.nan
    return {
        "accuracy": ratio(tp + tn, total),
        "precision": precision,
        "npv": ratio(tn, tn + fn),
        "recall": recall,
        "specificity": ratio(tn, tn + fp),
        "f1": ratio(2 * tp, 2 * tp + fp + fn) + 0 * precision + 0 * recall,
        "mcc": ratio(tp * tn - fp * fn, margins),
        "net_benefit": ratio(tp - odds * fp, total),
        "brier": ratio(square, total),
        "log_loss": ratio(loss, total),
    }


def by_ranks(rows: Rows, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the metrics that depend on the order of the probabilities alone, and on their bins.

    auc is the chance that a fracture scores above a normal image, ties half. average_precision is
    the sum over the thresholds of (R_k - R_(k-1)) P_k with recall R and precision P.
    sensitivity_at_specificity_95 is the largest recall of a threshold whose specificity is at least
    0.95. ece and ece_debiased: see :func:`_calibration_errors`.

    Args:
        rows: n images.
        weights: int [draws, groups].

    Returns:
        name to float [draws].
    """
    level = np.flatnonzero(np.diff(rows.probability, append=-1.0))  # the last image of each level
    heights = rows.probability[level]
    found: list[dict[str, np.ndarray]] = []
    for chunk in chunks(weights, len(rows.label)):
        weight = chunk[:, rows.group].astype(np.float64)
        above = np.cumsum(weight, axis=1)[:, level]  # images, and fractures, of a level or above it
        hits = np.cumsum(weight * rows.label, axis=1)[:, level]
        alarms = above - hits
        fractures, normal = hits[:, -1], alarms[:, -1]
        new_hits, new_alarms = _steps(hits), _steps(alarms)
        pairs = np.einsum("dl,dl->d", new_alarms, hits - new_hits / 2)
        precision = ratio(hits, above)
        precision[new_hits == 0] = 0
        allowed = alarms * FALSE_ALARMS <= normal[:, None]  # whole numbers: exact
        defined = 0 * ratio(normal, normal)
        found.append(
            {
                "auc": ratio(pairs, fractures * normal),
                "average_precision": ratio(np.sum(new_hits * precision, axis=1), fractures),
                "sensitivity_at_specificity_95": defined
                + ratio(np.max(hits * allowed, axis=1), fractures),
                **_calibration_errors(heights, above, new_hits),
            }
        )
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def chunks(weights: np.ndarray, images: int) -> Iterator[np.ndarray]:
    """Yields the weights in pieces of few enough draws that images times draws stays small."""
    size = max(1, _CHUNK // max(1, images))
    for start in range(0, len(weights), size):
        yield weights[start : start + size]


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole != 0)


def _calibration_errors(
    heights: np.ndarray, above: np.ndarray, fractures: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns ece and ece_debiased, over 15 bins that hold equally many images.

    A bin holds the images whose mid-rank, counted from the highest probability, lies in its
    fifteenth of all; images of one probability share a bin. With n_b images, their mean label y_b
    and their mean probability p_b in bin b,

        ece = sum of n_b / n |p_b - y_b|  (Naeini et al. 2015),
        ece_debiased = sqrt(max(0, sum of n_b / n ((p_b - y_b)^2 - y_b (1 - y_b) / (n_b - 1)))),

    the second as in Kumar, Liang and Ma (NeurIPS 2019, "Verified Uncertainty Calibration", after
    Broecker 2012 and Ferro and Fricker 2012): what is under the root has the expectation of the
    true squared error if images are independent, where the first is never 0, not even for perfect
    probabilities. It is a root mean square and the first a mean: with many images it is the larger.
    A bin of one image is not corrected.

    Args:
        heights: float [levels], the probabilities, falling.
        above: float [draws, levels], images of the level or above it.
        fractures: float [draws, levels], fractures of the level.
    """
    draws, total = len(above), above[:, -1:]
    count = _steps(above)
    # Twice the mid-rank and twice the total are whole numbers, so that a bin's edge is exact.
    place = ratio(BINS * (2 * above - count), np.broadcast_to(2 * total, above.shape))
    cell = np.minimum(np.nan_to_num(place).astype(np.intp), BINS - 1)
    cell += BINS * np.arange(draws)[:, None]

    def binned(values: np.ndarray) -> np.ndarray:
        return np.bincount(cell.ravel(), values.ravel(), BINS * draws).reshape(draws, BINS)

    n, hits, expected = binned(count), binned(fractures), binned(count * heights)
    gap, rate = ratio(expected - hits, n), ratio(hits, n)
    noise = rate * (1 - rate) / np.maximum(n - 1, 1)
    squared = np.nansum(n * (gap**2 - noise), axis=1)
    return {
        "ece": ratio(np.abs(expected - hits).sum(axis=1), total[:, 0]),
        "ece_debiased": np.sqrt(np.maximum(ratio(squared, total[:, 0]), 0)),
    }


def _steps(cumulated: np.ndarray) -> np.ndarray:
    return np.diff(cumulated, axis=1, prepend=0.0)
