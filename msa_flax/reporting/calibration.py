"""Tables of calibrated probabilities and of conformal sets, where evaluate has made them."""

from collections.abc import Mapping
from typing import Any

from msa_flax.reporting import points
from msa_flax.reporting.artefacts import Artefacts
from msa_flax.reporting.tables import Table

_NAMES = {
    "uncalibrated": "As it is",
    "temperature": "Temperature",
    "isotonic": "Isotonic",
    "venn_abers": "Venn-Abers",
}
_SCORES = {
    "brier": "Brier score",
    "log_loss": "Log loss",
    "ece": "Calibration error",
    "ece_debiased": "Calibration error, debiased (root mean square)",
}


def tables(run: Artefacts) -> list[Table]:
    """Returns the table of calibrators and that of abstention; nothing where there are none."""
    calibration, conformal = (run.metrics.get(name, {}) for name in ("calibration", "conformal"))
    found = []
    if "uncalibrated" in calibration:
        found.append(_calibrators(calibration))
    if "coverage" in conformal:
        found.append(_abstention(conformal, run))
    return found


def why_not(run: Artefacts) -> str:
    """Returns why there are no calibrated values, "" where nothing is known of calibration."""
    return str(run.metrics.get("calibration", {}).get("reason", ""))


def _calibrators(part: Mapping[str, Any]) -> Table:
    rows = []
    reasons = [f"{_NAMES[key]}: {part[key]['reason']}" for key in _NAMES if "reason" in part[key]]
    for key, name in _NAMES.items():
        scores = part[key] if key == "uncalibrated" else part[key].get("metrics", {})
        cells = [_entry(scores[score]) if score in scores else "" for score in _SCORES]
        rows.append([name, *cells])
        reasons += _undefined({f"{name}, {_SCORES[k].lower()}": scores.get(k, {}) for k in _SCORES})
    images = part["fitted_on"]["images"]["all"]
    return Table(
        title="Calibrated probabilities",
        head=["Probabilities", *_SCORES.values()],
        rows=rows,
        note=". ".join(
            [f"Fitted on the {images} validation images alone; less is better", *reasons, ""]
        ).strip(),
    )


def _abstention(part: Mapping[str, Any], run: Artefacts) -> Table:
    coverage, decided = part["coverage"], part["decided"]
    rows = [
        [f"Sets hold the right class: {run.classes[1]}", _entry(coverage["fracture"])],
        [f"Sets hold the right class: {run.classes[0]}", _entry(coverage["normal"])],
        ["Share of images on which the model abstains", _entry(part["abstained"])],
        ["Images decided", str(decided["n"])],
        *(
            [f"{name.capitalize()} on the images decided", _entry(decided[name])]
            for name in ("accuracy", "sensitivity", "specificity")
        ),
    ]
    named = {f"{name} on the images decided": decided[name] for name in decided if name != "n"}
    promise = "This coverage is guaranteed" if part["guarantee"] else "There is no guarantee"
    return Table(
        title=f"Abstaining: conformal sets at alpha {part['alpha']:g}",
        head=["What", "Value"],
        rows=rows,
        note="The model abstains where the set of an image holds both classes or none. "
        + " ".join([f"{promise}: {part['reason']}.", *(f"{r}." for r in _undefined(named))]),
    )


def _undefined(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns what is undefined, with the reason, as "name: reason"."""
    return [
        f"{name[:1].upper()}{name[1:]}: {entry['reason']}"
        for name, entry in entries.items()
        if entry.get("reason") and entry["value"] is None
    ]


def _entry(entry: Mapping[str, Any]) -> str:
    limits = points.interval(entry)
    return f"{points.shown(entry['value'])}{' ' + limits if limits else ''}"
