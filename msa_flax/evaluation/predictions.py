"""The table of predictions: one row per image; every number is computed from it."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from msa_flax.evaluation.metrics import outcomes
from msa_flax.files import UserError, batches, csv_rows, csv_text, write_text

WORST = 24  # images of each outcome that a report shows, and errors that training explains
TEXT_COLUMNS = ("example_id", "split", "fold", "group", "family")
COLUMNS = (*TEXT_COLUMNS, "label", "logit", "probability")


class PredictionsError(UserError):
    """A table of predictions cannot be used; the message lists every reason."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Predictions of n images, keyed by example id; every field is an array [n].

    Building one checks it, so a table in memory is always a valid one. Order carries no meaning.

    Raises:
        PredictionsError: everything that is wrong with the values, in one message.
    """

    example_id: np.ndarray  # str, unique
    split: np.ndarray  # str: "train", "validation", "test", or the name of an external set
    fold: np.ndarray  # str, "" where the protocol has no folds
    group: np.ndarray  # str: series or patient, "" unknown
    family: np.ndarray  # str: source slice, "" unknown
    label: np.ndarray  # int: 1 fracture, 0 normal
    logit: np.ndarray  # float32, finite
    probability: np.ndarray  # float32, 0..1, of a fracture

    def __post_init__(self) -> None:
        columns = {name: np.asarray(getattr(self, name)) for name in COLUMNS}
        _raise_if(_problems(columns), "the predictions")
        for name, values in columns.items():
            # The table is frozen for its users; here it is still being built.
            object.__setattr__(self, name, values.astype(_DTYPES[name], copy=False))

    def __len__(self) -> int:
        return len(self.example_id)

    def take(self, rows: np.ndarray) -> "Predictions":
        """Returns the table of the given rows, in their order."""
        return Predictions(**{name: getattr(self, name)[rows] for name in COLUMNS})

    def worst_first(self, outcome: str, threshold: float) -> np.ndarray:
        """Returns the rows with an outcome, int [k], those first that it went worst with.

        Of fractures, missed or found, these are the ones of the lowest probability, and of normal
        images the ones of the highest; among equals the order of the ids decides.

        Args:
            outcome: "tp", "fn", "fp" or "tn".
            threshold: see :func:`msa_flax.evaluation.metrics.called_fractures`.
        """
        sign = 1 if outcome in ("fn", "tp") else -1
        order = np.lexsort((self.example_id, sign * self.probability))
        return order[outcomes(self.label, self.probability, threshold)[order] == outcome]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as CSV: columns as in :data:`COLUMNS`, rows sorted by example id.

        The same table gives the same bytes, and :meth:`read` gives back the same float32 values.
        """
        write_text(path, self._text())

    def digest(self) -> str:
        """Returns the SHA-256 of what :meth:`write` writes, whatever the order of the rows."""
        return hashlib.sha256(self._text().encode("utf-8", "surrogateescape")).hexdigest()

    def _text(self) -> str:
        table = self.take(np.argsort(self.example_id, kind="stable"))
        columns = {name: getattr(table, name).tolist() for name in COLUMNS}
        columns |= {name: map(float_text, columns[name]) for name in ("logit", "probability")}
        return csv_text(COLUMNS, zip(*columns.values(), strict=True))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Predictions":
        """Returns the table in a CSV file written by :meth:`write`, in the order of its rows.

        Raises:
            PredictionsError: the file is missing or empty, or a column or value is not as expected;
                all problems are listed.
        """
        columns, problems = _read_columns(pathlib.Path(path))
        problems += _problems(columns)
        _raise_if(problems, str(path))
        return cls(**columns)


