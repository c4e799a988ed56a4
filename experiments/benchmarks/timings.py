"""Statistics of times that were measured in turns, and how they are shown."""

import dataclasses
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(slots=True)
class Series:
    """What one contestant did at one task; times are milliseconds per step or batch.

    Attributes:
        turns: mean of each turn, in order.
        singles: every time that was taken by itself.
        first_seconds: the first turn, which also builds and compiles; not among the others.
        units: how many steps or batches a turn has.
        peak_gib: largest resident memory.
        device_gib: largest memory on the accelerator.
    """

    units: int
    turns: list[float] = dataclasses.field(default_factory=list)
    singles: list[float] = dataclasses.field(default_factory=list)
    first_seconds: float = 0.0
    peak_gib: float = 0.0
    device_gib: float = 0.0

    @property
    def median(self) -> float:
        """The median turn."""
        return statistics.median(self.turns)

    @property
    def minimum(self) -> float:
        """The fastest turn."""
        return min(self.turns)

    @property
    def compile_seconds(self) -> float:
        """The first turn less the fastest."""
        return self.first_seconds - self.minimum * self.units / 1e3


@dataclasses.dataclass(frozen=True, slots=True)
class Ratio:
    """How two contestants compare: ``a`` times by ``b``'s."""

    medians: float
    minima: float
    pairs: tuple[float, ...]  # quartiles of the ratios of neighbouring turns

    @classmethod
    def of(cls, a: Series, b: Series) -> "Ratio":
        """Compares two series of the same rounds."""
        pairs = [x / y for x, y in zip(a.turns, b.turns, strict=True)]
        return cls(a.median / b.median, a.minimum / b.minimum, tuple(quartiles(pairs)[1:]))

    def cells(self) -> list[str]:
        """Returns the cells of a table: of medians, of minima, pair by pair."""
        pairs = ", ".join(f"{value:.2f}" for value in self.pairs)
        return [f"{self.medians:.2f}", f"{self.minima:.2f}", pairs]


def quartiles(values: Sequence[float]) -> list[float]:
    """Returns the minimum and the three quartiles."""
    if len(values) == 1:
        return [values[0]] * 4
    return [min(values), *statistics.quantiles(values, n=4, method="inclusive")]


def as_cell(values: Sequence[float]) -> str:
    """Returns minimum and quartiles as one cell; a single value alone."""
    shown = values if len(values) == 1 else quartiles(values)
    return " / ".join(short(value) for value in shown)


def short(value: float) -> str:
    """Returns three significant digits, or all those before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
