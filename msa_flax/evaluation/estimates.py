"""Every metric with its interval: which metrics there are, and which interval each one gets."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from msa_flax.evaluation import intervals, recalibration, scores
from msa_flax.evaluation.intervals import Interval

TABLE4 = ("accuracy", "precision", "recall", "specificity", "f1", "auc")  # of paper 1
NAMES = (
    *TABLE4,
    *("npv", "mcc", "average_precision", "sensitivity_at_specificity_95", "net_benefit"),
    *("brier", "log_loss", "ece", "ece_debiased", "calibration_slope", "calibration_intercept"),
)
_PROPORTIONS = ("accuracy", "precision", "recall", "specificity", "npv")
_OF_BINS = ("ece", "ece_debiased")
_UNBOUNDED = ("net_benefit", "calibration_slope", "calibration_intercept")
_ENDS = (
    dict.fromkeys(NAMES, (0.0, 1.0))
    | dict.fromkeys(_UNBOUNDED, (-np.inf, np.inf))
    | {"mcc": (-1.0, 1.0), "log_loss": (0.0, np.inf)}
)
_EMPTY = {
    "precision": "no image was called a fracture",
    "recall": "there is no fracture among the images",
    "specificity": "there is no normal image among the images",
    "npv": "no image was called normal",
}


def compute(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    threshold: float,
    group: np.ndarray | None = None,
    logits: np.ndarray | None = None,
) -> dict[str, Any]:
    """Returns the confusion matrix and the metrics of the class fracture, with 95 % intervals.

    Images are called fractures at ``probability >= threshold``. The metrics of paper 1's Table 4
    come first: accuracy, precision (positive predictive value), recall (sensitivity), specificity,
    F1 and AUC. :mod:`msa_flax.evaluation.scores` defines them and all others but the calibration
    slope and intercept, which :mod:`msa_flax.evaluation.recalibration` defines. What the data leave
    undefined is None with a ``reason``, never 0. For the intervals there is one rule:

    - No image's group is known: images are taken as independent, which slices of one patient are
      not. Wilson's interval for proportions, DeLong's for the AUC, none for the others.
    - Every image's group is known, and the images that the metric is about are of 10 groups or
      more: draws of whole groups (:func:`msa_flax.evaluation.intervals.clustered`) for every
      metric; for a proportion of 0 or 1 :func:`msa_flax.evaluation.intervals.all_or_none`.
    - Fewer groups, or images whose group is unknown among others: no interval.

    Where there is none, ``interval_reason`` says why. The order of the images changes nothing.

    Args:
        labels: int [n], 1 fracture, 0 normal.
        probabilities: float [n] in 0..1; taken in float32, the precision of predictions.csv.
        threshold: the probability at and above which an image is called fractured.
        group: str [n], series or patient, "" where unknown; None if unknown for all.
        logits: float [n], taken in float32; None for those of the probabilities, of which a
            probability of exactly 0 or 1 has none.

    Returns:
        ``{"confusion": {"tp", "fn", "fp", "tn"}, "metrics": {name: {"value", "low", "high",
        "method", "n", "groups"[, "reason"][, "interval_reason"]}}, "by_group": {group: {"n",
        "confusion", "metrics": {name: value}}}}``; "n" and "groups" count the images that the
        metric is about (for recall: the fractures) and their groups, 0 if those are unknown.
    """
    group = np.full(len(labels), "") if group is None else np.asarray(group)
    names, index = np.unique(group, return_inverse=True)
    known = names != ""
    rows = _rows(labels, probabilities, logits, index, threshold)
    values = _draw(rows, np.ones((1, len(names)), np.intp), threshold)
    draws = {}
    if known.all() and len(names) >= intervals.FEWEST:
        draws = _draw(rows, intervals.draw_groups(len(names)), threshold)
    metrics = {}
    for name in NAMES:
        value, about = float(values[name][0]), _about(name, rows)
        groups = int(np.sum(known[np.unique(rows.group[about])]))
        entry: dict[str, Any] = {"value": None, "low": None, "high": None, "method": "none"}
        if np.isfinite(value):
            found = _interval(name, value, draws, rows=rows, about=about, known=known)
            entry |= {"value": value, "method": found.method}
            if found.reason:
                entry["interval_reason"] = found.reason
            else:
                entry |= {"low": found.low, "high": found.high}
        else:
            entry["reason"] = _why_undefined(name, rows, threshold)
        metrics[name] = entry | {"n": len(about), "groups": groups}
    return {
        "confusion": _confusion(rows.label, rows.called),
        "metrics": metrics,
        "by_group": {
            str(names[i]): _one_group(rows, rows.group == i) for i in np.flatnonzero(known)
        },
    }


def _interval(
    name: str,
    value: float,
    draws: Mapping[str, np.ndarray],
    *,
    rows: scores.Rows,
    about: np.ndarray,
    known: np.ndarray,
) -> Interval:
    """Returns a metric's interval by the one rule that :func:`compute` states.

    Args:
        name: of the metric.
        value: of the metric, finite.
        draws: name to float [draws]; empty where the groups are too few or not all known.
        rows: n images.
        about: int [k], the images that the metric is about.
        known: bool [groups], whether a group is one.
    """
    if not known.any():
        return _of_images(name, rows, about)
    if not known.all():
        unknown = int(np.sum(~known[rows.group]))
        return Interval(reason=f"the group of {unknown} of {len(rows.label)} images is unknown")
    groups = len(np.unique(rows.group[about]))
    if groups < intervals.FEWEST:
        return Interval(reason=intervals.too_few(groups))
    if name in _PROPORTIONS and value in (0, 1):
        return intervals.all_or_none(value, groups)
    return intervals.clustered(
        value,
        draws[name],
        groups,
        ends=_ENDS[name],
        stretch=name not in _OF_BINS,  # which may well be 0
        biased=name in _OF_BINS,
    )


def _of_images(name: str, rows: scores.Rows, about: np.ndarray) -> Interval:
    if name in _PROPORTIONS:
        right = rows.label[about] == rows.called[about]
        return intervals.wilson(int(np.sum(right)), len(right))
    if name == "auc":
        return intervals.delong(rows.label, rows.probability)
    return Interval(reason="without groups there is one for proportions and the AUC only")


def _rows(
    labels: np.ndarray,
    probabilities: np.ndarray,
    logits: np.ndarray | None,
    group: np.ndarray,
    threshold: float,
) -> scores.Rows:
    short = np.asarray(probabilities, np.float32)
    probability = short.astype(np.float64)
    if logits is None:
        with np.errstate(divide="ignore"):  # what is infinite is reported where it matters
            logit = np.log(probability) - np.log1p(-probability)
    else:
        logit = np.asarray(logits, np.float32).astype(np.float64)
    return scores.ordered(
        label=np.asarray(labels).astype(bool),
        probability=probability,
        logit=logit,
        group=group,
        called=short >= np.float32(threshold),
    )


def _draw(rows: scores.Rows, weights: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """Returns every metric of every draw: name to float [draws], NaN or infinite if undefined."""
    undefined = dict.fromkeys(NAMES, np.full(len(weights), np.nan))
    if not len(rows.label):
        return undefined
    found = scores.by_counts(rows, weights, threshold) | scores.by_ranks(rows, weights)
    if np.isfinite(rows.logit).all():
        found |= recalibration.recalibrate(rows, weights)
    return undefined | found


def _about(name: str, rows: scores.Rows) -> np.ndarray:
    """Returns the numbers of the images that a metric is about: those in its denominator."""
    chosen = {
        "precision": rows.called,
        "npv": ~rows.called,
        "recall": rows.label,
        "specificity": ~rows.label,
    }
    return np.flatnonzero(chosen.get(name, np.ones_like(rows.label)))


def _why_undefined(name: str, rows: scores.Rows, threshold: float) -> str:
    """Returns the reason why a metric of the images is not a finite number."""
    empty = [part for part in _EMPTY if not len(_about(part, rows))]
    first = f"{empty[0]} is undefined: {_EMPTY[empty[0]]}" if empty else ""
    finite = np.isfinite(rows.logit).all()
    reasons = (
        ("there are no images", not len(rows.label)),
        (_EMPTY.get(name, ""), name in empty),
        (_EMPTY["recall"], name == "average_precision"),
        (f"at a threshold of {threshold:g} no hit outweighs a false alarm", name == "net_benefit"),
        ("the right class has probability 0 somewhere: the loss is infinite", name == "log_loss"),
        (first, name in ("f1", "mcc")),
        ("the images are of one class only", bool({"recall", "specificity"} & set(empty))),
        ("a probability of exactly 0 or 1 has no logit", not finite),
        ("all logits are the same", len(np.unique(rows.logit)) == 1),
        ("a threshold on the logit separates the classes, so no finite slope fits best", True),
    )
    return next(reason for reason, holds in reasons if holds)


def _confusion(label: np.ndarray, called: np.ndarray) -> dict[str, int]:
    return {
        "tp": int(np.sum(called & label)),
        "fn": int(np.sum(~called & label)),
        "fp": int(np.sum(called & ~label)),
        "tn": int(np.sum(~called & ~label)),
    }


def _one_group(rows: scores.Rows, chosen: np.ndarray) -> dict[str, Any]:
    label, called = rows.label[chosen], rows.called[chosen]
    right = label == called
    values = {
        "accuracy": np.mean(right),
        "recall": np.mean(right[label]) if label.any() else np.nan,
        "specificity": np.mean(right[~label]) if not label.all() else np.nan,
        "auc": intervals.area(label, rows.probability[chosen]),
    }
    return {
        "n": len(label),
        "confusion": _confusion(label, called),
        "metrics": {name: None if np.isnan(v) else float(v) for name, v in values.items()},
    }
