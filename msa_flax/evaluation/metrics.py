"""The numbers of a set of predictions: confusion matrix, metrics, their intervals, their table."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.evaluation.predictions import Predictions, PredictionsError, write_atomically

SCHEMA_VERSION = 1
NOTICE = "Research use only, not a medical device."


def compute(
    labels: np.ndarray, probabilities: np.ndarray, *, threshold: float
) -> dict[str, dict[str, Any]]:
    """Returns the confusion matrix and every metric of paper 1's Table 4 for the class fracture.

    With the counts TP, FN, FP, TN of fractures called at ``probability >= threshold``:
    accuracy (TP+TN)/n, precision TP/(TP+FP), recall TP/(TP+FN), specificity TN/(TN+FP),
    F1 2TP/(2TP+FP+FN), and AUC, the chance that a fracture scores above a normal image (ties half).
    Intervals are Wilson's (1927) at 95 % and take the images as independent, which slices of one
    series are not; F1 and AUC have none yet. What the data leave undefined is None with a reason,
    never 0: precision without a positive call, recall, specificity and AUC without one of the
    classes, and F1 where precision or recall is undefined.

    Args:
        labels: int [n], 1 fracture, 0 normal.
        probabilities: float [n] in 0..1; compared in float32, the precision of predictions.csv.
        threshold: the probability at and above which an image is called fractured.

    Returns:
        ``{"confusion": {"tp", "fn", "fp", "tn"}, "metrics": {name: {"value", "low", "high",
        "method"[, "reason"]}}}``.
    """
    labels = np.asarray(labels).astype(bool)
    called = np.asarray(probabilities, np.float32) >= np.float32(threshold)
    tp, fn = int(np.sum(called & labels)), int(np.sum(~called & labels))
    fp, tn = int(np.sum(called & ~labels)), int(np.sum(~called & ~labels))
    precision = _proportion(tp, tp + fp, "no image was called a fracture")
    recall = _proportion(tp, tp + fn, "there is no fracture among the images")
    metrics = {
        "accuracy": _proportion(tp + tn, len(labels), "there are no images"),
        "precision": precision,
        "recall": recall,
        "specificity": _proportion(tn, tn + fp, "there is no normal image among the images"),
        "f1": _f1(tp, fp + fn, precision, recall),
        "auc": _auc(labels, probabilities),
    }
    return {"confusion": {"tp": tp, "fn": fn, "fp": fp, "tn": tn}, "metrics": metrics}


def metrics_json(
    predictions: Predictions,
    *,
    split: str,
    threshold: float,
    stamps: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    """Returns what ``metrics.json`` holds for the predictions of one split.

    Args:
        predictions: the rows of that split, and of no other.
        split: its name, as in the column ``split``.
        threshold: see :func:`compute`.
        stamps: warnings that belong to the data, such as "series cross the split".
        seconds: wall-clock time of the evaluation; the one value two equal runs do not share.

    Raises:
        PredictionsError: rows of another split are among the predictions.
    """
    others = sorted(set(predictions.split.tolist()) - {split})
    if others:
        raise PredictionsError(
            f"split: expected rows of {split!r} only, got rows of {', '.join(map(repr, others))}"
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "split": split,
        "n": len(predictions),
        "groups": len(set(predictions.group.tolist()) - {""}),
        "positive": "fracture",
        "threshold": float(threshold),
        "stamps": list(stamps),
        **compute(predictions.label, predictions.probability, threshold=threshold),
        "seconds": float(seconds),
    }


def write_json(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Writes values as JSON: keys sorted, so the same values give the same bytes.

    Raises:
        ValueError: a value is NaN or infinite, which JSON cannot say; use None and a reason.
    """
    text = json.dumps(values, sort_keys=True, indent=2, allow_nan=False)
    write_atomically(path, (text + "\n").encode("utf-8"))


def table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a plain text table, one column a split, in the manner of paper 1's Table 4.

    Args:
        metrics: column title to what :func:`metrics_json` returned.
    """
    columns = {title: _cells(values) for title, values in metrics.items()}
    names = list(next(iter(columns.values()), {}))
    rows = [
        ["", *columns],
        *([name, *(cells[name] for cells in columns.values())] for name in names),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns) + 1)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines.insert(1, "-" * (sum(widths) + 2 * len(columns)))
    stamps = dict.fromkeys(stamp for values in metrics.values() for stamp in values["stamps"])
    notes = [
        "[low, high]: 95 % Wilson interval, taking images as independent",
        *_reasons(metrics),
        *(f"stamp: {stamp}" for stamp in stamps),
        NOTICE,
    ]
    return "\n".join([*lines, "", *notes]) + "\n"


def _entry(value: float | None, *, reason: str = "") -> dict[str, Any]:
    entry = {"value": value, "low": None, "high": None, "method": "none"}
    return entry | ({"reason": reason} if reason else {})


def _proportion(count: int, total: int, reason: str) -> dict[str, Any]:
    if not total:
        return _entry(None, reason=reason)
    from scipy import stats

    interval = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    return {
        "value": count / total,
        "low": float(interval.low),
        "high": float(interval.high),
        "method": "wilson",
    }


def _f1(tp: int, errors: int, precision: dict[str, Any], recall: dict[str, Any]) -> dict[str, Any]:
    for name, part in (("precision", precision), ("recall", recall)):
        if part["value"] is None:
            return _entry(None, reason=f"{name} is undefined: {part['reason']}")
    return _entry(2 * tp / (2 * tp + errors))


def _auc(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    if labels.all() or not labels.any():
        return _entry(None, reason="the images are of one class only")
    from sklearn.metrics import roc_auc_score

    return _entry(float(roc_auc_score(labels, probabilities)))


def _cells(values: Mapping[str, Any]) -> dict[str, str]:
    confusion = values["confusion"]
    return {
        "images": str(values["n"]),
        "groups": str(values["groups"] or "unknown"),
        **{name: _cell(entry) for name, entry in values["metrics"].items()},
        "TP FN FP TN": " ".join(str(confusion[key]) for key in ("tp", "fn", "fp", "tn")),
        "threshold": f"{values['threshold']:g}",
        "seconds": f"{values['seconds']:.1f}",
    }


def _cell(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "undefined"
    text = f"{entry['value']:.4f}"
    return text if entry["low"] is None else f"{text} [{entry['low']:.4f}, {entry['high']:.4f}]"


def _reasons(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"{title}: {name} is undefined because {entry['reason']}"
        for title, values in metrics.items()
        for name, entry in values["metrics"].items()
        if entry["value"] is None
    ]
