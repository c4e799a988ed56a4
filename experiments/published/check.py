"""Looks for the confusion matrices behind published metrics; they need not exist.

    python experiments/published/check.py [TABLE.csv ...]

Says for each row of a table whether any confusion matrix of the given class sizes has the printed
metrics: every matrix that has them, how the metrics must be read for it (of which class, or how
averaged) and how exact it is. Where there is none, it names the nearest matrix and the metrics that
contradict it. Without a table it checks all tables beside this file. It takes a few seconds and
reads no run; README.md in the folder above has what it says about the papers' tables.

A table has the columns name, positives, negatives (images of the first and of the second class) and
any of accuracy, precision, recall, specificity, f1, npv, balanced_accuracy, mcc and auc, which is
not checked. Copy the numbers with all digits that are printed. A number above 1 or with the sign %
is in per cent. Leave a cell empty where a metric is not reported.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import consistency
from consistency import Fit, NearMiss, Reading, SearchResult
from printed_tables import Row, read_table

from msa_flax.files import NOTICE, UserError

NOTES = (
    "rounded: every metric has the printed digits. within one unit: every metric, when rounded, is "
    "at most one unit of the last digit away. A mean over folds or runs is not a confusion matrix "
    "and need not fit one."
)
_SHOWN = 4  # matrices of a reading


def describe(rows: Sequence[Row]) -> str:
    """Returns as text what was found for each row.

    Raises:
        ConsistencyError: see :func:`consistency.search`.
    """
    blocks, ignored = [], dict[str, None]()
    for row in rows:
        result = consistency.search(row.printed, row.positives, row.negatives, limit=_SHOWN)
        ignored |= dict.fromkeys(result.ignored)
        lines = "".join(f"  {line}\n" for line in _result(row, result))
        blocks.append(f"{row.name} ({row.positives} + {row.negatives} images)\n{lines}")
    unchecked = [f"{', '.join(ignored)}: not checked, no confusion matrix tells it."]
    return "".join([*blocks, "\n", " ".join([*(unchecked if ignored else []), NOTES]), "\n"])


def _result(row: Row, result: SearchResult) -> list[str]:
    if result.nearest is None:
        return [_fit(fit) for fit in result.fits]
    return [
        f"no confusion matrix fits; nearest: {_near_miss(row, result.nearest)}",
        *(
            f"no confusion matrix of these counts has {name} {row.printed[name]}, whatever the rest"
            for name in result.impossible
        ),
    ]


def _fit(fit: Fit) -> str:
    shown = "; ".join(map(_matrix, fit.matrices.tolist()))
    more = fit.count - len(fit.matrices)
    tolerance = {"rounded": "rounded", "one unit": "within one unit"}[fit.tolerance]
    return f"fits: {shown}{f'; {more} more' if more else ''}, {_reading(fit.reading)}, {tolerance}"


def _near_miss(row: Row, miss: NearMiss) -> str:
    wrong = (
        f"{name} {consistency.parse(row.printed[name], name).like(value)} "
        f"(printed {row.printed[name]})"
        for name, value in miss.contradictions.items()
    )
    return f"{_matrix(miss.matrix)}, {_reading(miss.reading)}, has {', '.join(wrong)}"


def _matrix(counts: Sequence[int]) -> str:
    return " ".join(
        f"{name} {count}" for name, count in zip(("TP", "FN", "FP", "TN"), counts, strict=True)
    )


def _reading(reading: Reading) -> str:
    every = reading.averaging == consistency.AVERAGINGS
    positive = "either" if len(reading.positive) > 1 else reading.positive[0]
    averaging = "any averaging" if every else " or ".join(reading.averaging)
    return f"{averaging}, positive = {positive} class"


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the tables and returns the exit code; several tables are told apart by a heading."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{NOTICE}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", type=Path, metavar="TABLE.csv")
    tables = parser.parse_args(arguments).tables
    tables = tables or sorted(Path(__file__).parent.glob("*.csv"))
    try:
        texts = [describe(read_table(table)) for table in tables]
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    for table, text in zip(tables, texts, strict=True):
        print(f"# {table.stem}\n{text}" if len(tables) > 1 else text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
