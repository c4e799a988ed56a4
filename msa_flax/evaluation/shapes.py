"""What readers need of ``metrics.json``, as :func:`msa_flax.files.misshapen` understands it."""

from typing import Any

from msa_flax.evaluation.calibration_summary import CALIBRATORS

_NUMBER = (float, None)  # null where it is undefined
_ENTRY = {
    "value": _NUMBER,
    **dict.fromkeys(("low?", "high?"), _NUMBER),
    **dict.fromkeys(("method?", "reason?", "interval_reason?"), str),
    **dict.fromkeys(("n?", "groups?"), int),
}
_REASON = {"reason": str}  # why there is nothing else
_ORIGIN = {"images": {"all": int}, "groups": {"*": int}}
_CONFUSION = dict.fromkeys(("tp", "fn", "fp", "tn"), int)
_STUDY = {
    **dict.fromkeys(("n", "groups"), int),
    "aggregation": {"name": str},
    "threshold": float,
    "confusion": _CONFUSION,
    "metrics": {"*": _ENTRY, **dict.fromkeys(("auc", "recall", "specificity"), _ENTRY)},
    "level_auc?": {"*": _NUMBER},
}
_POINT = {
    **dict.fromkeys(("threshold", "sensitivity", "confidence"), float),
    **{"counted": {"images", "groups"}, "n": int, "guarantee": bool, "reason": str},
}


def metrics_shape(classes: tuple[str, ...]) -> dict[str, Any]:
    """Returns the shape of ``metrics.json``.

    Args:
        classes: names of the labels 0 and 1.
    """
    calibrator = ({"parameters": {"*": (float, str)}, "metrics": {"*": _ENTRY}}, _REASON)
    calibration = {
        "fitted_on": _ORIGIN,
        "uncalibrated": {"*": _ENTRY},
        **dict.fromkeys(CALIBRATORS, calibrator),
    }
    conformal = {
        "alpha": float,
        "coverage": dict.fromkeys(("overall", *classes), _ENTRY),
        "abstained": _ENTRY,
        "decided": {"n": int} | dict.fromkeys(("accuracy", "sensitivity", "specificity"), _ENTRY),
        "guarantee": bool,
        "reason": str,
    }
    return {
        "n": int,
        "groups?": int,
        "threshold": float,
        "stamps": [str],
        "confusion": _CONFUSION,
        "metrics": {"*": _ENTRY, **dict.fromkeys(("accuracy", "auc"), _ENTRY)},
        "predictions_sha256?": str,
        "calibration?": (_REASON | {"uncalibrated?": None}, calibration),
        "conformal?": (_REASON | {"coverage?": None}, conformal),
        "operating_point?": _POINT,
        "study?": _STUDY,
    }
