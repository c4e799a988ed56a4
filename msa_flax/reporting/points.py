"""The numbers of one operating point, computed here and in the page alike."""

import decimal
import math
from typing import Any

import numpy as np

# key -> (name, what it is in counts); the page's script computes the same ones
NUMBERS = {
    "accuracy": ("Accuracy", "(TP + TN) / all"),
    "sensitivity": ("Sensitivity (recall)", "TP / (TP + FN)"),
    "specificity": ("Specificity", "TN / (TN + FP)"),
    "ppv": ("PPV (precision)", "TP / (TP + FP)"),
    "npv": ("NPV", "TN / (TN + FN)"),
    "f1": ("F1", "2 TP / (2 TP + FP + FN)"),
    "mcc": ("MCC", "correlation of call and class, -1 to 1"),
}
OUTCOMES = {
    "fn": "missed fracture (false negative)",
    "fp": "false alarm (false positive)",
    "tp": "found fracture (true positive)",
    "tn": "normal, called normal (true negative)",
}


def outcomes(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Returns "tp", "fn", "fp" or "tn" of each image, as ``metrics.confusion`` counts them.

    Args:
        labels: int [n], 1 fracture, 0 normal.
        probabilities: float [n], compared in float32.
        threshold: the probability at and above which an image is called fractured.
    """
    called = np.asarray(probabilities, np.float32) >= np.float32(threshold)
    return np.array([["tn", "fp"], ["fn", "tp"]])[np.asarray(labels, int), called.astype(int)]


def counts(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict[str, int]:
    """Returns the confusion matrix of :func:`outcomes`."""
    found = outcomes(labels, probabilities, threshold)
    return {key: int((found == key).sum()) for key in ("tp", "fn", "fp", "tn")}


def values(confusion: dict[str, int]) -> dict[str, float | None]:
    """Returns every number of :data:`NUMBERS`; None where a denominator is 0.

    As in ``metrics.rates``, F1 is undefined where precision or recall is.
    """
    tp, fn, fp, tn = (confusion[key] for key in ("tp", "fn", "fp", "tn"))
    called, not_called, positives, negatives = tp + fp, tn + fn, tp + fn, tn + fp
    margins = math.sqrt(called * positives) * math.sqrt(not_called * negatives)
    return {
        "accuracy": _ratio(tp + tn, positives + negatives),
        "sensitivity": _ratio(tp, positives),
        "specificity": _ratio(tn, negatives),
        "ppv": _ratio(tp, called),
        "npv": _ratio(tn, not_called),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn) if called and positives else None,
        "mcc": _ratio(tp * tn - fp * fn, margins),
    }


def shown(value: Any, digits: int = 4) -> str:
    """Returns a number as text, ties rounded away from zero as the page's script does."""
    if value is None:
        return "undefined"
    unit = decimal.Decimal(1).scaleb(-digits)
    rounded = decimal.Decimal(float(value)).quantize(unit, decimal.ROUND_HALF_UP)
    return f"{rounded:f}"


def interval(entry: Any) -> str:
    """Returns "[low, high]" of an entry of metrics.json, or "" where it has none."""
    if entry.get("low") is None or entry.get("high") is None:
        return ""
    return f"[{shown(entry['low'])}, {shown(entry['high'])}]"


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None
