"""The scores of a run on some images: ``predictions.csv``, ``metrics.json``, ``calibrated.csv``."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

from msa_flax import files
from msa_flax.auditing import shortcuts
from msa_flax.data import load_external
from msa_flax.data.examples import Examples
from msa_flax.data.leakage import UNKNOWN
from msa_flax.evaluation import calibrated, calibration_summary, postprocess
from msa_flax.evaluation.predictions import Predictions, sigmoid
from msa_flax.evaluation.summary import metrics_json
from msa_flax.evaluation.terminal import metrics_table
from msa_flax.plots import figures
from msa_flax.run import Run

log = logging.getLogger("msa_flax")


def calibrate(run: Run) -> dict[str, Any]:
    """Evaluates the validation split, fits calibrators on it, stores them, returns its metrics."""
    values = evaluate_split(run, "validation")
    folder, path = run.results("validation"), _calibration_file(run)
    fitted = postprocess.fit(Predictions.read(folder / "predictions.csv"), **_identity(run))
    fitted.write(path)
    log.info("calibration: fitted on %d validation images: %s", values["n"], path)
    if fitted.reason:
        log.warning("calibration: only conformal prediction is possible: %s", fitted.reason)
    values |= calibration_summary.unavailable(calibration_summary.OPTIMISTIC)
    files.write_json(folder / "metrics.json", values)
    return values


def evaluate_split(run: Run, split: str, *, alpha: float = 0.1) -> dict[str, Any]:
    """Evaluates one split of the run's own data, writes its artefacts, returns its metrics."""
    examples, fold = run.data.take(split), run.data.splits.fold[run.data.splits.indices(split)]
    doubts = ["the network was trained on these images"] if split == "train" else []
    return _evaluate(run, examples, fold, split, run.data.stamps, alpha=alpha, doubts=doubts)


def evaluate_external(run: Run, root: str, name: str, *, alpha: float = 0.1) -> dict[str, Any]:
    """Evaluates a folder of other images, writes ``eval/<name>/``, returns its metrics."""
    examples = load_external(root, run.config.data)
    for file, reason in examples.bad_files[:20]:
        log.warning("left out: %s: %s", file, reason)
    stamps = [] if examples.groups_known else [UNKNOWN]
    elsewhere = ["these images come from elsewhere than the validation images"]
    fold = np.full(len(examples), "")
    return _evaluate(run, examples, fold, name, stamps, alpha=alpha, doubts=elsewhere)


def _evaluate(
    run: Run,
    examples: Examples,
    fold: Any,
    split: str,
    stamps: list[str],
    *,
    alpha: float,
    doubts: list[str],
) -> dict[str, Any]:
    began = time.perf_counter()
    logits = run.predict(examples.images)
    seconds = time.perf_counter() - began
    predictions = Predictions(
        example_id=examples.example_id,
        split=np.full(len(examples), split),
        fold=fold,
        group=examples.group,
        family=examples.family,
        label=examples.label,
        logit=logits,
        probability=sigmoid(logits),
    )
    values = metrics_json(
        predictions,
        split=split,
        threshold=run.config.eval.threshold,
        stamps=stamps,
        seconds=seconds,
    )
    values |= _calibrate(run, predictions, values, alpha=alpha, doubts=[*stamps, *doubts])
    folder = run.results(split)
    predictions.write(folder / "predictions.csv")
    files.write_json(folder / "metrics.json", values)
    return values


def _calibrate(
    run: Run,
    predictions: Predictions,
    values: dict[str, Any],
    *,
    alpha: float,
    doubts: list[str],
) -> dict[str, Any]:
    """Writes ``calibrated.csv`` where a calibration is stored; returns its sections of the metrics.

    An earlier ``calibrated.csv`` is removed: it would belong to other predictions.
    """
    table = run.results(values["split"]) / "calibrated.csv"
    table.unlink(missing_ok=True)
    path = _calibration_file(run)
    if not path.exists():
        return {}
    if values["split"] == "validation":
        return calibration_summary.unavailable(calibration_summary.OPTIMISTIC)
    try:
        fitted = postprocess.Calibration.read(path)
        fitted.check(**_identity(run))
    except postprocess.CalibrationError as error:
        log.warning("calibration is not used: %s", error)
        return calibration_summary.unavailable(str(error))
    found = calibrated.apply(fitted, predictions.logit, alpha=alpha)
    found.write(table, predictions.example_id)
    return calibration_summary.sections(
        fitted, predictions, found, values=values, alpha=alpha, doubts=[*doubts, *_steered(run)]
    )


def _calibration_file(run: Run) -> Path:
    return run.workdir / "checkpoints" / f"calibration-{run.checkpoint}.json"


def _identity(run: Run) -> dict[str, Any]:
    """Returns what a stored calibration must agree with to be used."""
    return {
        "checkpoint": run.checkpoint,
        "step": run.step,
        "data_fingerprint": files.read_json(run.workdir / "run.json").get("data_fingerprint", ""),
    }


def _steered(run: Run) -> list[str]:
    """Says whether the network is what it is because of its loss on the validation images."""
    if run.checkpoint == "best":
        return ["the checkpoint was chosen by its loss on the validation images"]
    if run.config.train.early_stopping or run.config.optim.schedule == "plateau":
        return ["training was steered by the loss on the validation images"]
    return []


def report(run: Run, results: dict[str, dict[str, Any]]) -> None:
    """Prints the metrics and draws ROC and confusion matrix from the saved predictions."""
    title = f"checkpoint {run.checkpoint}, step {run.step}"
    for split, values in results.items():
        folder = run.results(split)
        figures.roc_and_confusion(
            Predictions.read(folder / "predictions.csv"),
            values,
            run.workdir / "figures" / f"roc_confusion_{folder.name}.png",
            f"{split}: {title}",
            classes=run.config.data.classes,
        )
    print(f"{run.workdir}: {title}\n{metrics_table(results)}")
    if calibrated := calibration_summary.describe(results):
        print(calibrated)
    if beside := _shortcuts(run.workdir, results):
        print(beside)


def _shortcuts(workdir: Path, results: dict[str, dict[str, Any]]) -> str:
    """Says what shortcuts reach on the same splits, if the run has been audited, or how to know."""
    if not set(results) & {"validation", "test"}:
        return ""
    ladder = files.read_json(workdir / "audit" / "audit.json").get("ladder")
    if not ladder:
        return f"What shortcuts reach: python -m msa_flax.audit --ladder --workdir {workdir}\n"
    lines = []
    for split, values in results.items():
        if best := shortcuts.best_shortcut(ladder, split):
            reached = best[split]["accuracy"]
            gain = values["metrics"]["accuracy"]["value"] - reached
            lines.append(
                f"{split}: the best shortcut, {best['rung']}, reaches accuracy {reached:.4f}; "
                f"the model adds {gain:+.4f}\n"
            )
    return "".join(lines)
