"""Class-conditional split conformal prediction: sets of labels that hold the right one.

For each class the images of that class in a calibration split say how unusual a new image would be
if it were of that class. The labels that are not too unusual are its set. A set of one label is a
decision; with both labels or neither the model abstains.

If the calibration images of a class and a new image of that class are exchangeable, the set of the
new one holds its class with probability 1 - alpha or more, over draws of both (Vovk, Gammerman and
Shafer 2005, section 4.5; Sadinle, Lei and Wasserman 2019).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from msa_flax.evaluation.metrics import CLASSES
from msa_flax.evaluation.summary import compute_metrics

ALPHA = 0.1  # share of the images of a class whose set may miss it, where none is given
NEITHER, BOTH = "neither", "both"  # sets of no class and of two; other sets are called as a class


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Where a class is left out of a set.

    Attributes:
        n: calibration images of the class.
        logit: a set holds the positive class at and above it, the other one at and below it;
            infinite where the calibration images are too few, so that every set holds the class.
        needed: calibration images of the class that a finite limit takes.
    """

    n: int
    logit: float
    needed: int


def p_values(logits: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Returns how usual each new image would be in each class, a share of its calibration images.

    With n calibration images of a class, (1 + those that look as little like the class as the new
    image, or less) / (n + 1). A fracture looks the less like one the lower its logit, a normal
    image the higher.

    Args:
        logits: float [n] of the calibration images, taken in float32.
        labels: int [n], 1 fracture, 0 normal.
        new: float [m], logits of the new images, taken in float32.

    Returns:
        float64 [m, 2]: normal, fracture; above 0, at most 1.
    """
    normal, fractures = _by_class(logits, labels)
    new = np.asarray(new, np.float32)
    higher = len(normal) - np.searchsorted(normal, new, "left")
    lower = np.searchsorted(fractures, new, "right")
    return np.stack([(1 + higher) / (len(normal) + 1), (1 + lower) / (len(fractures) + 1)], axis=1)


def sets(p: np.ndarray, alpha: float, classes: Sequence[str] = CLASSES) -> np.ndarray:
    """Returns the set of each image, the classes with p above alpha, as a word.

    The word is the name of the one class, "both" or "neither".

    Args:
        p: float [m, 2] from :func:`p_values`.
        alpha: share of images of a class whose set may miss it, above 0 and below 1.
        classes: names of the labels 0 and 1.

    Raises:
        ValueError: alpha is not between 0 and 1.
    """
    _check(alpha)
    held = p > alpha
    return np.array([NEITHER, *classes, BOTH])[held[:, 0] + 2 * held[:, 1]]


def limits(
    logits: np.ndarray, labels: np.ndarray, alpha: float, classes: Sequence[str] = CLASSES
) -> dict[str, Limit]:
    """Returns, by class, the logit where :func:`sets` of :func:`p_values` begin to leave it out.

    It is the k-th most usual of the n calibration images of the class, k = ceil((n+1)(1-alpha));
    there is none, and every set holds the class, where n < ceil(1/alpha) - 1.

    Args:
        logits: float [n], taken in float32.
        labels: int [n], 1 fracture, 0 normal.
        alpha: above 0 and below 1.
        classes: names of the labels 0 and 1.

    Raises:
        ValueError: alpha is not between 0 and 1.
    """
    _check(alpha)
    found = {}
    normal, fractures = _by_class(logits, labels)
    for name, usual_first, never in zip(
        classes, (normal, -fractures), (np.inf, -np.inf), strict=True
    ):
        n = len(usual_first)
        # As in sets(), so that the two agree on the last bit: left out are the j last.
        allowed = int(np.sum(np.arange(1, n + 1) / (n + 1) <= alpha))
        value = float(np.sort(usual_first)[n - allowed]) if allowed else np.inf
        logit = never if not allowed else value if never > 0 else -value
        found[name] = Limit(n=n, logit=logit, needed=math.ceil(1 / alpha) - 1)
    return found


def summarise_sets(
    labels: np.ndarray,
    found: np.ndarray,
    group: np.ndarray,
    classes: Sequence[str] = CLASSES,
) -> dict[str, Any]:
    """Returns how often sets hold the right label, how large they are, and how good decisions are.

    Intervals follow the one rule of :func:`msa_flax.evaluation.summary.compute_metrics`.

    Args:
        labels: int [m], 1 fracture, 0 normal.
        found: str [m], from :func:`sets`.
        group: str [m], "" where unknown.
        classes: names of the labels 0 and 1.

    Returns:
        ``{"coverage": {"overall", and by name of class}, "sizes": {"0", "1", "2"}, "abstained",
        "decided": {"n", "accuracy", "sensitivity", "specificity"}}``; all but "n" are entries as in
        ``metrics.json``.
    """
    y = np.asarray(labels).astype(bool)
    covered = (found == BOTH) | (found == np.array(classes)[y.astype(int)])
    size = np.select([found == NEITHER, found == BOTH], [0, 2], 1)
    one = size == 1
    # Of images that are called right where they are covered, coverage is the accuracy.
    overall, positive, negative = _rates(y, y == covered, group, classes)
    accuracy, sensitivity, specificity = _rates(
        y[one], found[one] == classes[1], group[one], classes
    )
    return {
        "coverage": {"overall": overall, classes[1]: positive, classes[0]: negative},
        "sizes": {str(k): _share(size == k, group) for k in (0, 1, 2)},
        "abstained": _share(~one, group),
        "decided": {
            "n": int(one.sum()),
            "accuracy": accuracy,
            "sensitivity": sensitivity,
            "specificity": specificity,
        },
    }


def _rates(
    label: np.ndarray, called: np.ndarray, group: np.ndarray, classes: Sequence[str] = CLASSES
) -> tuple[Any, Any, Any]:
    """Returns accuracy, recall and specificity of images called fractures, with intervals."""
    found = compute_metrics(
        label, called.astype(np.float32), threshold=0.5, group=group, classes=classes
    )["metrics"]
    return found["accuracy"], found["recall"], found["specificity"]


def _share(chosen: np.ndarray, group: np.ndarray) -> dict[str, Any]:
    """Returns the share of the chosen images: their recall, if all images were fractures."""
    share: dict[str, Any] = _rates(np.ones(len(chosen), bool), chosen, group)[0]
    return share


def _by_class(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the logits of normal images and of fractures, float32, rising."""
    logits, fracture = np.asarray(logits, np.float32), np.asarray(labels).astype(bool)
    return np.sort(logits[~fracture]), np.sort(logits[fracture])


def _check(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: expected a number between 0 and 1, got {alpha:g}")
