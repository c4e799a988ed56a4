"""The results of a run, read from its saved files and checked: nothing here needs a model."""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msa_flax.evaluation.metrics import confusion, outcomes
from msa_flax.evaluation.predictions import Predictions
from msa_flax.files import UserError

SPLITS = ("train", "validation", "test")
_SAME_PROBABILITY = 0.01  # of a network in batches of other sizes or on another device
_NEEDED = ("confusion", "metrics", "n", "stamps", "threshold")


class ReportError(UserError):
    """A report cannot be made from these files; the message says why and what to do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedImage:
    """One explained image: row of the predictions, and where its pictures are."""

    row: int
    folder: Path
    stem: str  # a plain file name; the pictures are <stem>.<what>.png
    methods: tuple[str, ...]  # of which there are maps, <stem>.<method>-<target>.png


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SavedRun:
    """The files of a workdir that a report about one split is made from.

    Attributes:
        workdir: its folder.
        split: what was evaluated.
        config: ``config.json``, without its schema version.
        run: ``run.json``; empty if there is none.
        history: rows of ``metrics.jsonl``.
        sizes: images by split, from ``splits.csv``.
        metrics: ``eval/<split>/metrics.json``.
        predictions: ``eval/<split>/predictions.csv``.
        explained: the images in the ``explanations.csv`` of ``eval/<split>/explanations`` and
            ``eval/<split>/errors``.
        audit: ``audit/audit.json``; empty if there is none.
        faithfulness: ``eval/<split>/explanations/faithfulness.json``; empty if there is none.
    """

    workdir: Path
    split: str
    config: Mapping[str, Any]
    run: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    sizes: Mapping[str, int]
    metrics: Mapping[str, Any]
    predictions: Predictions
    explained: Sequence[ExplainedImage]
    audit: Mapping[str, Any]
    faithfulness: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The run's name, of its configuration."""
        return str(self.config.get("name") or self.workdir.name)

    @property
    def classes(self) -> tuple[str, str]:
        """Names of the labels 0 and 1."""
        negative, positive = self.config.get("data", {}).get("classes", ("normal", "fracture"))
        return str(negative), str(positive)

    @property
    def threshold(self) -> float:
        """The probability at and above which the run predicts a fracture."""
        return float(self.metrics["threshold"])

    @property
    def step(self) -> int | None:
        """The step of the best checkpoint; None where the folder holds no checkpoint."""
        names = [path.name for path in (self.workdir / "checkpoints/best").glob("*")]
        return max((int(name) for name in names if name.isdigit()), default=None)

    @property
    def outcome(self) -> np.ndarray:
        """What each image is at the run's threshold, "tp", "fn", "fp" or "tn", str [n]."""
        return outcomes(self.predictions.label, self.predictions.probability, self.threshold)


def read_run(workdir: Path, split: str) -> SavedRun:
    """Returns what a workdir holds about one split.

    Raises:
        ReportError: a file is missing, damaged, or of another run.
        PredictionsError: the predictions are no valid table.
    """
    if not (workdir / "config.json").is_file():
        raise ReportError(
            f"--workdir: expected a folder that msa_flax.train has written, got {str(workdir)!r} "
            "without config.json"
        )
    folder = workdir / "eval" / split
    metrics = _metrics(workdir, split)
    predictions = Predictions.read(folder / "predictions.csv")
    rows = _table(workdir / "splits.csv", ("example_id", "split"))
    splits = {row["example_id"]: row["split"] for row in rows}
    _check_ids(folder, split, predictions, splits)
    found = confusion(predictions.label, predictions.probability, metrics["threshold"])
    if found != metrics["confusion"]:
        raise ReportError(
            f"{folder}: expected metrics.json and predictions.csv of one evaluation, got the "
            f"confusion matrices {metrics['confusion']} and {found}; evaluate again"
        )
    optional = {
        name: _json(path) if path.is_file() else {}
        for name, path in (
            ("run", workdir / "run.json"),
            ("audit", workdir / "audit/audit.json"),
            ("faithfulness", folder / "explanations/faithfulness.json"),
        )
    }
    return SavedRun(
        workdir=workdir,
        split=split,
        config=_json(workdir / "config.json").get("config", {}),
        history=_history(workdir / "metrics.jsonl"),
        sizes={name: sum(s == name for s in splits.values()) for name in SPLITS},
        metrics=metrics,
        predictions=predictions,
        explained=[
            image
            for name in ("explanations", "errors")
            for image in _explained(folder / name, predictions)
        ],
        **optional,
    )


