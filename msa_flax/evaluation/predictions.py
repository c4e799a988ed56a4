"""The table of predictions: one row an image, and the artefact every number is computed from."""

import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from msa_flax.files import UserError, write_text

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
    split: np.ndarray  # str: "train", "val", "test"
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

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as CSV: columns as in :data:`COLUMNS`, rows sorted by example id.

        The same table gives the same bytes, and :meth:`read` gives back the same float32 values.
        """
        rows = [
            [_quoted(_FORMATS[name](getattr(self, name)[i])) for name in COLUMNS]
            for i in np.argsort(self.example_id, kind="stable")
        ]
        text = "".join(",".join(row) + "\n" for row in (COLUMNS, *rows))
        write_text(path, text)

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
    predict_fn: Callable[[np.ndarray], Any],
    images: np.ndarray,
    *,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Returns one logit an image, calling ``predict_fn`` with batches of one fixed size.

    The last batch is filled up with black images whose results are discarded: no image is dropped,
    and a compiled function is compiled once. No image may influence another one's logit, as in a
    network with BatchNorm in inference mode.

    Args:
        predict_fn: images uint8 [batch_size, s, s] to logits [batch_size].
        images: uint8 [n, s, s]; n may be 0.
        batch_size: images a call, 1 or more.
        progress: called after each batch with the number of images done and n.

    Returns:
        float32 [n], in the order of ``images``.

    Raises:
        ValueError: ``predict_fn`` does not return one number an image.
    """
    total = len(images)
    logits = np.empty(total, np.float32)
    for start in range(0, total, batch_size):
        batch = images[start : start + batch_size]
        count = len(batch)
        if count < batch_size:
            filler = np.zeros((batch_size - count, *batch.shape[1:]), batch.dtype)
            batch = np.concatenate([batch, filler])
        outputs = np.asarray(predict_fn(batch))
        if outputs.shape != (batch_size,):
            raise ValueError(f"predict_fn: expected shape ({batch_size},), got {outputs.shape}")
        logits[start : start + count] = outputs[:count]
        if progress is not None:
            progress(start + count, total)
    return logits


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns the probability of a fracture, 1 / (1 + exp(-logit)), as float32.

    Computed in float64 from exp(-abs(logit)), which cannot overflow, and rounded once.
    """
    logits = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(logits))
    return (np.where(logits >= 0, 1.0, small) / (1.0 + small)).astype(np.float32)


def _quoted(cell: str) -> str:
    # Python's csv.writer quotes a carriage return in some versions only, and the reader needs it.
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\r\n') else cell


def _float_text(value: np.float32) -> str:
    return f"{float(value):.9g}"  # nine significant digits tell any two float32 apart (IEEE 754)


_DTYPES = dict.fromkeys(TEXT_COLUMNS, np.str_) | {
    "label": np.int64,
    "logit": np.float32,
    "probability": np.float32,
}
_FORMATS: dict[str, Callable[..., str]] = dict.fromkeys(COLUMNS, str)
_FORMATS |= {"logit": _float_text, "probability": _float_text}


def _read_columns(path: pathlib.Path) -> tuple[dict[str, np.ndarray], list[str]]:
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise PredictionsError(
            f"{path}: expected a table of predictions, got {error.strerror}; run evaluate first"
        ) from error
    header, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    if not header:
        raise PredictionsError(f"{path}: expected the columns {', '.join(COLUMNS)}, got nothing")
    problems = _header_problems(header)
    whole = [row for row in rows if len(row) == len(header)]
    if len(whole) < len(rows):
        problems.append(
            f"expected {len(header)} cells a row, got {len(rows) - len(whole)} rows with more or "
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
    if "label" in columns:
        wrong = ~np.isin(columns["label"], (0, 1))
        problems += _listed("label: expected 0 or 1", _names(columns, wrong))
    for name in ("logit", "probability"):
        if name in columns:
            with np.errstate(over="ignore"):  # what overflows is reported here
                wrong = ~np.isfinite(columns[name].astype(np.float32))
            problems += _listed(f"{name}: expected a finite float32 number", _names(columns, wrong))
    if "probability" in columns:
        wrong = (columns["probability"] < 0) | (columns["probability"] > 1)
        problems += _listed("probability: expected 0..1", _names(columns, wrong))
    return problems


def _names(columns: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Returns how to name the given rows: by id, or by number where there are no ids."""
    return columns["example_id"][rows] if "example_id" in columns else np.flatnonzero(rows) + 1


def _listed(expected: str, names: np.ndarray) -> list[str]:
    if not len(names):
        return []
    shown = ", ".join(repr(str(name)) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{expected}; it is not so for {shown}{more}"]


def _raise_if(problems: list[str], what: str) -> None:
    if problems:
        raise PredictionsError(f"{what}: " + "; ".join(problems))
