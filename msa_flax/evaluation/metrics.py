"""Every definition of a metric: for one set of images, and for many weighted draws of them.

The class "fracture" is the positive one. What is undefined, such as a ratio over nothing, is NaN.

A bootstrap over groups needs thousands of metrics of the same images, each with every group counted
as often as it was drawn. No row is copied for that: a draw is a row of whole numbers, one per
group, and :func:`weighted_metrics` takes all draws at once. The images
themselves are the draw in which every group counts once.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

BINS = 15  # of the calibration errors, as in Guo et al. (2017)
CLASSES = ("normal", "fracture")  # names of the labels 0 and 1, where a caller gives none
FALSE_ALARMS = 20  # one normal image in so many may be called a fracture: specificity 0.95
ONE_CLASS = "the images are of one class only"  # why a metric can be undefined
Numbers = float | np.ndarray
_CHUNK = 1 << 18  # images times draws held at a time: a few MiB, which stay in the cache


def called_fractures(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Returns which images are called fractures: bool [n], true at and above the threshold.

    Both are compared in float32, the precision of ``predictions.csv``.
    """
    return np.asarray(probabilities, np.float32) >= np.float32(threshold)


def outcomes(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Returns "tp", "fn", "fp" or "tn" for each image.

    Args:
        labels: int or bool [n], 1 fracture, 0 normal.
        probabilities: float [n] of a fracture.
        threshold: see :func:`called_fractures`.
    """
    called = called_fractures(probabilities, threshold).astype(int)
    return np.array([["tn", "fp"], ["fn", "tp"]])[np.asarray(labels).astype(int), called]


def confusion(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict[str, int]:
    """Returns the confusion matrix, "tp", "fn", "fp", "tn": how many images have each outcome."""
    found = outcomes(labels, probabilities, threshold)
    return {name: int(np.sum(found == name)) for name in ("tp", "fn", "fp", "tn")}


def rates(tp: Numbers, fn: Numbers, fp: Numbers, tn: Numbers) -> dict[str, np.ndarray]:
    """Returns the metrics of a confusion matrix, or of many at once.

    They are accuracy, precision (positive predictive value) TP/(TP+FP), npv (negative predictive
    value) TN/(TN+FN), recall (sensitivity) TP/(TP+FN), specificity TN/(TN+FP), f1
    2TP/(2TP+FP+FN), which is undefined where precision or recall is, and mcc
    (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)) (Matthews 1975).

    Args:
        tp: true positives, one number or an array of them.
        fn: false negatives, of the same shape.
        fp: false positives.
        tn: true negatives.

    Returns:
        name to float64 of that shape.
    """
    tp, fn, fp, tn = np.asarray([tp, fn, fp, tn], np.float64)
    precision, recall = ratio(tp, tp + fp), ratio(tp, tp + fn)
    # Two roots of squares, so that a perfect table has exactly 1.
    margins = np.sqrt((tp + fp) * (tp + fn)) * np.sqrt((tn + fp) * (tn + fn))
    return {
        "accuracy": ratio(tp + tn, tp + fn + fp + tn),
        "precision": precision,
        "npv": ratio(tn, tn + fn),
        "recall": recall,
        "specificity": ratio(tn, tn + fp),
        "f1": ratio(2 * tp, 2 * tp + fp + fn) + 0 * precision + 0 * recall,
        "mcc": ratio(tp * tn - fp * fn, margins),
    }


def net_benefit(tp: Numbers, fp: Numbers, total: Numbers, threshold: Numbers) -> np.ndarray:
    """Returns the net benefit TP/n - FP/n t/(1-t) of calling at the threshold t.

    It counts true positives, less the false positives that a threshold of t says one true positive
    is worth (Vickers and Elkin 2006). At a threshold of 1 it is undefined.
    """
    odds = ratio(threshold, 1 - threshold)
    return ratio(tp - odds * fp, total)


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Returns the area under the ROC curve: the chance that a fracture scores above a normal image.

    Ties count half. NaN where there is one class only.

    Args:
        labels: bool [n].
        scores: float [n].
    """
    both = np.any(labels) and not np.all(labels)
    return float(np.mean(placements(labels, scores)[0])) if both else np.nan


