"""What ``metrics.json`` and the terminal say of calibrated probabilities and conformal sets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.evaluation import conformal
from msa_flax.evaluation.calibrated import Calibrated
from msa_flax.evaluation.postprocess import Calibration, count_groups
from msa_flax.evaluation.predictions import Predictions, sigmoid
from msa_flax.evaluation.summary import compute_metrics

SCORES = ("brier", "log_loss", "ece", "ece_debiased")
OPTIMISTIC = (
    "these are the images that calibrators are fitted on; calibrated values on them would be "
    "optimistic and are not given"
)
_TITLES = {"temperature": "temperature", "isotonic": "isotonic", "venn_abers": "Venn-Abers"}


def sections(
    calibration: Calibration,
    predictions: Predictions,
    found: Calibrated,
    *,
    values: Mapping[str, Any],
    alpha: float,
    doubts: Sequence[str],
) -> dict[str, Any]:
    """Returns the sections "calibration" and "conformal" of ``metrics.json``.

    Args:
        calibration: what the values were calibrated with.
        predictions: of the network, one split.
        found: from :func:`apply`, in the same order.
        values: what ``metrics.json`` holds of the same predictions as they are.
        alpha: as in :func:`apply`.
        doubts: why these images and the validation images may not be exchangeable, as far as
            the caller knows; what their groups say is added.
    """
    of_validation = {
        "split": "validation",
        "checkpoint": calibration.checkpoint,
        "step": calibration.step,
        "images": calibration.images(),
        "groups": calibration.groups,
    }
    known = calibration.groups["all"] and np.all(predictions.group != "")
    unknown = [] if known else ["groups unknown"]
    reasons = list(dict.fromkeys([*doubts, *unknown, *_clusters(calibration, predictions)]))
    return {
        "calibration": {
            "fitted_on": of_validation,
            "uncalibrated": {name: dict(values["metrics"][name]) for name in SCORES},
            **_calibrators(calibration, predictions, found, values["threshold"]),
        },
        "conformal": {
            "alpha": float(alpha),
            "fitted_on": of_validation,
            "thresholds": _thresholds(calibration, alpha),
            **conformal.summarise(predictions.label, found.sets, predictions.group),
            "guarantee": not reasons,
            "reason": "; ".join(reasons) or _exchangeable(alpha),
        },
    }


def unavailable(reason: str) -> dict[str, Any]:
    """Returns the two sections where calibrated values are not given, with the reason."""
    return {"calibration": {"reason": reason}, "conformal": {"reason": reason}}


def describe(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns lines on calibration and abstention for the terminal, "" where there is nothing.

    Args:
        results: split to what ``metrics.json`` holds.
    """
    lines = []
    for split, values in results.items():
        conformal_part = values.get("conformal", {})
        said = []
        if "coverage" in conformal_part:
            said = [_calibration_line(values["calibration"]), *_conformal_lines(conformal_part)]
        elif conformal_part:
            said = [f"not calibrated: {conformal_part['reason']}"]
        lines += [f"{split}: {line}\n" for line in said]
    return "".join(lines)


def _calibrators(
    calibration: Calibration, predictions: Predictions, found: Calibrated, threshold: float
) -> dict[str, Any]:
    """Returns what each calibrator is and what its probabilities are worth, or why it is not."""
    if not (calibration.temperature and calibration.isotonic):
        return {name: {"reason": calibration.reason} for name in _TITLES}
    warm, heights = calibration.temperature, calibration.isotonic.probability
    width = found.probability["venn_abers_high"] - found.probability["venn_abers_low"]
    width = np.sort(width.astype(np.float64))  # so that its mean is the same in any order
    parameters: dict[str, dict[str, Any]] = {
        "temperature": {"temperature": warm.value}
        | ({"reason": warm.reason} if warm.reason else {}),
        "isotonic": {"levels": len(set(heights)), "lowest": heights[0], "highest": heights[-1]},
        "venn_abers": {"mean_width": float(width.mean()), "largest_width": float(width.max())},
    }
    values = {}
    for name in _TITLES:
        computed = compute_metrics(
            predictions.label,
            found.probability[name],
            threshold=threshold,
            group=predictions.group,
            logits=found.logit if name == "temperature" else None,
        )["metrics"]
        scores = {score: computed[score] for score in SCORES}
        values[name] = {"parameters": parameters[name], "metrics": scores}
    return values


