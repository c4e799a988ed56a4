"""Evaluate a trained run on every example: python -m msa_flax.evaluate --workdir DIR.

Writes predictions.csv and metrics.json to DIR/eval/<split>/ (with --checkpoint last, to
DIR/eval/<split>-last/) and prints the metrics of the paper's Table 4. With --data_root DIR2 the
same model is evaluated on another folder (external validation), DIR2/{fracture,normal}/ or
DIR2/{train,val}/{fracture,normal}/; --external names the result.

--calibrate fits temperature, isotonic regression, Venn-Abers and conformal prediction on the
validation split and stores them as DIR/checkpoints/calibration-<best or last>.json. From then on
every evaluation of other images with that checkpoint adds calibrated.csv and the sections
"calibration" and "conformal" of metrics.json, which leave everything else as it is.
"""

import logging
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from absl import flags

from msa_flax import cli, files
from msa_flax.config import Config

if TYPE_CHECKING:
    from msa_flax.api import Run
    from msa_flax.data.examples import Examples
    from msa_flax.data.splits import Splits
    from msa_flax.evaluation.predictions import Predictions

log = logging.getLogger("msa_flax")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    cli.define_workdir(values, "folder of the trained run")
    flags.DEFINE_enum(
        "split", "test", ["train", "validation", "test"], "what to evaluate", flag_values=values
    )
    flags.DEFINE_enum(
        "checkpoint",
        "best",
        ["best", "last"],
        "lowest validation loss, or the newest",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data_root", None, "evaluate on this folder of images instead", flag_values=values
    )
    flags.DEFINE_string(
        "external", "external", "name of the result of --data_root", flag_values=values
    )
    flags.DEFINE_boolean(
        "calibrate",
        False,
        "first fit calibration and conformal prediction on the validation split",
        flag_values=values,
    )
    flags.DEFINE_float(
        "conformal_alpha",
        0.1,
        "share of images of a class whose conformal set may miss it",
        flag_values=values,
    )


def main(args: SimpleNamespace) -> None:
    """Runs the command."""
    workdir = cli.workdir(args, trained=True)
    name = args.external
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name) or name in (
        "train",
        "validation",
        "test",
    ):
        raise cli.UsageError(
            f"--external: expected letters, digits, _ and -, and no split's name; got {name!r}"
        )
    alpha = args.conformal_alpha
    if not 0 < alpha < 1:
        raise cli.UsageError(
            f"--conformal_alpha: expected a number between 0 and 1, such as 0.1; got {alpha:g}"
        )
    from msa_flax import api

    api.prepare_jax()
    run = api.restore(workdir, checkpoint_name=args.checkpoint)
    results = {}
    if args.calibrate or not args.data_root:
        data = read_data(run.workdir, run.config)
    if args.calibrate:
        results["validation"] = calibrate(run, *data)
    if args.data_root:
        results[name] = evaluate_external(run, args.data_root, name, alpha=alpha)
    elif args.split not in results:
        results[args.split] = evaluate_split(run, *data, args.split, alpha=alpha)
    report(run, results)


def read_data(workdir: Path, config: Config) -> tuple["Examples", "Splits", list[str]]:
    """Returns the images a run was trained with, its split table and its stamps.

    Raises:
        WorkdirError: the images are not the ones that the run was trained with.
    """
    from msa_flax import data
    from msa_flax.data import splits as splitting
    from msa_flax.data import stamps as stamping
    from msa_flax.training import record

    examples = data.load(config.data)
    known = files.read_json(workdir / "run.json").get("data_fingerprint")
    if known != examples.fingerprint:
        raise record.WorkdirError(
            f"the images in {config.data.root or 'the data set'} are not the ones that "
            f"{workdir} was trained with; restore them, or evaluate them with --data_root"
        )
    splits = splitting.Splits.read(workdir / "splits.csv")
    return examples, splits, stamping.stamps(examples, splits)


