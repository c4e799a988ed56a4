"""Evaluate a trained run on every example: python -m msa_flax.evaluate --workdir DIR.

Writes predictions.csv and metrics.json to DIR/eval/<split>/ (with --checkpoint last, to
DIR/eval/<split>-last/) and prints the metrics of the paper's Table 4. With --data_root DIR2 the
same model is evaluated on another folder (external validation), DIR2/{fracture,normal}/ or
DIR2/{train,val}/{fracture,normal}/; --external names the result.
"""

import logging
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from absl import flags

from msa_flax import cli
from msa_flax.config import Config

if TYPE_CHECKING:
    from msa_flax.api import Run
    from msa_flax.data.examples import Examples
    from msa_flax.data.splits import Splits

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
    from msa_flax import api

    api.prepare_jax()
    run = api.restore(workdir, checkpoint_name=args.checkpoint)
    if args.data_root:
        split = name
        results = {split: evaluate_external(run, args.data_root, split)}
    else:
        split = args.split
        examples, splits, stamps = read_data(run.workdir, run.config)
        results = {split: evaluate_split(run, examples, splits, stamps, split)}
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
    known = record.read_json(workdir / "run.json").get("data_fingerprint")
    if known != examples.fingerprint:
        raise record.WorkdirError(
            f"the images in {config.data.root or 'the data set'} are not the ones that "
            f"{workdir} was trained with; restore them, or evaluate them with --data_root"
        )
    splits = splitting.Splits.read(workdir / "splits.csv")
    return examples, splits, stamping.stamps(examples, splits)


def evaluate_split(
    run: "Run", examples: "Examples", splits: "Splits", stamps: list[str], split: str
) -> dict[str, Any]:
    """Evaluates one split of the run's own data, writes its artefacts, returns its metrics."""
    rows = splits.indices(split)
    return _evaluate(run, examples.take(rows), splits.fold[rows], split, stamps)


def evaluate_external(run: "Run", root: str, name: str) -> dict[str, Any]:
    """Evaluates a folder of other images, writes ``eval/<name>/``, returns its metrics."""
    import numpy as np

    from msa_flax import data

    examples = data.load_external(root, run.config.data)
    for file, reason in examples.bad_files[:20]:
        log.warning("left out: %s: %s", file, reason)
    stamps = [] if examples.groups_known else ["groups unknown"]
    return _evaluate(run, examples, np.full(len(examples), ""), name, stamps)


def _evaluate(
    run: "Run", examples: "Examples", fold: Any, split: str, stamps: list[str]
) -> dict[str, Any]:
    import numpy as np

    from msa_flax.evaluation import metrics
    from msa_flax.evaluation.predictions import Predictions, sigmoid

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
    values = metrics.metrics_json(
        predictions,
        split=split,
        threshold=run.config.eval.threshold,
        stamps=stamps,
        seconds=seconds,
    )
    folder = run.results(split)
    predictions.write(folder / "predictions.csv")
    metrics.write_json(folder / "metrics.json", values)
    return values


def report(run: "Run", results: dict[str, dict[str, Any]]) -> None:
    """Prints the metrics and draws ROC and confusion matrix from the saved predictions."""
    from msa_flax.evaluation import figures, metrics
    from msa_flax.evaluation.predictions import Predictions

    title = f"checkpoint {run.checkpoint}, step {run.step}"
    for split, values in results.items():
        folder = run.results(split)
        figures.roc_and_confusion(
            Predictions.read(folder / "predictions.csv"),
            values,
            run.workdir / "figures" / f"roc_confusion_{folder.name}.png",
            f"{split}: {title}",
        )
    print(f"{run.workdir}: {title}\n{metrics.table(results)}")
    if beside := _shortcuts(run.workdir, results):
        print(beside)


def _shortcuts(workdir: Path, results: dict[str, dict[str, Any]]) -> str:
    """Says what shortcuts reach on the same splits, if the run has been audited, or how to know."""
    from msa_flax.evaluation import shortcuts
    from msa_flax.training import record

    if not set(results) & {"validation", "test"}:
        return ""
    ladder = record.read_json(workdir / "audit" / "audit.json").get("ladder")
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
