"""Tables of calibrated probabilities and of conformal sets, where evaluate has made them."""

from collections.abc import Mapping
from typing import Any

from msa_flax.reporting.saved import SavedRun
from msa_flax.reporting.tables import Table, metric_name
from msa_flax.reporting.text import with_interval

_NAMES = {
    "uncalibrated": "As it is",
    "temperature": "Temperature",
    "isotonic": "Isotonic",
    "venn_abers": "Venn-Abers",
}
_SCORES = ("brier", "log_loss", "ece", "ece_debiased")


def tables(run: SavedRun) -> list[Table]:
    """Returns the table of calibrators and that of abstention; nothing where there are none."""
    calibration, conformal = (run.metrics.get(name, {}) for name in ("calibration", "conformal"))
    found = [_calibrators(calibration)] if "uncalibrated" in calibration else []
    return [*found, _abstention(conformal, run)] if "coverage" in conformal else found


def why_not(run: SavedRun) -> str:
    """Returns why there are no calibrated values, "" where nothing is known of calibration."""
    return str(run.metrics.get("calibration", {}).get("reason", ""))


def _calibrators(part: Mapping[str, Any]) -> Table:
    rows, undefined = [], []
    reasons = [f"{_NAMES[key]}: {part[key]['reason']}" for key in _NAMES if "reason" in part[key]]
    for key, name in _NAMES.items():
        scores = part[key] if key == "uncalibrated" else part[key].get("metrics", {})
        rows.append([name, *(with_interval(scores[s]) if s in scores else "" for s in _SCORES)])
        named = {f"{name}, {metric_name(s).lower()}": scores.get(s, {}) for s in _SCORES}
        undefined += _undefined(named)
    images = part["fitted_on"]["images"]["all"]
    fitted = f"Fitted on the {images} validation images alone; less is better"
    return Table(
        title="Calibrated probabilities",
        head=["Probabilities", *map(metric_name, _SCORES)],
        rows=rows,
        note=" ".join(f"{sentence}." for sentence in [fitted, *reasons, *undefined]),
    )


def _abstention(part: Mapping[str, Any], run: SavedRun) -> Table:
    coverage, decided = part["coverage"], part["decided"]
    named = {
        f"{name.capitalize()} on the images decided": decided[name]
        for name in ("accuracy", "sensitivity", "specificity")
    }
    rows = [
        [f"Sets hold the right class: {run.classes[1]}", with_interval(coverage[run.classes[1]])],
        [f"Sets hold the right class: {run.classes[0]}", with_interval(coverage[run.classes[0]])],
        ["Share of images on which the model abstains", with_interval(part["abstained"])],
        ["Images decided", str(decided["n"])],
        *([name, with_interval(entry)] for name, entry in named.items()),
    ]
    promise = "This coverage is guaranteed" if part["guarantee"] else "There is no guarantee"
    sentences = [f"{promise}: {part['reason']}", *_undefined(named)]
    return Table(
        title=f"Abstaining: conformal sets at alpha {part['alpha']:g}",
        head=["What", "Value"],
        rows=rows,
        note="The model abstains where the set of an image holds both classes or none. "
        + " ".join(f"{sentence}." for sentence in sentences),
    )


def _undefined(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns what is undefined, with the reason, as "name: reason"."""
    return [
        f"{name}: {entry['reason']}"
        for name, entry in entries.items()
        if entry.get("reason") and entry["value"] is None
    ]