def calibrate(
    run: "Run", examples: "Examples", splits: "Splits", stamps: list[str]
) -> dict[str, Any]:
    """Evaluates the validation split, fits calibrators on it, stores them, returns its metrics."""
    from msa_flax.evaluation import calibration_summary, postprocess
    from msa_flax.evaluation.predictions import Predictions

    values = evaluate_split(run, examples, splits, stamps, "validation")
    folder, path = run.results("validation"), _calibration_file(run)
    fitted = postprocess.fit(Predictions.read(folder / "predictions.csv"), **_identity(run))
    fitted.write(path)
    log.info("calibration: fitted on %d validation images: %s", values["n"], path)
    if fitted.reason:
        log.warning("calibration: only conformal prediction is possible: %s", fitted.reason)
    values |= calibration_summary.unavailable(calibration_summary.OPTIMISTIC)
    files.write_json(folder / "metrics.json", values)
    return values


def evaluate_split(
    run: "Run",
    examples: "Examples",
    splits: "Splits",
    stamps: list[str],
    split: str,
    *,
    alpha: float = 0.1,
) -> dict[str, Any]:
    """Evaluates one split of the run's own data, writes its artefacts, returns its metrics."""
    rows = splits.indices(split)
    trained_on = ["the network was trained on these images"] if split == "train" else []
    return _evaluate(
        run, examples.take(rows), splits.fold[rows], split, stamps, alpha=alpha, doubts=trained_on
    )


def evaluate_external(run: "Run", root: str, name: str, *, alpha: float = 0.1) -> dict[str, Any]:
    """Evaluates a folder of other images, writes ``eval/<name>/``, returns its metrics."""
    import numpy as np

    from msa_flax import data

    examples = data.load_external(root, run.config.data)
    for file, reason in examples.bad_files[:20]:
        log.warning("left out: %s: %s", file, reason)
    stamps = [] if examples.groups_known else ["groups unknown"]
    elsewhere = ["these images come from elsewhere than the validation images"]
    fold = np.full(len(examples), "")
    return _evaluate(run, examples, fold, name, stamps, alpha=alpha, doubts=elsewhere)


def _evaluate(
    run: "Run",
    examples: "Examples",
    fold: Any,
    split: str,
    stamps: list[str],
    *,
    alpha: float,
    doubts: list[str],
) -> dict[str, Any]:
    import numpy as np

    from msa_flax.evaluation.predictions import Predictions, sigmoid
    from msa_flax.evaluation.summary import metrics_json

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
    run: "Run",
    predictions: "Predictions",
    values: dict[str, Any],
    *,
    alpha: float,
    doubts: list[str],
) -> dict[str, Any]:
    """Writes ``calibrated.csv`` where a calibration is stored; returns its sections of the metrics.

    An earlier ``calibrated.csv`` is removed: it would belong to other predictions.
    """
    from msa_flax.evaluation import calibrated, calibration_summary, postprocess

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


def _calibration_file(run: "Run") -> Path:
    return run.workdir / "checkpoints" / f"calibration-{run.checkpoint}.json"


def _identity(run: "Run") -> dict[str, Any]:
    """Returns what a stored calibration must agree with to be used."""
    return {
        "checkpoint": run.checkpoint,
        "step": run.step,
        "data_fingerprint": files.read_json(run.workdir / "run.json").get("data_fingerprint", ""),
    }


def _steered(run: "Run") -> list[str]:
    """Says whether the network is what it is because of its loss on the validation images."""
    if run.checkpoint == "best":
        return ["the checkpoint was chosen by its loss on the validation images"]
    if run.config.train.early_stopping or run.config.optim.schedule == "plateau":
        return ["training was steered by the loss on the validation images"]
    return []


def report(run: "Run", results: dict[str, dict[str, Any]]) -> None:
    """Prints the metrics and draws ROC and confusion matrix from the saved predictions."""
    from msa_flax.evaluation import calibration_summary
    from msa_flax.evaluation.predictions import Predictions
    from msa_flax.evaluation.terminal import metrics_table
    from msa_flax.plots import figures

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
    from msa_flax.auditing import shortcuts

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


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