def _metrics(workdir: Path, split: str) -> dict[str, Any]:
    path = workdir / "eval" / split / "metrics.json"
    if not path.is_file():
        raise ReportError(
            f"{workdir}: expected the evaluation of split {split!r}, got no "
            f"eval/{split}/metrics.json; run python -m msa_flax.evaluate --workdir {workdir} "
            f"--split {split}"
        )
    metrics = _json(path)
    if missing := [key for key in _NEEDED if key not in metrics]:
        raise ReportError(
            f"{path}: expected the metrics of a split, got no {', '.join(missing)}; evaluate again"
        )
    return metrics


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        got = "an empty file" if path.is_file() and not path.stat().st_size else str(error)
        raise ReportError(f"{path}: expected JSON, got {got}; make the file again") from error
    if not isinstance(values, dict):
        raise ReportError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


def _history(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ReportError(f"{path}: expected JSON in line {number}, got {error}") from error
    return [row for row in rows if isinstance(row, dict)]


def _table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ReportError(f"{path}: expected a table, got {error.strerror}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        got = f"no {', '.join(missing)}" if text else "an empty file"
        raise ReportError(
            f"{path}: expected the columns {', '.join(columns)}, got {got}; make the file again"
        )
    return [row for row in reader if all(row[name] is not None for name in columns)]


def _check_ids(
    folder: Path, split: str, predictions: Predictions, splits: Mapping[str, str]
) -> None:
    expected = {name for name, part in splits.items() if part == split}
    got = set(predictions.example_id.tolist())
    if got != expected:
        raise ReportError(
            f"{folder / 'predictions.csv'}: expected the {len(expected)} images that splits.csv "
            f"has in {split!r}, got {len(got)}, {len(got - expected)} of them not among these: "
            "predictions of another run; evaluate this one again"
        )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _explained(folder: Path, predictions: Predictions) -> list[ExplainedImage]:
    path = folder / "explanations.csv"
    if not path.is_file():
        return []
    rows = {name: i for i, name in enumerate(predictions.example_id.tolist())}
    listed = _table(path, ("example_id", "probability", "stem", "method"))
    strange = [
        row["example_id"]
        for row in listed
        if row["example_id"] not in rows
        or not all(re.fullmatch(r"[A-Za-z0-9_-]{1,128}", row[key]) for key in ("stem", "method"))
    ]
    if strange:
        raise ReportError(
            f"{path}: expected images of predictions.csv, got {len(strange)} others, for instance "
            f"{strange[0]!r}: explanations of another run; explain this one again"
        )
    for row in listed:
        evaluated = float(predictions.probability[rows[row["example_id"]]])
        if not abs(_number(row["probability"]) - evaluated) <= _SAME_PROBABILITY:
            raise ReportError(
                f"{path}: expected the probabilities of predictions.csv, got "
                f"{row['probability']} for {row['example_id']!r} in place of {evaluated:.6f}: "
                "explanations of another checkpoint; explain this one again"
            )
    methods: dict[tuple[str, str], list[str]] = {}
    for row in listed:
        methods.setdefault((row["example_id"], row["stem"]), []).append(row["method"])
    return [
        ExplainedImage(
            row=rows[name], folder=folder, stem=stem, methods=tuple(dict.fromkeys(names))
        )
        for (name, stem), names in methods.items()
    ]
