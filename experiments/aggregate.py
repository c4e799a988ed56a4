"""Makes the papers' tables out of finished runs, so that no number is typed by hand.

    python experiments/aggregate.py experiments/results --into experiments/README.md

The folder is what sweep.py was given as --out or as --results. For every table with a finished run
in it this prints the paper's numbers beside ours, as markdown: the mean over seeds and, in
brackets, the smallest and the largest. With --into the tables replace what stands between the lines
``<!-- TABLE -->`` and ``<!-- /TABLE -->`` of that file. It takes less than a minute, because every
network is built once to count its operations; README.md has the tables that it has made.
"""

import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pages
from command_line import Parser, call
from network_costs import count_costs
from sweep import load_table, table_files

from msa_flax.config import Config
from msa_flax.files import NOTICE, UserError, markdown_table
from msa_flax.models import create_model
from msa_flax.weights.published import PUBLISHED

# MobileNetV2's ImageNet tensors with BatchNorm put back into a form that was published without it.
RE_EXPRESSED = "fa3b084a7fc661f7602d18c01217f1a77f540d8e608de3ccf8d88d4ca6c11bbd"
RANDOM = "from_random_weights"  # the marker of that table
_COUNTED: dict[str, list[str]] = {}
TITLES = {"auc": "AUC", "f1": "F1"}  # other metrics are headed by their names


class FinishedRun:
    """A finished run: its configuration, what it took, and its metrics by split."""

    def __init__(self, folder: Path) -> None:
        self.config = Config.from_dict(json.loads((folder / "config.json").read_text())["config"])
        self.run = json.loads((folder / "run.json").read_text())
        self.splits = {
            path.parent.name: json.loads(path.read_text())
            for path in sorted(folder.glob("eval/*/metrics.json"))
        }
        rows = (folder / "metrics.jsonl").read_text().splitlines()
        self.epochs = json.loads(rows[-1])["epoch"]

    def metric(self, name: str, split: str = "test") -> float:
        """Returns a metric's value; NaN where it is undefined."""
        value = self.splits[split]["metrics"][name]["value"]
        return math.nan if value is None else value

    @property
    def weights(self) -> str:
        """What the run started from."""
        report = self.run["weights"]
        if report is None:
            return "from scratch"
        published = {item.tensors for item in PUBLISHED.values()}
        if self.config.model.pretrained == "imagenet" or report["hash"] in published:
            return "ImageNet"
        if report["hash"] == RE_EXPRESSED:
            return "ImageNet, re-expressed BatchNorm"
        return str(report["source"])


def finished_runs(folder: Path, table: ModuleType, row: str) -> list[FinishedRun]:
    """Returns a row's finished runs in the order of their seeds."""
    found = sorted(
        (folder / _place(table, row)).glob("seed-*"),
        key=lambda p: int(p.name.removeprefix("seed-")),
    )
    return [FinishedRun(path) for path in found if (path / "eval/test/metrics.json").exists()]


def _place(table: ModuleType, row: str) -> str:
    """Returns the folder of a row's runs; tables may share a row's."""
    return str(getattr(table, "SHARED", {}).get(row, f"{table.__name__}/{row}"))


def spread(values: Sequence[float]) -> str:
    """Returns the mean, and smallest and largest in brackets where there are several values."""
    if any(math.isnan(value) for value in values):
        return "undefined"
    text = f"{statistics.mean(values):.4f}"
    return text if len(values) == 1 else f"{text} [{min(values):.4f}, {max(values):.4f}]"


def difference(runs: Sequence[FinishedRun], baseline: Sequence[FinishedRun], metric: str) -> str:
    """Returns the mean difference to another row, paired by seed, with its 95 % t interval."""
    from scipy import stats

    other = {run.config.train.seed: run for run in baseline}
    pairs = [run for run in runs if run.config.train.seed in other]
    values = [r.metric(metric) - other[r.config.train.seed].metric(metric) for r in pairs]
    if len(values) < 3:
        return f"needs 3 seeds, has {len(values)}"
    mean, error = statistics.mean(values), stats.sem(values)
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


def markdown(table: ModuleType, folder: Path) -> str:
    """Returns a table as markdown, or "" where none of its runs is finished."""
    by_row = {row: finished_runs(folder, table, row) for row in table.ROWS}
    if not any(by_row.values()):
        return ""
    baselines = getattr(table, "BASELINES", {})
    head = ["", *(TITLES.get(metric, metric) for metric in table.METRICS)]
    head += ["AUC - AUC without attention"] if baselines else []
    head += ["weights", "epochs", "seeds", "parameters", "GFLOP", "s a step", "peak GiB"]
    rows = [_cells(table, row, name, by_row) for row, name in table.ROWS.items()]
    return f"### {table.TITLE}\n\n{_notes(by_row)}\n\n{markdown_table(head, rows)}"


