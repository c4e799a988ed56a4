"""Every metric with its interval, and ``metrics.json``: which metric gets which interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.evaluation import intervals, metrics
from msa_flax.evaluation.calibration_slope import slope_and_intercept
from msa_flax.evaluation.intervals import Interval
from msa_flax.evaluation.metrics import SortedImages
from msa_flax.evaluation.predictions import Predictions, PredictionsError
from msa_flax.files import SCHEMA_VERSION

TABLE4 = ("accuracy", "precision", "recall", "specificity", "f1", "auc")  # of paper 1
NAMES = (
    *TABLE4,
    *("npv", "mcc", "average_precision", "sensitivity_at_specificity_95", "net_benefit"),
    *("brier", "log_loss", "ece", "ece_debiased", "calibration_slope", "calibration_intercept"),
)
PROPORTIONS = ("accuracy", "precision", "recall", "specificity", "npv")
_OF_BINS = ("ece", "ece_debiased")
_ENDS = {  # of the range of a metric, where it is not 0..1
    **dict.fromkeys(
        ("net_benefit", "calibration_slope", "calibration_intercept"), (-np.inf, np.inf)
    ),
    "mcc": (-1.0, 1.0),
    "log_loss": (0.0, np.inf),
}


def without_images(classes: Sequence[str] = metrics.CLASSES) -> dict[str, str]:
    """Returns why a metric that is about some of the images only is undefined without any.

    Args:
        classes: names of the labels 0 and 1.
    """
    negative, positive = classes
    return {
        "precision": f"no image was predicted to be {positive!r}",
        "recall": f"there is no {positive!r} among the images",
        "specificity": f"there is no {negative!r} among the images",
        "npv": f"no image was predicted to be {negative!r}",
    }


def metrics_json(
    predictions: Predictions,
    *,
    split: str,
    threshold: float,
    stamps: Sequence[str],
    seconds: float,
    classes: Sequence[str] = metrics.CLASSES,
) -> dict[str, Any]:
    """Returns what ``metrics.json`` holds for the predictions of one split.

    Args:
        predictions: the rows of that split, and of no other.
        split: its name, as in the column ``split``.
        threshold: see :func:`compute_metrics`, which makes the metrics.
        stamps: warnings that belong to the data, such as "series cross the split".
        seconds: wall-clock time of the evaluation; the one value two equal runs do not share.
        classes: names of the labels 0 and 1.

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
        "negative": classes[0],
        "positive": classes[1],
        "threshold": float(threshold),
        "stamps": list(stamps),
        **compute_metrics(
            predictions.label,
            predictions.probability,
            threshold=threshold,
            group=predictions.group,
            logits=predictions.logit,
            classes=classes,
        ),
        "seconds": float(seconds),
    }


def compute_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    threshold: float,
    group: np.ndarray | None = None,
    logits: np.ndarray | None = None,
    classes: Sequence[str] = metrics.CLASSES,
) -> dict[str, Any]:
    """Returns the confusion matrix and the metrics of the class fracture, with 95 % intervals.

    Images are called fractures at ``probability >= threshold``. The metrics of paper 1's Table 4
    come first: accuracy, precision (positive predictive value), recall (sensitivity), specificity,
    F1 and AUC. :mod:`msa_flax.evaluation.metrics` defines them and all others but the calibration
    slope and intercept, which :mod:`msa_flax.evaluation.calibration_slope` defines. What the data
    leave undefined is None with a ``reason``, never 0. For the intervals there is one rule:

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
        classes: names of the labels 0 and 1, for the reasons.

    Returns:
        ``{"confusion": {"tp", "fn", "fp", "tn"}, "metrics": {name: {"value", "low", "high",
        "method", "n", "groups"[, "reason"][, "interval_reason"]}}, "by_group": {group: {"n",
        "confusion", "metrics": {name: value}}}}``; "n" and "groups" count the images that the
        metric is about (for recall: the fractures) and their groups, 0 if those are unknown.
    """
    group = np.full(len(labels), "") if group is None else np.asarray(group)
    names, index = np.unique(group, return_inverse=True)
    known, without = names != "", without_images(classes)
    images = metrics.sort_images(
        labels, probabilities, threshold=threshold, logits=logits, group=index
    )
    once = _weighted_metrics(images, np.ones((1, len(names)), np.intp))
    draws = {}
    if known.all() and len(names) >= intervals.FEWEST:
        draws = _weighted_metrics(images, intervals.draw_groups(len(names)))
    return {
        "confusion": metrics.confusion(images.label, images.probability, threshold),
        "metrics": {
            name: _entry(
                *(name, float(once[name][0]), draws.get(name), images, known), without=without
            )
            for name in NAMES
        },
        "by_group": {
            str(names[i]): _one_group(images, images.group == i) for i in np.flatnonzero(known)
        },
    }


