"""What ``metrics.json`` says of calibration, conformal sets and the operating point."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.evaluation import conformal
from msa_flax.evaluation.calibration import Calibrated, Calibration, count_groups
from msa_flax.evaluation.predictions import Predictions, sigmoid
from msa_flax.evaluation.summary import compute_metrics

SCORES = ("brier", "log_loss", "ece", "ece_debiased")
CALIBRATORS = ("temperature", "isotonic", "venn_abers")
CHOSEN = "the checkpoint was chosen by its loss on the validation images"
_OF_SPLIT = {
    "train": ["the network was trained on these images"],
    "validation": ["it was chosen on these images"],
}
OPTIMISTIC = (
    "these are the images that calibrators are fitted on; calibrated values on them would be "
    "optimistic and are not given"
)


def sections(
    calibration: Calibration,
    predictions: Predictions,
    calibrated: Calibrated,
    *,
    values: Mapping[str, Any],
    alpha: float,
    doubts: Sequence[str],
) -> dict[str, Any]:
    """Returns the sections "calibration" and "conformal" of ``metrics.json``.

    Args:
        calibration: what the values were calibrated with.
        predictions: of the network, one split.
        calibrated: what :func:`msa_flax.evaluation.calibration.apply` makes of them.
        values: what ``metrics.json`` holds of the same predictions as they are.
        alpha: of the conformal sets.
        doubts: why these images and the validation images may not be exchangeable, as far as
            the caller knows; what their groups say is added.
    """
    fitted_on = _origin(calibration) | {"images": calibration.images, "groups": calibration.groups}
    known = calibration.groups["all"] and np.all(predictions.group != "")
    unknown = [] if known else ["groups unknown"]
    reasons = list(dict.fromkeys([*doubts, *unknown, *_clusters(calibration, predictions)]))
    return {
        "calibration": {
            "fitted_on": fitted_on,
            "uncalibrated": {name: dict(values["metrics"][name]) for name in SCORES},
            **_calibrators(calibration, predictions, calibrated, values["threshold"]),
        },
        "conformal": {
            "alpha": float(alpha),
            "fitted_on": fitted_on,
            "thresholds": _thresholds(calibration, alpha),
            **conformal.summarise_sets(
                *(predictions.label, calibrated.sets, predictions.group), calibration.classes
            ),
            "guarantee": not reasons,
            "reason": "; ".join(reasons) or _exchangeable(alpha),
        },
    }


def doubts(split: str, stamps: Sequence[str], steered: str = CHOSEN) -> list[str]:
    """Returns why what was chosen on the validation images may not hold for those of a split.

    Args:
        split: its name.
        stamps: of the data.
        steered: how the network depends on the validation images, "" if it does not.
    """
    return [*stamps, *_OF_SPLIT.get(split, []), *[steered] * bool(steered)]


def unavailable(reason: str) -> dict[str, Any]:
    """Returns the two sections where calibrated values are not given, with the reason."""
    return {"calibration": {"reason": reason}, "conformal": {"reason": reason}}


def operating_point(calibration: Calibration, doubts: Sequence[str]) -> dict[str, Any]:
    """Returns the section "operating_point" of ``metrics.json``, nothing where there is no point.

    Args:
        calibration: where the operating point is stored.
        doubts: why its guarantee may not hold for these images.
    """
    point = calibration.operating_point
    if point is None:
        return {}
    values = dataclasses.asdict(point) | {"chosen_on": _origin(calibration)}
    return {"operating_point": values | {"guarantee": not doubts, "reason": "; ".join(doubts)}}


def _origin(calibration: Calibration) -> dict[str, Any]:
    return {"split": "validation", "checkpoint": calibration.checkpoint, "step": calibration.step}


def _calibrators(
    calibration: Calibration, predictions: Predictions, calibrated: Calibrated, threshold: float
) -> dict[str, Any]:
    """Returns what each calibrator is and what its probabilities are worth, or why it is not."""
    if not (calibration.temperature and calibration.isotonic):
        return {name: {"reason": calibration.reason} for name in CALIBRATORS}
    warm, heights = calibration.temperature, calibration.isotonic.probability
    width = calibrated.probability["venn_abers_high"] - calibrated.probability["venn_abers_low"]
    width = np.sort(width.astype(np.float64))  # so that its mean is the same in any order
    parameters: dict[str, dict[str, Any]] = {
        "temperature": {"temperature": warm.value}
        | ({"reason": warm.reason} if warm.reason else {}),
        "isotonic": {"levels": len(set(heights)), "lowest": heights[0], "highest": heights[-1]},
        "venn_abers": {"mean_width": float(width.mean()), "largest_width": float(width.max())},
    }
    values = {}
    for name in CALIBRATORS:
        computed = compute_metrics(
            predictions.label,
            calibrated.probability[name],
            threshold=threshold,
            group=predictions.group,
            classes=calibration.classes,
            logits=calibrated.logit if name == "temperature" else None,
        )["metrics"]
        scores = {score: computed[score] for score in SCORES}
        values[name] = {"parameters": parameters[name], "metrics": scores}
    return values


def _thresholds(calibration: Calibration, alpha: float) -> dict[str, Any]:
    """Returns, by class, where a set begins to hold it, and on how many images that rests."""
    values: dict[str, Any] = {}
    known = calibration.logits, calibration.labels
    limits = conformal.limits(*known, alpha, calibration.classes)
    for name, limit in limits.items():
        entry: dict[str, Any] = {"n": limit.n, "groups": calibration.groups[name]}
        if np.isfinite(limit.logit):
            probability = float(sigmoid(np.array(limit.logit)))
            entry |= {"logit": limit.logit, "probability": probability}
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
    (negative, positive), total = calibration.classes, len(predictions)
    fractures = int(np.sum(predictions.label == 1))
    evaluated = {"all": total, positive: fractures, negative: total - fractures}
    for title, images, groups in (
        ("validation", calibration.images, calibration.groups),
        ("evaluated", evaluated, count_groups(predictions, calibration.classes)),
    ):
        if groups["all"] and any(groups[name] < images[name] for name in calibration.classes):
            return [
                f"the {images['all']} {title} images are of {groups['all']} groups, and images of "
                "one group are alike, so that coverage is 1 - alpha in the long run of many "
                "groups, not for a finite number of them"
            ]
    return []


def _exchangeable(alpha: float) -> str:
    return (
        f"every image is of a group of its own and no group is in two splits: if these images come "
        f"from where the validation images came from, the set of an image holds its class with "
        f"probability {1 - alpha:g} or more for each class, on average over draws of both"
    )