def predict_logits(
    predict_fn: Callable[[np.ndarray], Any], images: np.ndarray, *, batch_size: int
) -> np.ndarray:
    """Returns one logit per image, calling ``predict_fn`` with batches of one fixed size.

    The last batch is filled up with black images whose results are discarded: no image is dropped,
    and a compiled function is compiled once. No image may influence another one's logit, as in a
    network with BatchNorm in inference mode.

    Args:
        predict_fn: images uint8 [batch_size, s, s] to logits [batch_size].
        images: uint8 [n, s, s]; n may be 0.
        batch_size: images per call, 1 or more.

    Returns:
        float32 [n], in the order of ``images``.

    Raises:
        ValueError: ``predict_fn`` does not return one number per image.
    """
    logits = []
    for batch, count in batches(images, batch_size):
        outputs = np.asarray(predict_fn(batch))
        if outputs.shape != (batch_size,):
            raise ValueError(f"predict_fn: expected shape ({batch_size},), got {outputs.shape}")
        logits.append(outputs[:count])
    return np.concatenate([np.zeros(0, np.float32), *logits]).astype(np.float32)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns the probability of a fracture, 1 / (1 + exp(-logit)), as float32.

    Computed in float64 from exp(-abs(logit)), which cannot overflow, and rounded once.
    """
    logits = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(logits))
    return (np.where(logits >= 0, 1.0, small) / (1.0 + small)).astype(np.float32)


def float_text(value: float) -> str:
    """Returns nine significant digits, which tell any two float32 values apart (IEEE 754)."""
    return f"{float(value):.9g}"


_DTYPES = dict.fromkeys(TEXT_COLUMNS, np.str_) | {
    "label": np.int64,
    "logit": np.float32,
    "probability": np.float32,
}


def _read_columns(path: pathlib.Path) -> tuple[dict[str, np.ndarray], list[str]]:
    try:
        header, *rows = csv_rows(path) or [[]]
    except UserError as error:
        raise PredictionsError(f"{error}; run evaluate first") from error
    if not header:
        raise PredictionsError(f"{path}: expected the columns {', '.join(COLUMNS)}, got nothing")
    problems = _header_problems(header)
    whole = [row for row in rows if len(row) == len(header)]
    if len(whole) < len(rows):
        problems.append(
            f"expected {len(header)} cells per row, got {len(rows) - len(whole)} rows with more or "
            "fewer"
        )
    cells = {name: [row[i] for row in whole] for i, name in enumerate(header) if name in COLUMNS}
    return {name: _parse(name, values) for name, values in cells.items()}, problems


def _header_problems(header: list[str]) -> list[str]:
    missing = [name for name in COLUMNS if name not in header]
    extra = [name for i, name in enumerate(header) if name not in COLUMNS or name in header[:i]]
    problems = [f"missing columns: {', '.join(missing)}"] if missing else []
    return problems + ([f"unexpected columns: {', '.join(extra)}"] if extra else [])


def _parse(name: str, cells: list[str]) -> np.ndarray:
    if name in TEXT_COLUMNS:
        return np.array(cells, np.str_)
    if name == "label":  # -1 is what no label may be, NaN what no number may be: both are reported
        return np.array([{"0": 0, "1": 1}.get(cell, -1) for cell in cells], np.int64)
    return np.array([_number(cell) for cell in cells], np.float64)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _problems(columns: Mapping[str, np.ndarray]) -> list[str]:
    """Returns what is wrong with those columns that are there."""
    shapes = {name: values.shape for name, values in columns.items()}
    if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) > 1:
        return [f"expected columns of one length, got the shapes {shapes}"]
    if not any(values.size for values in columns.values()):
        return ["expected at least one row, got none"]
    problems = []
    if "example_id" in columns:
        ids, counts = np.unique(columns["example_id"].astype(np.str_), return_counts=True)
        problems += _listed("example_id: expected every id once", ids[counts > 1])
        problems += _listed("example_id: expected a name", ids[ids == ""])
    for expected, name, is_wrong in _CHECKS:
        if name in columns:
            problems += _listed(
                f"{name}: expected {expected}", _named(columns, is_wrong(columns[name]))
            )
    return problems


def _named(columns: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Returns how to name the given rows: by id, or by number where there are no ids."""
    return columns["example_id"][rows] if "example_id" in columns else np.flatnonzero(rows) + 1


def _not_finite(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what overflows is infinite, and so is reported
        return ~np.isfinite(values.astype(np.float32))


_CHECKS: tuple[tuple[str, str, Callable[[np.ndarray], np.ndarray]], ...] = (
    ("0 or 1", "label", lambda values: ~np.isin(values, (0, 1))),
    ("a finite float32 number", "logit", _not_finite),
    ("a finite float32 number", "probability", _not_finite),
    ("0..1", "probability", lambda values: (values < 0) | (values > 1)),
)


def _listed(expected: str, names: np.ndarray) -> list[str]:
    if not len(names):
        return []
    shown = ", ".join(repr(str(name)) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{expected}; it is not so for {shown}{more}"]


def _raise_if(problems: list[str], what: str) -> None:
    if problems:
        raise PredictionsError(f"{what}: " + "; ".join(problems))