def _weighted_metrics(images: SortedImages, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns every metric of every draw: name to float [draws], NaN or infinite if undefined."""
    found = dict.fromkeys(NAMES, np.full(len(weights), np.nan))
    if len(images.label):
        found |= metrics.weighted_metrics(images, weights)
        if np.isfinite(images.logit).all():
            found |= slope_and_intercept(images, weights)
    return found


def _entry(
    name: str,
    value: float,
    draws: np.ndarray | None,
    images: SortedImages,
    known: np.ndarray,
    *,
    without: Mapping[str, str],
) -> dict[str, Any]:
    """Returns what ``metrics.json`` says of one metric.

    Args:
        name: of the metric.
        value: of the metric, NaN or infinite if undefined.
        draws: float [draws]; None where the groups are too few or not all known.
        images: n images.
        known: bool [groups], whether a group is one.
        without: see :func:`without_images`.
    """
    about = _about(name, images)
    groups = np.unique(images.group[about])
    entry: dict[str, Any] = {"value": None, "low": None, "high": None, "method": "none"}
    entry |= {"n": len(about), "groups": int(np.sum(known[groups]))}
    if not np.isfinite(value):
        return entry | {"reason": _why_undefined(name, images, without)}
    if not known.any():
        interval = _of_independent_images(name, images, about)
    elif not known.all():
        unknown = int(np.sum(~known[images.group]))
        reason = f"the group of {unknown} of {len(images.label)} images is unknown"
        interval = Interval(reason=reason)
    else:
        interval = _of_groups(name, value, draws, len(groups))
    entry |= {"value": value, "method": interval.method}
    if interval.reason:
        return entry | {"interval_reason": interval.reason}
    return entry | {"low": interval.low, "high": interval.high}


def _of_independent_images(name: str, images: SortedImages, about: np.ndarray) -> Interval:
    if name in PROPORTIONS:
        right = images.label[about] == images.called[about]
        return intervals.wilson(int(np.sum(right)), len(right))
    if name == "auc":
        return intervals.delong_interval(images.label, images.probability)
    return Interval(reason=intervals.ONLY_WITH_GROUPS)


def _of_groups(name: str, value: float, draws: np.ndarray | None, groups: int) -> Interval:
    if draws is None or groups < intervals.FEWEST:
        return Interval(reason=intervals.too_few(groups))
    if name in PROPORTIONS and value in (0, 1):
        return intervals.all_or_none(value, groups)
    ends, biased = _ENDS.get(name, (0.0, 1.0)), name in _OF_BINS
    return intervals.clustered(value, draws, groups, ends=ends, biased=biased)


def _about(name: str, images: SortedImages) -> np.ndarray:
    """Returns the numbers of the images that a metric is about: those in its denominator."""
    chosen = {
        "precision": images.called,
        "npv": ~images.called,
        "recall": images.label,
        "specificity": ~images.label,
    }
    return np.flatnonzero(chosen.get(name, np.ones_like(images.label)))


def _why_undefined(name: str, images: SortedImages, without: Mapping[str, str]) -> str:
    """Returns the reason why a metric of the images is not a finite number."""
    empty = [part for part in without if not len(_about(part, images))]
    first = f"{empty[0]} is undefined: {without[empty[0]]}" if empty else ""
    no_hit = f"at a threshold of {images.threshold:g} no hit outweighs a false alarm"
    reasons = (
        ("there are no images", not len(images.label)),
        (without.get(name, ""), name in empty),
        (without["recall"], name == "average_precision"),
        (no_hit, name == "net_benefit"),
        ("the right class has probability 0 somewhere: the loss is infinite", name == "log_loss"),
        (first, name in ("f1", "mcc")),
        (metrics.ONE_CLASS, bool({"recall", "specificity"} & set(empty))),
        ("a probability of exactly 0 or 1 has no logit", not np.isfinite(images.logit).all()),
        ("all logits are the same", len(np.unique(images.logit)) == 1),
        ("a threshold on the logit separates the classes, so no finite slope fits best", True),
    )
    return next(reason for reason, holds in reasons if holds)


def _one_group(images: SortedImages, chosen: np.ndarray) -> dict[str, Any]:
    label, probability = images.label[chosen], images.probability[chosen]
    counts = metrics.confusion(label, probability, images.threshold)
    found = metrics.rates(**counts) | {"auc": np.float64(metrics.auc(label, probability))}
    values = {name: float(found[name]) for name in ("accuracy", "recall", "specificity", "auc")}
    return {
        "n": len(label),
        "confusion": counts,
        "metrics": {name: None if np.isnan(v) else v for name, v in values.items()},
    }
