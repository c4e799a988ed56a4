r"""Paper 2's figures, of any trained runs: curves, confusion matrices, robustness.

    python experiments/paper2_figures.py runs/paper2_mobilenet_v2 runs/paper2_resnet50 --out figures

draws, from what ``python -m msa_flax.train`` and ``evaluate`` have written into each workdir,
learning_curves.png, confusion.png, roc.png and precision_recall.png. Then it restores every run,
disturbs the images of the split (noise, blur, contrast, rotation, jpeg; five severities each, see
corruptions.py) and writes robustness.csv (run, corruption, severity, n, accuracy, auc) and
robustness.png. That takes 26 predictions of the split per run; --images N takes N images of it,
both classes in their proportion. All runs must have been evaluated on the same images.
"""

import argparse
import csv
import dataclasses
import io
import itertools
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from command_line import Parser, call
from corruptions import CORRUPTIONS, SEVERITIES, corrupt, describe

from msa_flax.config import Config
from msa_flax.evaluation import compute_metrics
from msa_flax.evaluation.predictions import Predictions, sigmoid
from msa_flax.files import NOTICE, UserError, write_text
from msa_flax.plots import figures
from msa_flax.run import restore
from msa_flax.training.loop import read_rows
from msa_flax.training.workdir import read_config
from msa_flax.training.xla import prepare_jax

SEED = 0  # of the disturbances: the same for every run
COLUMNS = ("run", "corruption", "severity", "n", "accuracy", "auc")


class FiguresError(UserError):
    """The figures cannot be drawn as asked."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run's workdir holds of one split."""

    workdir: pathlib.Path
    config: Config
    predictions: Predictions  # sorted by example id
    metrics: dict[str, Any]
    rows: list[dict[str, Any]]  # of metrics.jsonl


def read(workdir: pathlib.Path, split: str) -> Result:
    """Returns a run's tables.

    Raises:
        FiguresError: no run there, or no evaluation of the split.
    """
    if not (workdir / "config.json").is_file():
        raise FiguresError(
            f"expected a folder that msa_flax.train has written, got {str(workdir)!r} without "
            "config.json"
        )
    folder = workdir / "eval" / split
    for name in ("predictions.csv", "metrics.json"):
        if not (folder / name).is_file():
            raise FiguresError(
                f"{folder} has no {name}; run python -m msa_flax.evaluate --workdir {workdir} "
                f"--split {split} first"
            )
    table = Predictions.read(folder / "predictions.csv")
    order = np.argsort(table.example_id)
    fields = {field.name: getattr(table, field.name)[order] for field in dataclasses.fields(table)}
    return Result(
        workdir=workdir,
        config=read_config(workdir),
        predictions=Predictions(**fields),
        metrics=json.loads((folder / "metrics.json").read_text()),
        rows=read_rows(workdir / "metrics.jsonl"),
    )


def read_all(workdirs: Sequence[pathlib.Path], split: str) -> dict[str, Result]:
    """Returns the results by name: as many last parts of the paths as tell the folders apart.

    Raises:
        FiguresError: see :func:`read`; a workdir named twice; other images than the first run's.
    """
    places = [workdir.resolve() for workdir in workdirs]
    if twice := sorted({str(place) for place in places if places.count(place) > 1}):
        raise FiguresError(f"expected every workdir once, got {twice[0]} more than once")
    depths = itertools.count(1)
    depth = next(k for k in depths if len({place.parts[-k:] for place in places}) == len(places))
    names = ["/".join(place.parts[-depth:]) for place in places]
    results = {name: read(workdir, split) for name, workdir in zip(names, workdirs, strict=True)}
    first, *others = [(name, result.predictions) for name, result in results.items()]
    for name, table in others:
        ids, known = table.example_id, first[1].example_id
        if not (np.array_equal(ids, known) and np.array_equal(table.label, first[1].label)):
            raise FiguresError(
                f"expected runs evaluated on the same {split} images and labels, got {first[0]} "
                f"with {len(known)} images and {name} with {len(ids)}, {np.isin(ids, known).sum()} "
                "of them the same; draw them separately"
            )
    return results


