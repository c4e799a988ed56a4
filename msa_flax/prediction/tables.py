"""The tables of a prediction: slices.csv, series.csv and refused.csv.

They are written row by row from the journal, in the order in which slices were predicted.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msa_flax.evaluation.predictions import float_text
from msa_flax.files import csv_text, written_whole
from msa_flax.prediction.score import NOT_COMPARED, UNLIKE, Row, Scorer

SLICES: tuple[str, ...] = ("path", "patient", "study", "series", "position_mm", "probability")
SLICES += ("calibrated", "decision", "flags")
SERIES: tuple[str, ...] = ("patient", "study", "series", "slices", "probability", "calibrated")
SERIES += ("decision", "top_slices", "flags")
REFUSED = ("path", "reason")
TOP = 3  # slices that are named as those that drove the score of a series
# Of a series. One slice in a hundred is taken for unlike by chance, and neighbours together.
_MOST_UNLIKE = 0.1


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a table row by row, whole or not at all; see :func:`msa_flax.files.csv_text`."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(csv_text(columns, ()).encode())
        for row in rows:
            line = csv_text([_cell(name, row[name]) for name in columns], ())
            file.write(line.encode("utf-8", "surrogateescape"))


def _cell(name: str, value: Any) -> Any:
    if value is None or name not in ("probability", "calibrated", "position_mm"):
        return value
    return f"{value:.3f}" if name == "position_mm" else float_text(value)


def by_series(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yields the rows of each series."""
    for _, members in itertools.groupby(rows, key=lambda row: (row["study"], row["series"])):
        yield list(members)


def top_slices(rows: Sequence[Row]) -> list[Row]:
    """Returns the slices of a series that drive its score: those that are not flagged, if any."""
    scored = [row for row in rows if not row["flags"]]
    return sorted(scored or rows, key=lambda row: -row["probability"])[:TOP]


def series_row(scorer: Scorer, rows: Sequence[Row], odd: Sequence[str]) -> Row:
    """Returns the row of one series: the highest probability of its slices, and what drove it.

    The maximum keeps what the operating point promises: a series is positive where one of its
    slices is. Slices that are flagged are left out; where they are more than a tenth, or all, the
    series is flagged itself.

    Args:
        scorer: what scored the slices.
        rows: of the slices, one or more.
        odd: what is odd about the series as a whole.
    """
    flags = list(odd)
    for name in (UNLIKE, NOT_COMPARED):
        count = sum(name in row["flags"].split(";") for row in rows)
        if count > _MOST_UNLIKE * len(rows):
            flags.append(f"{name}: {count} of {len(rows)} slices")
    top = top_slices(rows)
    return {
        **{name: rows[0][name] for name in ("patient", "study", "series")},
        "slices": len(rows),
        "probability": top[0]["probability"],
        "calibrated": top[0]["calibrated"],
        "decision": scorer.decide(top[0]["probability"], flags),
        "top_slices": ";".join(row["path"] for row in top),
        "flags": ";".join(flags),
    }
