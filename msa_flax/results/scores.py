"""The scores of a run on some images: ``predictions.csv``, ``metrics.json``, ``calibrated.csv``."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msa_flax import files
from msa_flax.auditing import findings, shortcuts
from msa_flax.data.examples import DataError, Examples
from msa_flax.data.leakage import UNKNOWN, check_contradictions
from msa_flax.data.overlap import find_overlap
from msa_flax.evaluation import calibration, calibration_summary
from msa_flax.evaluation.conformal import ALPHA
from msa_flax.evaluation.predictions import Predictions, sigmoid
from msa_flax.evaluation.summary import metrics_json
from msa_flax.evaluation.terminal import calibration_lines, metrics_table
from msa_flax.plots import figures
from msa_flax.run import Run
from msa_flax.training.workdir import WorkdirError

log = logging.getLogger("msa_flax")

NOT_COMPARED = "not compared with the training images, which are gone or were changed"


def calibrate(run: Run, *, sensitivity: float | None = None) -> dict[str, Any]:
    """Fits calibrators on the validation split, stores them, evaluates it, returns its metrics.

    Args:
        run: a trained run.
        sensitivity: choose and store the threshold that has it; without one, none is stored.

    Raises:
        PredictionsError: the validation images with a fracture are too few for the sensitivity;
            nothing is written.
    """
    predictions, seconds = predict_split(run, "validation")
    fitted = calibration.fit(predictions, **run.identity, sensitivity=sensitivity)
    path = calibration.file_of(run.workdir / "checkpoints", run.checkpoint)
    fitted.write(path)
    log.info("calibration: fitted on %d validation images: %s", len(predictions), path)
    if fitted.reason:
        log.warning("calibration: only conformal prediction is possible: %s", fitted.reason)
    return _write(run, predictions, seconds, run.data.stamps)


def evaluate_split(run: Run, split: str, *, alpha: float = ALPHA) -> dict[str, Any]:
    """Evaluates one split of the run's own data, writes its artefacts, returns its metrics."""
    predictions, seconds = predict_split(run, split)
    return _write(run, predictions, seconds, run.data.stamps, alpha=alpha)


def evaluate_external(
    run: Run,
    examples: Examples,
    root: str,
    name: str,
    *,
    alpha: float = ALPHA,
    replace: bool = False,
) -> dict[str, Any]:
    """Evaluates other images, writes ``eval/<name>/``, returns its metrics.

    The images are compared with those that the run was trained or chosen on.

    Args:
        run: a trained run.
        examples: the images, of :func:`msa_flax.data.load_external`.
        root: the folder or table that they come from.
        name: of the result.
        alpha: share of images of a class whose conformal set may miss it.
        replace: whether a result of other images under this name may be replaced.

    Raises:
        DataError: the images cannot be used, a picture is in both classes, or the name belongs to
            other images.
    """
    for file, reason in examples.bad_files[:20]:
        log.warning("left out: %s: %s", file, reason)
    check_contradictions(examples)
    _check_name(run, root, name, examples.fingerprint, replace=replace)
    stamps = [] if examples.groups_known else [UNKNOWN]
    stamps += _known_before(run, root, examples)
    elsewhere = ["these images come from elsewhere than the validation images"]
    predictions, seconds = _predict(run, examples, name, np.full(len(examples), ""))
    origin = {"root": str(Path(root).absolute()), "fingerprint": examples.fingerprint}
    return _write(run, predictions, seconds, stamps, alpha=alpha, doubts=elsewhere, origin=origin)


def predict_split(run: Run, split: str) -> tuple[Predictions, float]:
    """Returns the predictions of a split of the run's own data, and the seconds that they took."""
    fold = run.data.splits.fold[run.data.splits.indices(split)]
    return _predict(run, run.data.take(split), split, fold)


def _check_name(run: Run, root: str, name: str, fingerprint: str, *, replace: bool) -> None:
    """Refuses to replace the result of other images, unless that is asked for."""
    path = run.results(name) / "metrics.json"
    earlier = files.read_json(path)
    if not earlier or earlier.get("fingerprint") == fingerprint:
        return
    of = f"other images, of {earlier.get('root', 'a folder that was not recorded')}"
    if not replace:
        raise DataError(
            f"{path.parent} holds the result of {of}; choose another --external name for {root}, "
            "or replace it with --replace"
        )
    log.warning("replacing the result of %s", of)


