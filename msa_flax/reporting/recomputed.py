"""What ``metrics.json`` says, computed again from the tables beside it, and where they differ."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from msa_flax.evaluation import calibration, calibration_summary, calibrators
from msa_flax.evaluation.calibration import Calibrated, Calibration, CalibrationError
from msa_flax.evaluation.conformal import ALPHA
from msa_flax.evaluation.predictions import Predictions
from msa_flax.evaluation.study import study_metrics
from msa_flax.evaluation.study_table import read_studies
from msa_flax.evaluation.summary import metrics_json
from msa_flax.files import UserError, csv_rows, flatten

_KEPT = ("schema_version", "seconds", "stamps", "predictions_sha256")
_SHOWN = 6  # differences that are named


def recompute(
    workdir: Path,
    split: str,
    metrics: Mapping[str, Any],
    predictions: Predictions,
    *,
    run: Mapping[str, Any],
    classes: tuple[str, str],
) -> tuple[dict[str, Any], list[str]]:
    """Returns the metrics with all that follows from the tables computed again, and what differed.

    Args:
        workdir: the folder of the run.
        split: "validation" or "test".
        metrics: what ``metrics.json`` holds.
        predictions: the table beside it.
        run: what ``run.json`` holds.
        classes: names of the labels 0 and 1.

    Raises:
        UserError: the stored calibration is damaged.
    """
    stamps = list(metrics["stamps"])
    lost = [stamp for stamp in run.get("stamps") or [] if stamp not in stamps]
    fresh = metrics_json(
        predictions,
        split=split,
        threshold=metrics["threshold"],
        stamps=[*stamps, *lost],
        seconds=0.0,
        classes=classes,
    )
    differ = _differences(metrics, fresh)
    differ += [f"the stamp {stamp!r} of run.json is missing" for stamp in lost]
    found = {**metrics, **{key: v for key, v in fresh.items() if key not in _KEPT[:2]}}
    point, sets = metrics.get("operating_point"), metrics.get("conformal", {})
    if point or "coverage" in sets or "uncalibrated" in metrics.get("calibration", {}):
        fingerprint = run.get("data_fingerprint") or ""
        identity = {"data_fingerprint": fingerprint, "classes": classes}
        again, more = _recalibrated(workdir, split, found, predictions, identity)
        found, differ = found | again, differ + more
    if "study" in metrics:
        path = workdir / "eval" / split / "studies.csv"
        found["study"], more = _of_studies(path, metrics["study"], classes)
        differ += more
    rest = [f"{len(differ) - _SHOWN} more"] * (len(differ) > _SHOWN)
    return found, differ[:_SHOWN] + rest


def _recalibrated(
    workdir: Path,
    split: str,
    metrics: Mapping[str, Any],
    predictions: Predictions,
    identity: Mapping[str, Any],
) -> tuple[dict[str, Any], list[str]]:
    """Returns what the stored calibration makes of the predictions, and what differed from it."""
    path = calibration.file_of(workdir / "checkpoints", "best")
    sets = metrics.get("conformal", {})
    if not path.is_file():
        return {}, [f"{path.name} is gone, so that nothing of calibration is computed again"]
    if not 0 < (alpha := sets.get("alpha", ALPHA)) < 1:
        raise UserError(f"metrics.json: expected conformal.alpha in 0..1, got {alpha}")
    stored, steps = Calibration.read(path), [p.name for p in path.parent.glob("best/*")]
    step = max((int(name) for name in steps if name.isdigit()), default=stored.step)
    try:
        stored.check_belongs(checkpoint="best", step=step, **identity)
    except CalibrationError as error:
        return {}, [f"nothing of calibration is computed again: {error}"]
    stored, differ = _of_its_own_logits(stored, path.name)
    made = calibration.apply(stored, predictions.logit, alpha=alpha)
    doubts = calibration_summary.doubts(split, metrics["stamps"])
    fresh = calibration_summary.unavailable(calibration_summary.OPTIMISTIC)
    if split != "validation":
        fresh = calibration_summary.sections(
            stored, predictions, made, values=metrics, alpha=alpha, doubts=doubts
        )
    point = calibration_summary.operating_point(stored, doubts)
    differ += _differences(metrics, fresh | point)
    if "operating_point" in metrics and not point:
        differ.append(f"{path.name} has no operating point")
    if split != "validation":
        differ += _of_table(workdir / "eval" / split / "calibrated.csv", made, predictions)
    chosen = point.get("operating_point", {}).get("threshold") == metrics["threshold"]
    return fresh | (point if chosen else {"operating_point": None}), differ


def _of_studies(
    path: Path, section: Mapping[str, Any], classes: tuple[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Returns the section "study" with what follows from its table, and what differed."""
    if not path.is_file():
        return {**section}, [f"{path.name} is gone, so that studies are not computed again"]
    table = read_studies(path)
    fresh = {
        "n": len(table.label),
        "groups": len(np.unique(table.patient)),
        **study_metrics(
            *(table.label, table.probability),
            patient=table.patient,
            threshold=section["threshold"],
            levels=table.fractured([*section["level_auc"]]) if "level_auc" in section else None,
            classes=classes,
        ),
    }
    return {**section, **fresh}, _differences({"study": section}, {"study": fresh})


def _of_its_own_logits(stored: Calibration, name: str) -> tuple[Calibration, list[str]]:
    """Returns a calibration with the fits of the logits that it holds, and which were others."""
    if not (stored.temperature and stored.isotonic):
        return stored, []
    known = stored.logits, stored.labels
    warm, curve = calibrators.fit_temperature(*known), calibrators.fit_isotonic(*known)
    grid = np.linspace(stored.logits.min(), stored.logits.max(), 201)
    # Two machines end the same search within a millionth of one another, or so.
    right = {
        "temperature": math.isclose(warm.value, stored.temperature.value, rel_tol=1e-3),
        "isotonic": np.allclose(curve.apply(grid), stored.isotonic.apply(grid), atol=1e-3),
    }
    if all(right.values()):
        return stored, []
    wrong = [f"{what} of {name} is not that of its logits" for what, ok in right.items() if not ok]
    return dataclasses.replace(stored, temperature=warm, isotonic=curve), wrong


def _of_table(path: Path, made: Calibrated, predictions: Predictions) -> list[str]:
    """Returns how ``calibrated.csv`` differs from what the stored calibration makes."""
    if not path.is_file():
        return [f"{path.name} is gone"]
    header, *rows = csv_rows(path) or [[]]
    names, expected = made.table(predictions.example_id)
    if header != names or len(rows) != len(expected):
        return [f"{path.name} has other columns or rows"]
    wrong = sum(
        not all(map(_same_cell, row, cells)) for row, cells in zip(rows, expected, strict=True)
    )
    return [f"{path.name} in {wrong} rows"] * bool(wrong)


def _same_cell(text: str, cell: Any) -> bool:
    expected = "" if cell is None else str(cell)
    try:
        return text == expected or math.isclose(float(text), float(expected), rel_tol=1e-5)
    except ValueError:
        return False


def _differences(metrics: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[str]:
    was, now = (flatten(values) for values in (metrics, fresh))
    return [
        f"{name} ({was[name]} in metrics.json, {value} here)"
        for name, value in now.items()
        if name in was and not name.startswith(_KEPT) and not _same(was[name], value)
    ]


def _same(a: Any, b: Any) -> bool:
    if all(type(x) in (int, float) and abs(x) < 1e300 for x in (a, b)):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)  # sums in another order
    return bool(a == b)