def placements(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shares of the other class that each image is above or below, ties half.

    V10 of the fractures is the share of normal images that score below each, V01 of the normal
    images the share of fractures that score above each (DeLong et al. 1988); the mean of either is
    the AUC. Images stay in their order, so that those of two runs can be subtracted.

    Args:
        labels: bool [n], one or more of each class.
        scores: float [n].
    """
    labels = np.asarray(labels, bool)
    fractures, normal = scores[labels], scores[~labels]

    def share(values: np.ndarray, others: np.ndarray) -> np.ndarray:
        of = np.sort(others)
        return (of.searchsorted(values, "left") + of.searchsorted(values, "right")) / (2 * len(of))

    return share(fractures, normal), 1 - share(normal, fractures)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SortedImages:
    """Labels and scores of n images in an order that does not depend on how they came.

    Build it with :func:`sort_images`.

    Attributes:
        label: bool [n], True for a fracture.
        probability: float64 [n], of a fracture, falling.
        logit: float64 [n]; infinite where nothing finite is known.
        group: int [n], 0 up to the number of groups, exclusive.
        called: bool [n], True where the image is called a fracture.
        threshold: the probability at and above which it is.
    """

    label: np.ndarray
    probability: np.ndarray
    logit: np.ndarray
    group: np.ndarray
    called: np.ndarray
    threshold: float

    @property
    def groups(self) -> int:
        """The number of groups."""
        return int(self.group.max(initial=-1)) + 1


def sort_images(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    threshold: float,
    logits: np.ndarray | None = None,
    group: np.ndarray | None = None,
) -> SortedImages:
    """Returns the images as :class:`SortedImages`: every sum over them is the same in any order.

    Args:
        labels: int or bool [n], 1 fracture, 0 normal.
        probabilities: float [n], taken in float32.
        threshold: see :func:`called_fractures`.
        logits: float [n], taken in float32; None for those of the probabilities.
        group: int [n], 0 up to the number of groups; None for one group.
    """
    label = np.asarray(labels).astype(bool)
    short = np.asarray(probabilities, np.float32)
    probability = short.astype(np.float64)
    if logits is None:
        with np.errstate(divide="ignore"):  # what is infinite is reported where it matters
            logit = np.log(probability) - np.log1p(-probability)
    else:
        logit = np.asarray(logits, np.float32).astype(np.float64)
    group = np.zeros(len(label), np.intp) if group is None else group
    order = np.lexsort((group, logit, label, -probability))
    return SortedImages(
        label=label[order],
        probability=probability[order],
        logit=logit[order],
        group=group[order],
        called=called_fractures(short, threshold)[order],
        threshold=threshold,
    )


def count_metrics(images: SortedImages, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the metrics that are made of sums over images: one product of matrices.

    They are those of :func:`rates`, the net benefit, the Brier score, which is the mean of
    (probability - label)^2, and the log loss in nats, the mean of log(1 + exp(-logit)) over
    fractures and of log(1 + exp(logit)) over normal images.

    Args:
        images: n images.
        weights: int [draws, groups].

    Returns:
        name to float [draws].
    """
    y, called = images.label, images.called
    loss = np.logaddexp(0, np.where(y, -images.logit, images.logit))
    facts = [y & called, y & ~called, ~y & called, ~y & ~called]
    facts += [np.square(images.probability - y), loss]
    sums = np.stack([np.bincount(images.group, fact, minlength=images.groups) for fact in facts])
    # einsum, because BLAS sums in an order that depends on the number of threads.
    tp, fn, fp, tn, square, loss = np.einsum("dg,kg->kd", weights.astype(np.float64), sums)
    total = tp + fn + fp + tn
    return rates(tp, fn, fp, tn) | {
        "net_benefit": net_benefit(tp, fp, total, images.threshold),
        "brier": ratio(square, total),
        "log_loss": ratio(loss, total),
    }


def rank_metrics(images: SortedImages, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the metrics that depend on the order of the probabilities alone, and on their bins.

    auc is the chance that a fracture scores above a normal image, ties half, as in :func:`auc`.
    average_precision is the sum over the thresholds of (R_k - R_(k-1)) P_k with recall R and
    precision P. sensitivity_at_specificity_95 is the largest recall of a threshold whose
    specificity is at least 0.95. ece and ece_debiased: see :func:`_calibration_errors`.

    Args:
        images: n images.
        weights: int [draws, groups].

    Returns:
        name to float [draws].
    """
    level = np.flatnonzero(np.diff(images.probability, append=-1.0))  # the last image of each level
    heights = images.probability[level]
    found: list[dict[str, np.ndarray]] = []
    for chunk in chunks(weights, len(images.label)):
        weight = chunk[:, images.group].astype(np.float64)
        above = np.cumsum(weight, axis=1)[:, level]  # images, and fractures, of a level or above it
        hits = np.cumsum(weight * images.label, axis=1)[:, level]
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


def weighted_metrics(images: SortedImages, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns :func:`count_metrics` and :func:`rank_metrics` together."""
    return count_metrics(images, weights) | rank_metrics(images, weights)


def chunks(weights: np.ndarray, images: int) -> Iterator[np.ndarray]:
    """Yields the weights in pieces of few enough draws that images times draws stays small."""
    size = max(1, _CHUNK // max(1, images))
    for start in range(0, len(weights), size):
        yield weights[start : start + size]


def ratio(part: Numbers, whole: Numbers) -> np.ndarray:
    """Returns part / whole, NaN where the whole is 0."""
    nothing = np.full(np.broadcast(part, whole).shape, np.nan)
    return np.divide(part, whole, out=nothing, where=np.not_equal(whole, 0))


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
    place = ratio(BINS * (2 * above - count), 2 * total)
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
