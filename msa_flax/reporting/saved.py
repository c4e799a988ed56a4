"""The results of a run, read from its saved files and checked: nothing here needs a model."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msa_flax.auditing import findings
from msa_flax.evaluation.metrics import CLASSES, confusion, outcomes
from msa_flax.evaluation.predictions import Predictions, sigmoid
from msa_flax.evaluation.shapes import metrics_shape
from msa_flax.files import UserError, csv_rows, misshapen, read_json
from msa_flax.reporting import shapes
from msa_flax.reporting.recomputed import recompute
from msa_flax.run_files import RUN_SHAPE

SPLITS = ("train", "validation", "test")
_SAME_PROBABILITY = 0.01  # of a network in batches of other sizes or on another device
_ROUNDING = 1e-6  # of a probability in float32


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
        metrics: ``eval/<split>/metrics.json``, with all that follows from the predictions computed
            from these again.
        differences: what the files of the evaluation say and the predictions do not.
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
    differences: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The run's name, of its configuration."""
        return str(self.config.get("name") or self.workdir.name)

    @property
    def classes(self) -> tuple[str, str]:
        """Names of the labels 0 and 1."""
        return _classes(self.config)

    @property
    def threshold(self) -> float:
        """The probability at and above which the run predicts the positive class."""
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


def _classes(config: Mapping[str, Any]) -> tuple[str, str]:
    negative, positive = config.get("data", {}).get("classes", CLASSES)
    return negative, positive


def _config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = _read(read_json, path, shapes.CONFIG)["config"]
    if len(names := config.get("data", {}).get("classes", CLASSES)) != 2:
        raise ReportError(f"{path}: expected two names as config.data.classes, got {names}")
    return config


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
    config = _config(workdir / "config.json")
    metrics = _metrics(workdir, split, _classes(config))
    predictions = Predictions.read(folder / "predictions.csv")
    rows = _table(workdir / "splits.csv", ("example_id", "split"))
    splits = {row["example_id"]: row["split"] for row in rows}
    if split in SPLITS:  # other images are in no table of splits
        _check_ids(folder, split, predictions, splits)
    _check_rows(folder, split, predictions, metrics)
    optional = {
        name: _read(read_json, path, shape) if path.is_file() else {}
        for name, path, shape in (
            ("run", workdir / "run.json", RUN_SHAPE),
            ("audit", workdir / "audit/audit.json", findings.SHAPE),
            ("faithfulness", folder / "explanations/faithfulness.json", shapes.FAITHFULNESS),
        )
    }
    known: Any = {"run": optional["run"], "classes": _classes(config)}
    metrics, differences = recompute(workdir, split, metrics, predictions, **known)
    return SavedRun(
        workdir=workdir,
        split=split,
        config=config,
        history=_history(workdir / "metrics.jsonl"),
        sizes={name: sum(s == name for s in splits.values()) for name in SPLITS},
        metrics=metrics,
        predictions=predictions,
        explained=[
            image
            for name in ("explanations", "errors")
            for image in _explained(folder / name, predictions)
        ],
        differences=differences,
        **optional,
    )


def _metrics(workdir: Path, split: str, classes: tuple[str, str]) -> dict[str, Any]:
    path = workdir / "eval" / split / "metrics.json"
    if not path.is_file():
        raise ReportError(
            f"{workdir}: expected the evaluation of split {split!r}, got no "
            f"eval/{split}/metrics.json; run python -m msa_flax.evaluate --workdir {workdir} "
            + (f"--split {split}" if split in SPLITS else f"--data_root DIR --external {split}")
        )
    metrics: dict[str, Any] = _read(read_json, path, metrics_shape(classes))
    return metrics


def _check_rows(
    folder: Path, split: str, predictions: Predictions, metrics: Mapping[str, Any]
) -> None:
    """Refuses predictions that are not those of ``metrics.json``, naming a row where it can."""
    table = folder / "predictions.csv"
    wrong = np.abs(sigmoid(predictions.logit) - predictions.probability) > _ROUNDING
    for problem, rows in (
        (f"split {split!r}", predictions.split != split),
        ("the probability that belongs to the logit", wrong),
    ):
        if rows.any():
            name = str(predictions.example_id[rows][0])
            raise ReportError(
                f"{table}: expected {problem}, got another one in {int(rows.sum())} rows, for "
                f"instance {name!r}; evaluate again"
            )
    found = confusion(predictions.label, predictions.probability, metrics["threshold"])
    if found != metrics["confusion"]:
        raise ReportError(
            f"{folder}: expected metrics.json and predictions.csv of one evaluation, got the "
            f"confusion matrices {metrics['confusion']} and {found}; evaluate again"
        )
    if metrics.get("predictions_sha256", predictions.digest()) != predictions.digest():
        raise ReportError(
            f"{table}: expected the table that metrics.json was made from, got one whose ids, "
            "groups, families, labels or values were changed afterwards; evaluate again"
        )


def _read(read: Callable[..., Any], path: Path, *shape: Any) -> Any:
    try:
        return read(path, *shape)
    except UserError as error:
        raise ReportError(str(error)) from error


def _history(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ReportError(f"{path}: expected JSON in line {number}, got {error}") from error
        if problem := misshapen(rows[-1], shapes.HISTORY):
            raise ReportError(f"{path}: {problem} in line {number}; train again")
    return rows


def _table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    header, *rows = _read(csv_rows, path) or [[]]
    missing = [name for name in columns if name not in header]
    if missing or len(set(header)) < len(header):
        got = f"no {', '.join(missing)}" if header else "an empty file"
        raise ReportError(
            f"{path}: expected the columns {', '.join(columns)}, got {got}; make the file again"
        )
    for number, row in enumerate(rows, 2):
        if row and len(row) != len(header):
            raise ReportError(
                f"{path}: expected {len(header)} cells in row {number}, got {len(row)}; make the "
                "file again"
            )
    return [dict(zip(header, row, strict=True)) for row in rows if row]


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