def _cells(
    table: ModuleType, row: str, name: str, by_row: dict[str, list[FinishedRun]]
) -> list[str]:
    runs, paper = by_row[row], table.PAPER.get(row, {})
    config: Config = runs[0].config if runs else table.get_config(row)
    cells = [name]
    for metric in table.METRICS:
        ours = spread([run.metric(metric) for run in runs]) if runs else "not run here"
        cells.append(f"{paper[metric]:g}; ours {ours}" if metric in paper else ours)
    if baselines := getattr(table, "BASELINES", {}):
        other = baselines.get(row)
        cells.append(difference(runs, by_row[other], "auc") if other and runs else "")
    measured = ["", "", "", "", ""]
    if runs:
        measured = [
            ", ".join(dict.fromkeys(run.weights for run in runs)),
            _range([run.epochs for run in runs]),
            " ".join(str(run.config.train.seed) for run in runs),
            _step_seconds(runs),
            f"{max(run.run['peak_memory_gib'] for run in runs):.1f}",
        ]
    return [*cells, *measured[:3], *_counted(config), *measured[3:]]


def from_random_weights(folder: Path) -> str:
    """Returns what networks without pretrained weights show of both splits, as markdown, or ""."""
    rows, seen = [], set()
    for table in map(load_table, table_files()):
        for row, name in table.ROWS.items():
            runs = [r for r in finished_runs(folder, table, row) if r.weights == "from scratch"]
            place = _place(table, row)
            if not runs or place in seen:
                continue
            seen.add(place)
            scores = [
                spread([run.metric("accuracy", split) for run in runs])
                for split in ("validation", "test")
            ]
            seeds = " ".join(str(run.config.train.seed) for run in runs)
            epochs = _range([run.epochs for run in runs])
            rows.append([name, table.TITLE.partition(":")[0], epochs, seeds, *scores])
    head = ["from random weights", "table", "epochs", "seeds", "validation accuracy"]
    return markdown_table([*head, "test accuracy"], rows) if rows else ""


def _counted(config: Config) -> list[str]:
    """Returns parameters and operations, counted once per network: that takes seconds."""
    key = repr((config.model, config.data.image_size))
    if key not in _COUNTED:
        cost = count_costs(create_model(config.model), image_size=config.data.image_size)
        _COUNTED[key] = [f"{cost.parameters:,}", f"{cost.flops / 1e9:.2f}"]
    return _COUNTED[key]


def _step_seconds(runs: Sequence[FinishedRun]) -> str:
    """Returns the median time of a training step on each kind of device."""
    by_kind: dict[str, list[float]] = {}
    for run in runs:
        if seconds := run.run["seconds"].get("step"):
            by_kind.setdefault(run.run["devices"][0].split(":")[0], []).append(seconds)
    return ", ".join(f"{statistics.median(s):.3f} ({kind})" for kind, s in by_kind.items())


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"


def _notes(by_row: dict[str, list[FinishedRun]]) -> str:
    runs = [run for found in by_row.values() for run in found]
    stamps = dict.fromkeys(s for run in runs for s in run.splits["test"]["stamps"])
    days = sorted({run.run["date"][:10] for run in runs})
    machines = dict.fromkeys(f"{run.run['machine']}, {run.run['devices'][0]}" for run in runs)
    reasons = dict.fromkeys(
        metric["interval_reason"]
        for run in runs
        for metric in run.splits["test"]["metrics"].values()
        if "group" in (metric.get("interval_reason") or "")
    )
    seeds = "several seeds: mean [smallest, largest]"
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    why = f"No 95 % interval over patients: {'; '.join(reasons)}. " if reasons else ""
    return (
        f"Test split; the paper's number; ours ({seeds}). {why}{when}, "
        f"{'; '.join(machines)}. Stamps: {', '.join(stamps) or 'none'}. {NOTICE}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables, or writes them into a file."""
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="what sweep.py wrote")
    parser.add_argument("--into", type=Path, help="a markdown file with marker lines")
    options = parser.parse_args(arguments)
    texts = {name: markdown(load_table(name), options.folder) for name in table_files()}
    texts[RANDOM] = from_random_weights(options.folder)
    if not any(texts.values()):
        raise UserError(f"expected finished runs below {options.folder}, found none")
    for name, text in texts.items():
        if text:
            pages.print_or_write(options.into, name, text if options.into else f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
