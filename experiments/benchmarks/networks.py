"""The backbones of the papers side by side: what versus.py --networks found, kept and shown."""

import dataclasses
import json
import pathlib

import timings
from report import PEERS, Measured
from timings import short

from msa_flax import files, models

BACKBONES = tuple(models.MODELS)
BARS = {"train": (1.0, 0.8), "infer": (1.25, 1.6)}  # bar and aim, ours / Keras
SLOWEST_START = 2.0  # first step, ours / Keras
METHOD = """\
Each network without top, global average pooling, one logit; the contestants count the same number
of parameters and running statistics. Keras's are those of `keras.applications`, and the last two
as a Keras user writes them from the tables of their papers; PyTorch's have the same layers. A turn
is {steps} training steps, which ours makes in one compiled call, or as many predictions as above;
everything else is as above. "First step": from the start of the process to the end of the first
step, imports, initialisation and compilation included, nothing being cached.
"""
MET = """\
Bars, of medians: a training step takes at most as long as Keras's (aim: 0.8 of it), a prediction of
16 images has at least 1.25 times Keras's images a second (aim: 1.6), and the first step comes
within twice Keras's time. Batch 1 has no bar.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Compared:
    """What was measured of one network."""

    versions: str
    parameters: int
    found: list[Measured]


def read(path: pathlib.Path | None) -> dict[str, Compared]:
    """Returns what a record holds by network; nothing where there is none."""
    if path is None or not path.exists():
        return {}
    found = {}
    for network, values in json.loads(path.read_text()).items():
        measured = [
            Measured(**one | {"series": {k: timings.Series(**s) for k, s in one["series"].items()}})
            for one in values["found"]
        ]
        found[network] = Compared(values["versions"], values["parameters"], measured)
    return found


def write(path: pathlib.Path | None, record: dict[str, Compared]) -> None:
    """Writes a record, where one is kept."""
    if path is not None:
        values = {network: dataclasses.asdict(found) for network, found in record.items()}
        files.write_text(path, json.dumps(values, indent=1) + "\n")


def table(record: dict[str, Compared]) -> str:
    """Returns the times of every network, the ratios, and which bars are met."""
    four = "min / q1 / median / q3"
    header = ["", "task", f"ours, ms: {four}", f"Keras, ms: {four}", "PyTorch, best median, ms"]
    header += ["speed or time, ours / Keras: medians", "minima", "ours / PyTorch", "met"]
    header += ["first step, s: ours / Keras", "peak GiB: ours / Keras"]
    rows = [[network, *_row(measured)] for network, one in record.items() for measured in one.found]
    return files.markdown_table(header, rows)


def _row(measured: Measured) -> list[str]:
    train = measured.task == "train"
    what = f"training step of {measured.batch}" if train else f"prediction of {measured.batch}"
    keys = ("ours", "keras")
    cells = [what, *(timings.as_cell(s.turns) for s in measured.present(*keys).values())]
    torch = measured.present(*(key for key in PEERS if key != "keras"))
    best = min((series.median for series in torch.values()), default=0)
    cells += [short(best) if best else ""]
    ratio = measured.ratio("keras")
    ours = measured.series["ours"].median
    cells += [f"{ratio.medians:.2f}", f"{ratio.minima:.2f}"]
    beside = ours / best if train and best else best / ours
    cells += [f"{beside:.2f}" if best else "", _verdict(measured, ratio.medians)]
    if not train:
        return [*cells, "", ""]
    first = [first_step(measured, key) for key in keys]
    peak = [measured.series[key].peak_gib for key in keys]
    late = "" if first[0] <= SLOWEST_START * first[1] else ", more than twice"
    return [
        *cells,
        f"{first[0]:.1f} / {first[1]:.1f}{late}",
        f"{peak[0]:.2f} / {peak[1]:.2f}",
    ]


def first_step(measured: Measured, key: str) -> float:
    """Returns the seconds from the start of a contestant's process to the end of its first step."""
    series = measured.series[key]
    return measured.start_seconds[key] + series.compile_seconds + series.minimum / 1e3


def _verdict(measured: Measured, ratio: float) -> str:
    if measured.task == "infer" and measured.batch == 1:
        return ""
    bar, aim = BARS[measured.task]
    sign = 1 if measured.task == "train" else -1  # less time is better, and more images
    reached = [sign * ratio <= sign * limit for limit in (bar, aim)]
    return "yes, and the aim" if reached[1] else "yes" if reached[0] else "no"
