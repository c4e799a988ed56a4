"""Tables of published metrics: CSV files, a row a model, checked against all confusion matrices."""

import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Mapping, Sequence

from msa_flax.evaluation import consistency
from msa_flax.evaluation.consistency import ConsistencyError, NearMiss, Reading, Verdict, Way
from msa_flax.evaluation.matrices import METRICS

NUMBERS = METRICS + consistency.IGNORED
COUNTS = ("positives", "negatives")
COLUMNS = ("name", *COUNTS, *NUMBERS)
NOTES = (
    "rounded: every metric has the printed digits. within one unit: every metric, when rounded, is "
    "at most one unit of the last digit away. A mean over folds or runs is not a confusion matrix "
    "and need not fit one."
)
_SHOWN = 4  # matrices of a reading


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is printed about one model.

    Attributes:
        name: of the model.
        positives: images of the first class.
        negatives: images of the second class.
        printed: the metrics that are reported, out of ``NUMBERS``, digit by digit.
    """

    name: str
    positives: int
    negatives: int
    printed: Mapping[str, str]


def read(path: str | os.PathLike[str]) -> list[Row]:
    """Returns the rows of a table; empty cells are metrics that are not reported.

    Raises:
        ConsistencyError: the file is missing or empty, a column is unknown, twice there or missing,
            or a row has a cell too many or too few, a name, count or value that is none, or no
            metric.
    """
    header, *lines = _lines(pathlib.Path(path))
    names = [name.strip().lower() for name in header[1]]
    if problem := _header_problem(names):
        raise ConsistencyError(f"{path}: {problem}")
    if not lines:
        raise ConsistencyError(f"{path}: expected a row below the header, got none")
    rows = []
    for number, cells in lines:
        try:
            rows.append(_row(names, [cell.strip() for cell in cells]))
        except ConsistencyError as error:
            raise ConsistencyError(f"{path}, line {number}: {error}") from error
    return rows


def check(rows: Sequence[Row]) -> str:
    """Returns the verdict of each row, as text.

    Raises:
        ConsistencyError: see :func:`msa_flax.evaluation.consistency.check`.
    """
    blocks, ignored = [], dict[str, None]()
    for row in rows:
        verdict = consistency.check(row.printed, row.positives, row.negatives, limit=_SHOWN)
        ignored |= dict.fromkeys(verdict.ignored)
        lines = "".join(f"  {line}\n" for line in _verdict(row, verdict))
        blocks.append(f"{row.name} ({row.positives} + {row.negatives} images)\n{lines}")
    unchecked = [f"{', '.join(ignored)}: not checked, no confusion matrix tells it."]
    return "".join([*blocks, "\n", " ".join([*(unchecked if ignored else []), NOTES]), "\n"])


def _lines(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    """Returns the lines that are not blank, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except OSError as error:
        raise ConsistencyError(f"{path}: expected a CSV file, got {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConsistencyError(f"{path}: expected a CSV file in UTF-8; {error}") from error
    if not lines:
        raise ConsistencyError(f"{path}: expected the columns {', '.join(COLUMNS)}; got nothing")
    return lines


def _header_problem(names: Sequence[str]) -> str:
    known = f"known are {', '.join(COLUMNS)}"
    if unknown := [name for name in names if name not in COLUMNS]:
        return f"unknown column {unknown[0]!r:.60}; {known}"
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        return f"column {twice[0]!r} is there twice"
    if missing := [name for name in ("name", *COUNTS) if name not in names]:
        return f"no column {missing[0]!r}; {known}"
    return ""


def _row(names: Sequence[str], cells: Sequence[str]) -> Row:
    if len(cells) != len(names):
        raise ConsistencyError(f"expected {len(names)} cells, got {len(cells)}")
    filled = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
    if "name" not in filled:
        raise ConsistencyError("name: expected the model's name, got nothing")
    for name in COUNTS:
        cell = filled.get(name, "")
        if not (cell.isascii() and cell.isdigit() and 1 <= int(cell[:9]) <= consistency.LARGEST):
            raise ConsistencyError(
                f"{name}: expected the number of images, 1 to {consistency.LARGEST}; "
                f"got {f'{cell!r:.60}' if cell else 'nothing'}"
            )
    printed = {name: cell for name, cell in filled.items() if name in NUMBERS}
    for name, cell in printed.items():
        consistency.parse(cell, name)
    if not set(printed) & set(METRICS):
        raise ConsistencyError(f"expected a metric that can be checked: {', '.join(METRICS)}")
    positives, negatives = (int(filled[name]) for name in COUNTS)
    return Row(name=filled["name"], positives=positives, negatives=negatives, printed=printed)


def _verdict(row: Row, verdict: Verdict) -> list[str]:
    if verdict.nearest is None:
        return [_fits(reading) for reading in verdict.readings]
    return [
        f"no confusion matrix fits; nearest: {_miss(row, verdict.nearest)}",
        *(
            f"no confusion matrix of these counts has {name} {row.printed[name]}, whatever the rest"
            for name in verdict.impossible
        ),
    ]


def _fits(reading: Reading) -> str:
    shown = "; ".join(map(_matrix, reading.matrices.tolist()))
    more = reading.count - len(reading.matrices)
    tolerance = {"rounded": "rounded", "one unit": "within one unit"}[reading.tolerance]
    return f"fits: {shown}{f'; {more} more' if more else ''}, {_way(reading.way)}, {tolerance}"


def _miss(row: Row, miss: NearMiss) -> str:
    wrong = (
        f"{name} {consistency.parse(row.printed[name], name).like(value)} "
        f"(printed {row.printed[name]})"
        for name, value in miss.contradictions.items()
    )
    return f"{_matrix(miss.matrix)}, {_way(miss.way)}, has {', '.join(wrong)}"


def _matrix(counts: Sequence[int]) -> str:
    return " ".join(
        f"{name} {count}" for name, count in zip(("TP", "FN", "FP", "TN"), counts, strict=True)
    )


def _way(way: Way) -> str:
    every = way.averaging == consistency.AVERAGINGS
    positive = "either" if len(way.positive) > 1 else way.positive[0]
    averaging = "any averaging" if every else " or ".join(way.averaging)
    return f"{averaging}, positive = {positive} class"