def _thresholds(calibration: Calibration, alpha: float) -> dict[str, Any]:
    """Returns, by class, where a set begins to hold it, and on how many images that rests."""
    found = conformal.limits(calibration.logits, calibration.labels, alpha)
    values: dict[str, Any] = {}
    for name, limit in found.items():
        entry: dict[str, Any] = {"n": limit.n, "groups": calibration.groups[name]}
        if np.isfinite(limit.logit):
            entry |= {
                "logit": limit.logit,
                "probability": float(sigmoid(np.array(limit.logit))),
            }
        else:
            reason = (
                f"every set holds {name!r}: alpha {alpha:g} takes {limit.needed} validation images "
                f"of that class, there are {limit.n}"
            )
            entry |= {"logit": None, "probability": None, "reason": reason}
        values[name] = entry
    return values


def _clusters(calibration: Calibration, predictions: Predictions) -> list[str]:
    """Returns why images are not exchangeable even if their groups are: several of one group."""
    for title, images, groups in (
        ("validation", calibration.images(), calibration.groups),
        ("evaluated", _images(predictions), count_groups(predictions)),
    ):
        if groups["all"] and any(groups[name] < images[name] for name in conformal.CLASSES):
            return [
                f"the {images['all']} {title} images are of {groups['all']} groups, and images of "
                "one group are alike, so that coverage is 1 - alpha in the long run of many "
                "groups, not for a finite number of them"
            ]
    return []


def _images(predictions: Predictions) -> dict[str, int]:
    fractures = int(np.sum(predictions.label == 1))
    total = len(predictions)
    return {"all": total, "fracture": fractures, "normal": total - fractures}


def _exchangeable(alpha: float) -> str:
    return (
        f"every image is of a group of its own and no group is in two splits: if these images come "
        f"from where the validation images came from, the set of an image holds its class with "
        f"probability {1 - alpha:g} or more for each class, on average over draws of both"
    )


def _calibration_line(part: Mapping[str, Any]) -> str:
    number = part["fitted_on"]["images"]["all"]
    if reason := part["temperature"].get("reason"):
        return f"nothing was calibrated on {number} validation images: {reason}"
    eces = ", ".join(
        f"{title}{_warmth(part[name])} {_value(part[name]['metrics']['ece'])}"
        for name, title in _TITLES.items()
    )
    raw = _value(part["uncalibrated"]["ece"])
    return f"ECE {raw} as it is; calibrated on {number} validation images: {eces}"


def _warmth(part: Mapping[str, Any]) -> str:
    value = part["parameters"].get("temperature")
    return "" if value is None else f" ({value:.3g})"


def _conformal_lines(part: Mapping[str, Any]) -> list[str]:
    coverage, decided = part["coverage"], part["decided"]
    lines = [
        f"sets at alpha {part['alpha']:g} hold the right class of {_percent(coverage['fracture'])} "
        f"of fractures and {_percent(coverage['normal'])} of normal images; abstaining on "
        f"{_percent(part['abstained'])}, accuracy {_value(decided['accuracy'])} on the others"
    ]
    lines += [entry["reason"] for entry in part["thresholds"].values() if "reason" in entry]
    if not part["guarantee"]:
        lines.append(f"that coverage is not guaranteed: {part['reason']}")
    return lines


def _value(entry: Mapping[str, Any]) -> str:
    return "undefined" if entry["value"] is None else f"{entry['value']:.4f}"


def _percent(entry: Mapping[str, Any]) -> str:
    return "undefined" if entry["value"] is None else f"{100 * entry['value']:.1f} %"
