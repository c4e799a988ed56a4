"""Trains the rows of a table, one after the other or several at a time.

    python experiments/sweep.py paper1_table5 --root DIR --out runs [--seeds 0 1] [--rows resnet50]

The table is a file beside this one; its rows are trained into OUT/TABLE/ROW/seed-S. Finished runs
are left alone, interrupted ones continue. A row that cannot be trained (no weights, no network) is
named at the end, and the others are trained all the same. Without a network, say where weights are
(--pretrained mobilenet_v1=FILE.h5) or that there are none (--pretrained resnet50=none). --results
keeps the small files of every finished run, from which aggregate.py makes the table. On two cores
an epoch of MobileNet takes about a minute, one of ResNet50 four; README.md has the results.
"""

import argparse
import dataclasses
import gc
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from command_line import (
    Parser,
    add_pretrained,
    call,
    in_one_line,
    say_failures,
    use_pretrained,
)

from msa_flax.config import Config
from msa_flax.files import UserError

HERE = Path(__file__).parent
KEPT = ("run.json", "metrics.jsonl", "eval/validation/metrics.json", "eval/test/metrics.json")
# What two configurations may differ in and still read the same images.
_NOT_READING = (
    *("preprocess", "augment", "protocol", "holdout_group", "fold", "folds"),
    *("validation_fraction", "families", "allow_leakage"),
)


def table_files() -> dict[str, Path]:
    """Returns the tables beside this file by name: the files that define ROWS."""
    return {p.stem: p for p in sorted(HERE.glob("*.py")) if "\nROWS = " in p.read_text()}


def load_table(name: str) -> ModuleType:
    """Returns a table's module.

    Raises:
        UserError: there is no such table; names those there are.
    """
    if name not in table_files():
        raise UserError(f"expected a table out of {', '.join(table_files())}; got {name!r}")
    return importlib.import_module(name)


def configuration(table: ModuleType, row: str, seed: int, options: argparse.Namespace) -> Config:
    """Returns the configuration of one run, with what the command line changes."""
    config: Config = table.get_config(row)
    config.data.root, config.train.seed = options.root, seed
    if options.epochs:
        config.train.epochs = options.epochs
    use_pretrained(config, options.pretrained)
    return config.validate()


def train_one(workdir: Path, config: Config, loaded: dict[str, Any]) -> None:
    """Trains one run in this process; ``loaded`` keeps the last images read, for the next one."""
    import jax

    from msa_flax import data
    from msa_flax.models import check_network
    from msa_flax.results.training import train_run
    from msa_flax.training.workdir import check_workdir
    from msa_flax.training.xla import prepare_jax, trim_memory

    prepare_jax()
    check_network(config)
    check_workdir(workdir, config)
    if (workdir / KEPT[-1]).exists():
        return
    values = dataclasses.asdict(config.data)
    key = json.dumps({name: v for name, v in values.items() if name not in _NOT_READING})
    if key not in loaded:
        loaded.clear()
        loaded[key] = data.load(config.data)
    train_run(workdir, config, loaded[key])
    jax.clear_caches()
    gc.collect()  # a run's arrays lie in cycles, and a hundred runs of them do not fit
    trim_memory()


def keep(workdir: Path, folder: Path) -> None:
    """Copies a finished run's small files; paths lose what belongs to this machine only."""
    for name in KEPT:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(workdir / name, target)
    values = json.loads((workdir / "config.json").read_text())
    config = values["config"]
    config["data"]["root"] = _portable(config["data"]["root"])
    config["model"]["pretrained"] = _portable(config["model"]["pretrained"])
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def _portable(path: str) -> str:
    real = os.environ.get("MSA_FLAX_REALDATA")
    if real and Path(path).is_absolute() and Path(path).is_relative_to(Path(real).absolute()):
        return str(Path(path).relative_to(Path(real).absolute()))
    return Path(path).name


def runs(table: ModuleType, options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Yields row and seed of the runs asked for; rows that another table trains are left out.

    Raises:
        UserError: an unknown row; names those there are.
    """
    own = [row for row in table.ROWS if row not in getattr(table, "SHARED", {})]
    unknown = sorted(set(options.rows) - set(own))
    if unknown:
        raise UserError(f"expected rows out of {', '.join(own)}; got {', '.join(unknown)}")
    for seed in options.seeds:  # so that a sweep that is cut short has all rows of a seed
        for row in options.rows or own:
            yield row, seed


def sweep(options: argparse.Namespace) -> dict[str, str]:
    """Trains everything asked for in this process; returns what failed, and why."""
    table = load_table(options.table)
    loaded: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for row, seed in runs(table, options):
        name = f"{options.table}/{row}/seed-{seed}"
        try:
            print(f"== {name}", flush=True)
            workdir = options.out / name
            train_one(workdir, configuration(table, row, seed, options), loaded)
            if options.results:
                keep(workdir, options.results / name)
        except Exception as error:  # one row must not keep the others from being trained
            failed[name] = in_one_line(error)
    return failed


def in_processes(options: argparse.Namespace) -> dict[str, str]:
    """Trains everything asked for, each run in a process of its own, --jobs of them at a time."""

    def start(item: tuple[str, int]) -> tuple[str, str]:
        row, seed = item
        command = [sys.executable, __file__, options.table, f"--root={options.root}"]
        command += [f"--out={options.out}", "--rows", row, "--seeds", str(seed)]
        command += [f"--results={options.results}"] if options.results else []
        command += [f"--epochs={options.epochs}"] if options.epochs else []
        command += ["--pretrained", *options.pretrained] if options.pretrained else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stderr.strip().splitlines() or ["no message"]
        return f"{options.table}/{row}/seed-{seed}", lines[-1] if done.returncode else ""

    with ThreadPoolExecutor(options.jobs) as pool:
        found = pool.map(start, runs(load_table(options.table), options))
        return {name: reason for name, reason in found if reason}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the sweep; the exit code is 1 if a run failed."""
    parser = Parser(__doc__)
    parser.add_argument("table", help=f"one of {', '.join(table_files())}")
    parser.add_argument("--root", required=True, help="the folder that holds train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the workdirs")
    parser.add_argument("--rows", nargs="+", default=[], help="these rows only")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=0, help="instead of the table's own")
    add_pretrained(parser)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--results", type=Path, help="folder for every run's small files")
    options = parser.parse_args(arguments)
    return say_failures(in_processes(options) if options.jobs > 1 else sweep(options))


if __name__ == "__main__":
    sys.exit(call(main))