def _known_before(run: Run, root: str, examples: Examples) -> list[str]:
    """Returns the stamps that say what the run knew of the images."""
    try:
        data = run.data
    except (DataError, WorkdirError) as error:
        log.warning("not compared with the training images: %s", error)
        return [NOT_COMPARED]
    found = find_overlap(root, examples, data.examples, data.splits, run.config.data)
    for stamp in found.stamps:
        log.warning("not an external set: %s", stamp)
    return found.stamps


def _predict(
    run: Run, examples: Examples, split: str, fold: np.ndarray
) -> tuple[Predictions, float]:
    """Returns the predictions of images, and the seconds that they took."""
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
    return predictions, seconds


def _write(
    run: Run,
    predictions: Predictions,
    seconds: float,
    stamps: Sequence[str],
    *,
    alpha: float = ALPHA,
    doubts: Sequence[str] = (),
    origin: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Writes the three files of one split, and returns what ``metrics.json`` holds.

    Without a stored calibration there is no ``calibrated.csv``; an earlier one is removed, because
    it would belong to other predictions.
    """
    split = str(predictions.split[0])
    doubts = calibration_summary.doubts(split, [*stamps, *doubts], _steered(run))
    folder, stamps = run.results(split), list(dict.fromkeys([*stamps, *run.changes]))
    stored, reason = calibration.stored(run.workdir / "checkpoints", **run.identity)
    point = stored.operating_point if stored else None
    values = metrics_json(
        predictions,
        split=split,
        threshold=point.threshold if point else run.config.eval.threshold,
        stamps=stamps,
        seconds=seconds,
        classes=run.config.data.classes,
    )
    values |= origin or {}
    values["predictions_sha256"] = predictions.digest()  # a report refuses other ones
    found = None
    if split == "validation" and (stored or reason):
        values |= calibration_summary.unavailable(calibration_summary.OPTIMISTIC)
    elif stored:
        found = calibration.apply(stored, predictions.logit, alpha=alpha)
        values |= calibration_summary.sections(
            stored, predictions, found, values=values, alpha=alpha, doubts=doubts
        )
    elif reason:
        values |= calibration_summary.unavailable(reason)
    if stored:
        values |= calibration_summary.operating_point(stored, doubts)
    with files.uninterrupted():  # all of it is there, or what was there before
        if found:
            found.write(folder / "calibrated.csv", predictions.example_id)
        else:
            (folder / "calibrated.csv").unlink(missing_ok=True)
        predictions.write(folder / "predictions.csv")
        files.write_json(folder / "metrics.json", values)
    return values


def _steered(run: Run) -> str:
    """Says whether the network is what it is because of its loss on the validation images."""
    if run.checkpoint == "best":
        return calibration_summary.CHOSEN
    if run.config.train.early_stopping or run.config.optim.schedule == "plateau":
        return "training was steered by the loss on the validation images"
    return ""


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
    if lines := calibration_lines(results):
        print(lines)
    if beside := _shortcuts(run.workdir, results):
        print(beside)


def _shortcuts(workdir: Path, results: dict[str, dict[str, Any]]) -> str:
    """Says what shortcuts reach on the same splits, if the run has been audited, or how to know."""
    if not set(results) & {"validation", "test"}:
        return ""
    ladder = files.read_json(workdir / "audit" / "audit.json", findings.SHAPE).get("ladder")
    if not ladder:
        return f"What shortcuts reach: python -m msa_flax.audit --ladder --workdir {workdir}\n"
    lines = []
    for split, values in results.items():
        if best := shortcuts.best_shortcut(ladder, split):
            gain = best.gain(values["metrics"]["accuracy"]["value"])
            lines.append(
                f"{split}: the best shortcut, {best.name}, reaches accuracy {best.accuracy:.4f}; "
                f"the model adds {gain:+.4f}\n"
            )
    return "".join(lines)
