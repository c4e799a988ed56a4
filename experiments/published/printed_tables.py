"""Tables of published metrics: CSV files with one row per model."""

import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Mapping, Sequence

from confusion_matrices import METRICS
from consistency import IGNORED, LARGEST, ConsistencyError, parse

NUMBERS = METRICS + IGNORED
COUNTS = ("positives", "negatives")
COLUMNS = ("name", *COUNTS, *NUMBERS)


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


def read_table(path: str | os.PathLike[str]) -> list[Row]:
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
        if not (cell.isascii() and cell.isdigit() and 1 <= int(cell[:9]) <= LARGEST):
            raise ConsistencyError(
                f"{name}: expected the number of images, 1 to {LARGEST}; "
                f"got {f'{cell!r:.60}' if cell else 'nothing'}"
            )
    printed = {name: cell for name, cell in filled.items() if name in NUMBERS}
    for name, cell in printed.items():
        parse(cell, name)
    if not set(printed) & set(METRICS):
        raise ConsistencyError(f"expected a metric that can be checked: {', '.join(METRICS)}")
    positives, negatives = (int(filled[name]) for name in COUNTS)
    return Row(name=filled["name"], positives=positives, negatives=negatives, printed=printed)
