"""What versus.py found, in words and tables."""

import dataclasses
from collections.abc import Iterator

import costs
import timings
from contestants import CEILINGS, KINDS
from timings import Ratio, Series, short

from msa_flax.files import markdown_table

NAMES = {kind.key: kind.name for kind in KINDS}
PEERS = tuple(key for key in NAMES if key not in ("ours", *CEILINGS))
FOUR = "min / q1 / median / q3"
MET = (
    "A bar is met where both ratios meet it; the best PyTorch is the fastest form, for each ratio."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The series of one task at one batch size, by contestant; who could not take part, and why."""

    task: str
    batch: int
    size: int
    bf16: bool
    series: dict[str, Series]
    start_seconds: dict[str, float]
    missing: dict[str, str]

    def present(self, *keys: str) -> dict[str, Series]:
        """Returns the series of those of the keys that there are."""
        return {key: self.series[key] for key in keys if key in self.series}

    def rate(self, milliseconds: float) -> float:
        """Returns images per second."""
        return 1e3 * self.batch / milliseconds

    def ratio(self, peer: str) -> Ratio:
        """Returns ours / peer: of the time of training, of the images per second of prediction."""
        a, b = self.series["ours"], self.series[peer]
        return Ratio.of(a, b) if self.task == "train" else Ratio.of(b, a)

    def text(self) -> str:
        """Returns the section: times, ratios, distance from the machine's limits."""
        title = {"train": "Training step", "infer": "Prediction"}[self.task]
        return "\n\n".join(
            [
                f"### {title}, batch {self.batch}, {self.size} px, "
                f"{'bfloat16' if self.bf16 else 'float32'}",
                self._times(),
                *([self._ratios()] if "ours" in self.series and self.present(*PEERS) else []),
                self._limits(),
            ]
        )

    def _times(self) -> str:
        train = self.task == "train"
        header = ["", "images/s", f"ms, turns: {FOUR}", f"ms, one by one: {FOUR}", "compile s"]
        header += ["start s", "peak GiB", "GPU GiB"] if train else []
        rows = []
        for key, series in self.present("ours", *PEERS).items():
            row = [NAMES[key], short(self.rate(series.median)), timings.as_cell(series.turns)]
            row += [
                timings.as_cell(series.singles) if len(series.singles) > len(series.turns) else ""
            ]
            row += [short(series.compile_seconds)]
            row += [short(self.start_seconds[key]), f"{series.peak_gib:.2f}"] if train else []
            row += [f"{series.device_gib:.2f}" if series.device_gib else ""] if train else []
            rows.append(row)
        blank = [""] * (len(header) - 2)
        rows += [[NAMES[key], f"not available: {why}", *blank] for key, why in self.missing.items()]
        return markdown_table(header, rows)

    def _ratios(self) -> str:
        what = "time" if self.task == "train" else "images/s"
        header = [f"{what}, ours / peer", "of medians", "of minima", "pair by pair: q1, median, q3"]
        rows = [[NAMES[peer], *self.ratio(peer).cells()] for peer in self.present(*PEERS)]
        return markdown_table(header, rows)

    def _limits(self) -> str:
        gflop, gigabytes = costs.of(self.task, batch=self.batch, size=self.size, bf16=self.bf16)
        if not set(CEILINGS) <= self.series.keys():
            return f"Counted: {short(gflop)} GFLOP, {short(gigabytes)} GB."
        flops, copied = (1e3 / self.series[key].median for key in CEILINGS)
        least = max(gflop / flops, gigabytes / copied) * 1e3
        rows = []
        for key, series in self.present("ours", *PEERS).items():
            done, moved = gflop / series.median * 1e3, gigabytes / series.median * 1e3
            share = [f"{done / flops:.0%}", f"{moved / copied:.0%}"]
            cells = [short(done), share[0], short(moved), share[1], short(series.median / least)]
            rows.append([NAMES[key], *cells])
        header = ["", "GFLOP/s", "of the ceiling", "GB/s", "of the ceiling", "times the least"]
        return (
            f"Counted: {short(gflop)} GFLOP, {short(gigabytes)} GB. Ceilings, medians of this run: "
            f"matrix product {short(flops)} GFLOP/s, copy {short(copied)} GB/s; so at the least "
            f"{short(least)} ms.\n\n{markdown_table(header, rows)}"
        )


def bars(results: list[Measured]) -> str:
    """Returns the table of bars: what was asked for, and what was measured."""
    header = ["", "bar", "aim", "of medians", "of minima", "met"]
    return markdown_table(header, [row for result in results for row in _rows(result)])


def _rows(result: Measured) -> Iterator[list[str]]:
    torch = [key for key in PEERS if key.startswith("torch")]
    groups = (("Keras", ["keras"]), ("best PyTorch", torch))
    limits = {"train": ((1.0, 0.75), (0.8, 0.6)), "infer": ((1.25, 1.6), (1.0, 1.25))}[result.task]
    train = result.task == "train"
    ours = result.series.get("ours")
    for (name, keys), (bar, aim) in zip(groups, limits, strict=True):
        peers = result.present(*keys).values()
        if not ours or not peers:
            continue
        medians = ours.median / min(peer.median for peer in peers)
        minima = ours.minimum / min(peer.minimum for peer in peers)
        if train:
            label = f"training step, batch {result.batch}, ours / {name}"
            yield _row(label, bar, aim, medians, minima, at_most=True)
        else:
            label = f"prediction, images/s, batch {result.batch}, ours / {name}"
            yield _row(label, bar, aim, 1 / medians, 1 / minima, at_most=False)
    if train and result.present("ours", "keras").keys() == {"ours", "keras"}:
        memory = result.series["ours"].peak_gib / result.series["keras"].peak_gib
        label = f"peak memory of training, batch {result.batch}, ours / Keras"
        yield _row(label, 1.0, 0.7, memory, memory, at_most=True)


def _row(
    label: str, bar: float, aim: float, medians: float, minima: float, *, at_most: bool
) -> list[str]:
    sign = "<=" if at_most else ">="
    found = (medians, minima)
    met = all(value <= bar if at_most else value >= bar for value in found)
    reached = all(value <= aim if at_most else value >= aim for value in found)
    verdict = "yes, and the aim" if reached else "yes" if met else "no"
    return [label, f"{sign} {bar}", f"{sign} {aim}", *(f"{v:.2f}" for v in found), verdict]
