"""Points of the ROC curve and of the precision-recall curve, for one set of images or many draws.

Every figure and every page takes its points from here.
"""

import numpy as np

from msa_flax.evaluation.metrics import ratio


def roc_curve(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns false positive rate, recall, and the thresholds that they belong to.

    Point 0 is the origin, where no image is called a fracture; point i belongs to the i-th largest
    probability as the threshold. Rates are NaN where there is one class only.

    Args:
        labels: int or bool [n], 1 fracture, 0 normal.
        probabilities: float [n].
        weights: float [draws, n], how often each image counts in each draw; None for once.

    Returns:
        Two arrays float64 [draws, m + 1], or [m + 1] without weights, and the thresholds [m].
    """
    fp, tp, thresholds = _cumulated(labels, probabilities, weights)
    return ratio(fp, fp[..., -1:]), ratio(tp, tp[..., -1:]), thresholds


def precision_recall_curve(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns recall and precision at every threshold, and the thresholds, the largest first.

    Args:
        labels: as for :func:`roc_curve`.
        probabilities: as for :func:`roc_curve`.
        weights: as for :func:`roc_curve`.

    Returns:
        Two arrays float64 [draws, m], or [m] without weights, and the thresholds [m].
    """
    fp, tp, thresholds = _cumulated(labels, probabilities, weights)
    return ratio(tp, tp[..., -1:])[..., 1:], ratio(tp, fp + tp)[..., 1:], thresholds


def _cumulated(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns false and true positives from threshold to threshold, none first; the thresholds."""
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order]
    last = np.append(falling[1:] != falling[:-1], True)  # equal probabilities are called together
    fracture = np.asarray(labels).astype(bool)[order]
    weight = np.ones(len(order)) if weights is None else weights[:, order]
    sums = [np.cumsum(weight * chosen, axis=-1)[..., last] for chosen in (~fracture, fracture)]
    fp, tp = (np.concatenate([np.zeros((*x.shape[:-1], 1)), x], axis=-1) for x in sums)
    return fp, tp, falling[last]