def choose(table: Predictions, count: int | None) -> np.ndarray:
    """Returns ``count`` example ids, evenly spaced with the classes in their proportion, or all."""
    ids = table.example_id[np.argsort(table.label, kind="stable")]
    if count is None or count >= len(ids):
        return ids
    return ids[np.linspace(0, len(ids) - 1, count).round().astype(int)]


def robustness(name: str, result: Result, ids: np.ndarray) -> list[dict[str, Any]]:
    """Returns a run's accuracy and AUC on the given images, for every corruption and severity.

    Raises:
        FiguresError: the run's data do not hold these images.
    """
    run = restore(result.workdir)
    examples = run.data.examples
    chosen = examples.take(np.flatnonzero(np.isin(examples.example_id, ids)))
    if len(chosen) < len(ids):
        raise FiguresError(
            f"{result.workdir}: {len(ids) - len(chosen)} of {len(ids)} images in its predictions "
            "are not in its data; evaluate it again"
        )

    def scores(images: np.ndarray) -> dict[str, Any]:
        threshold = run.config.eval.threshold
        found = compute_metrics(chosen.label, sigmoid(run.predict(images)), threshold=threshold)
        return {key: found["metrics"][key]["value"] for key in ("accuracy", "auc")}

    rows, unchanged = [], scores(chosen.images)
    for corruption in CORRUPTIONS:
        print(f"{name}: {corruption}", file=sys.stderr)
        for severity in SEVERITIES:
            row = {"run": name, "corruption": corruption, "severity": severity, "n": len(chosen)}
            images = corrupt(chosen.images, corruption, severity, seed=SEED)
            rows.append(row | (scores(images) if severity else unchanged))
    return rows


def draw_tables(results: dict[str, Result], split: str, out: pathlib.Path) -> None:
    """Draws what needs no model."""
    stamps = notes(results)
    tables = {name: result.predictions for name, result in results.items()}
    figures.roc_curves(tables, out / "roc.png", f"ROC curves ({split})", stamps=stamps)
    figures.precision_recall_curves(
        tables, out / "precision_recall.png", f"Precision and recall ({split})", stamps=stamps
    )
    figures.confusion_matrices(
        {name: result.metrics for name, result in results.items()},
        out / "confusion.png",
        f"Confusion matrices ({split})",
        classes=next(iter(results.values())).config.data.classes,
        stamps=stamps,
    )
    rows = {name: result.rows for name, result in results.items()}
    figures.learning_curves(rows, out / "learning_curves.png", stamps=stamps)


def draw_robustness(
    results: dict[str, Result], split: str, out: pathlib.Path, count: int | None
) -> None:
    """Predicts disturbed images with every run; writes robustness.csv and robustness.png."""
    table = next(iter(results.values())).predictions
    ids = choose(table, count)
    positive = float(table.label[np.isin(table.example_id, ids)].mean())
    rows = {name: robustness(name, result, ids) for name, result in results.items()}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for found in rows.values() for row in found)
    write_text(out / "robustness.csv", text.getvalue())
    figures.robustness_curves(
        rows,
        out / "robustness.png",
        f"Accuracy on disturbed images ({split}, {len(ids)} images)",
        majority=max(positive, 1 - positive),
        stamps=[*notes(results), "severities 1 to 5:", *describe()],
    )


def notes(results: dict[str, Result]) -> list[str]:
    """Returns what must be said below every figure."""
    found = [stamp for result in results.values() for stamp in result.metrics["stamps"]]
    if any(result.config.data.source == "phantom" for result in results.values()):
        found.append("a synthetic phantom; a result on it says nothing about patients")
    return list(dict.fromkeys(found))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the parsed command line.

    Raises:
        UserError: it cannot be understood.
    """
    parser = Parser(__doc__)
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path, metavar="WORKDIR")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the figures")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--images", type=int, metavar="N", help="at most N for the robustness")
    parsed = parser.parse_args(arguments)
    if parsed.images is not None and parsed.images < 1:
        raise FiguresError(f"--images: expected 1 or more, got {parsed.images}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws the figures and returns the exit code."""
    options = parse(arguments)
    results = read_all(options.workdirs, options.split)
    prepare_jax()
    draw_tables(results, options.split, options.out)
    draw_robustness(results, options.split, options.out, options.images)
    print(f"figures and robustness.csv: {options.out}; {NOTICE}")
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
