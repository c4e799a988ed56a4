"""Can published metrics be true: is there a confusion matrix that has them?

A table seldom says which class its precision belongs to, or whether it is a mean over the classes.
So every reading is tried, over all confusion matrices of the given class sizes: either class as the
positive one, and precision, recall and F1 of that class (``binary``), averaged over both
(``macro``) or weighted by their sizes (``weighted``, whose recall is the accuracy). Macro F1 is the
mean of the classes' F1. Specificity and negative predictive value belong to the positive class in
every reading.

The metric with the finest digits is searched for first, and the others in what it has left;
``confusion_matrices.py`` says how.

What this cannot do: a mean over folds, runs or more than two classes is not a confusion matrix, and
need not fit one; AUC does not follow from a matrix. A metric that is 0/0 (precision and F1 where
no image is predicted positive) matches no printed number: a table that prints 0 there fits nothing.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

import numpy as np
from confusion_matrices import AVERAGED, METRICS, SIDED, SLACK, Region, Space

from msa_flax.files import UserError

IGNORED = ("auc",)  # may be printed, is not checked
AVERAGINGS = ("binary", "macro", "weighted")
CLASSES = ("first", "second")
# How far a metric may be from the printed number, in units of its last digit. "one unit": when
# rounded it is at most one unit away, which covers digits that were cut off or rounded twice.
TOLERANCES = {"rounded": 0.5, "one unit": 1.5}
LARGEST = 100_000  # images of a class
_NUMBER = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\s*(%?)")
_CANDIDATES = 1_000_000  # matrices among which the nearest one is looked for


class ConsistencyError(UserError):
    """The numbers are not what a table of metrics can hold."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """A number as it was printed.

    Attributes:
        value: as a fraction.
        decimals: how many were printed.
        percent: whether it was printed in per cent.
    """

    value: float
    decimals: int
    percent: bool

    @property
    def unit(self) -> float:
        """What the last printed digit is worth, as a fraction; no less than float64 can tell."""
        return 10.0 ** -min(self.decimals + 2 * self.percent, 12)

    def like(self, value: float) -> str:
        """Returns another value of this metric as this one was printed."""
        return "undefined" if np.isnan(value) else f"{value * 100**self.percent:.{self.decimals}f}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A way to read a table, or several that give the same matrices.

    Attributes:
        averaging: out of ``AVERAGINGS``: all where no averaged metric is printed; macro and
            weighted where the classes are of one size.
        positive: out of ``CLASSES``: both where the classes are of one size, or no metric belongs
            to one of them; the counts are then the first's.
    """

    averaging: tuple[str, ...]
    positive: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """The confusion matrices that fit under one reading.

    Attributes:
        reading: how the table is read.
        tolerance: out of ``TOLERANCES``; what fits "rounded" is not repeated under "one unit".
        count: how many matrices there are.
        matrices: the first of them, TP, FN, FP, TN of the positive class, int [k, 4].
    """

    reading: Reading
    tolerance: str
    count: int
    matrices: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss:
    """The matrix with the fewest metrics that are off, and of those the one with the least error.

    Attributes:
        reading: how the table is read.
        matrix: TP, FN, FP, TN of the positive class.
        contradictions: the metrics that are off, with the matrix's values; NaN is undefined.
    """

    reading: Reading
    matrix: tuple[int, int, int, int]
    contradictions: Mapping[str, float]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What :func:`search` found.

    Attributes:
        fits: what fits, rounded ones first.
        nearest: None where something fits.
        impossible: where nothing fits: metrics that no matrix has, whatever the others are.
        ignored: what was printed and not checked.
    """

    fits: tuple[Fit, ...]
    nearest: NearMiss | None
    impossible: tuple[str, ...]
    ignored: tuple[str, ...]


def parse(text: str, metric: str) -> Printed:
    """Returns a printed metric; above 1, or with the sign %, it is in per cent.

    Raises:
        ConsistencyError: not a plain decimal number, or outside the metric's range.
    """
    match = _NUMBER.fullmatch(text.strip().replace("\N{MINUS SIGN}", "-"))
    if not match:
        raise ConsistencyError(
            f"{metric}: expected a number as printed, such as 0.9975 or 99.75; got {text!r:.60}"
        )
    number = Decimal(match[1])
    percent = bool(match[2]) or abs(number) > 1
    value = float(number / 100 if percent else number)
    low = -1 if metric == "mcc" else 0
    if not low <= value <= 1:
        raise ConsistencyError(
            f"{metric}: expected {low} to 1 or, in per cent, {100 * low} to 100; got {text!r:.60}"
        )
    return Printed(value=value, decimals=len(match[1].partition(".")[2]), percent=percent)


def search(
    printed: Mapping[str, str], n_positive: int, n_negative: int, *, limit: int = 1000
) -> SearchResult:
    """Returns which confusion matrices have the printed metrics, and under which reading.

    Args:
        printed: the metrics, out of ``METRICS`` and ``IGNORED``, with all their digits.
        n_positive: images of the first class, 1 to ``LARGEST``.
        n_negative: images of the second class.
        limit: how many matrices of a reading are listed; all are counted.

    Raises:
        ConsistencyError: an unknown metric, no metric, or a value or size out of range.
    """
    table = {name: parse(text, name) for name, text in printed.items() if name in METRICS}
    ignored = tuple(name for name in printed if name in IGNORED)
    if unknown := [name for name in printed if name not in METRICS + IGNORED]:
        known = ", ".join(METRICS + IGNORED)
        raise ConsistencyError(f"unknown metric {unknown[0]!r:.60}; known are {known}")
    if not table:
        raise ConsistencyError(f"expected at least one of {', '.join(METRICS)}; got none")
    if not all(1 <= size <= LARGEST for size in (n_positive, n_negative)):
        raise ConsistencyError(
            f"expected 1 to {LARGEST:,} images of each class, got {n_positive:,} and {n_negative:,}"
        )
    spaces = {
        reading: Space(
            n_positive=n_positive,
            n_negative=n_negative,
            averaging=reading.averaging[0],
            swapped=CLASSES[0] not in reading.positive,
        )
        for reading in _possible_readings(set(table), n_positive == n_negative)
    }
    found = [fit for r, space in spaces.items() for fit in _fits(r, space, table, limit)]
    found.sort(key=lambda fit: list(TOLERANCES).index(fit.tolerance))
    nearest, impossible = (None, ()) if found else _nearest(spaces, table)
    return SearchResult(fits=tuple(found), nearest=nearest, impossible=impossible, ignored=ignored)


def _possible_readings(metrics: set[str], balanced: bool) -> Iterator[Reading]:
    averagings: list[tuple[str, ...]] = [(name,) for name in AVERAGINGS]
    if not metrics & AVERAGED:
        averagings = [AVERAGINGS]
    elif balanced:
        averagings = [AVERAGINGS[:1], AVERAGINGS[1:]]
    for averaging in averagings:
        sided = metrics & SIDED or averaging == AVERAGINGS[:1]
        # Classes of one size may change places: the same four counts have the same metrics.
        for positive in [(name,) for name in CLASSES] if sided and not balanced else [CLASSES]:
            yield Reading(averaging=averaging, positive=positive)


def _fits(
    reading: Reading, space: Space, table: Mapping[str, Printed], limit: int
) -> Iterator[Fit]:
    region = space.all()
    for name, number in sorted(table.items(), key=lambda item: item[1].unit):
        region = space.within(region, name, number.value, TOLERANCES["one unit"] * number.unit)
        region = region.rows(region.low <= region.high)
    rounded = region
    for name, number in table.items():
        rounded = space.within(rounded, name, number.value, TOLERANCES["rounded"] * number.unit)
    for tolerance, part in (("rounded", rounded), ("one unit", region.without(rounded))):
        if part.count:
            matrices = np.stack(space.counts(*part.take(limit)), axis=1)
            yield Fit(reading=reading, tolerance=tolerance, count=part.count, matrices=matrices)


def _nearest(
    spaces: Mapping[Reading, Space], table: Mapping[str, Printed]
) -> tuple[NearMiss, tuple[str, ...]]:
    """Returns the nearest matrix where none fits, and the metrics that are impossible alone.

    Of the largest sets of metrics that fit together the matrix with the least error in the others;
    where not even one metric fits, with ten times the tolerance, and so on.
    """
    impossible: tuple[str, ...] | None = None
    for wider in (10.0**power for power in itertools.count()):
        regions = {
            reading: {
                name: space.within(
                    space.all(), name, number.value, wider * TOLERANCES["one unit"] * number.unit
                )
                for name, number in table.items()
            }
            for reading, space in spaces.items()
        }
        fits = {name for found in regions.values() for name in found if found[name].count}
        if impossible is None:
            impossible = tuple(name for name in table if name not in fits)
        for size in range(len(table), 0, -1):
            misses = [
                _best(reading, space, table, region)
                for reading, space in spaces.items()
                for names in itertools.combinations(table, size)
                if (region := _common([regions[reading][name] for name in names])).count
            ]
            if misses:
                return min(misses, key=lambda miss: miss[0])[1], impossible
    raise AssertionError(
        "unreachable"
    )  # every metric is defined somewhere, and within 1 of a value


def _common(regions: Sequence[Region]) -> Region:
    return functools.reduce(Region.both, regions)


def _best(
    reading: Reading, space: Space, table: Mapping[str, Printed], region: Region
) -> tuple[float, NearMiss]:
    """Returns the matrix of a region whose largest error is the least, and before it that error.

    Of a region of more than a million matrices only every so many are looked at.
    """
    tp, fp = region.take(_CANDIDATES, step=-(-region.count // _CANDIDATES))
    values = np.array([space.values(name, tp, fp) for name in table])
    error = np.abs(values - np.array([[number.value] for number in table.values()]))
    error = np.where(np.isnan(error), np.inf, error)
    best = int(np.argmin(error.max(axis=0)))
    true_positive, fn, false_positive, tn = (int(count[best]) for count in space.counts(tp, fp))
    reach = [TOLERANCES["one unit"] * number.unit + SLACK for number in table.values()]
    miss = NearMiss(
        reading=reading,
        matrix=(true_positive, fn, false_positive, tn),
        contradictions={
            name: float(values[i, best])
            for i, name in enumerate(table)
            if error[i, best] > reach[i]
        },
    )
    return float(error[:, best].max()), miss
