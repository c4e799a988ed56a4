"""What every injected fault needs: tiny runs of the real commands, and an exact comparison.

The reference is one run that nothing disturbed. A run that was disturbed and then asked again with
the same command must end in the same bytes: arrays of every checkpoint, metrics of every epoch,
splits, predictions, and metrics without the seconds that they took.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

CONFIG = (
    "--config.data.phantom_patients=20",
    "--config.data.image_size=32",
    "--config.model.alpha=0.1",
    "--config.train.batch_size=8",
    "--config.train.steps_per_dispatch=2",
    "--config.optim.schedule=constant",
)
_RESULTS = ("predictions.csv", "metrics.json")
_SAME = (
    *("metrics.jsonl", "splits.csv", "config.json"),
    *(f"eval/{split}/{name}" for split in ("validation", "test") for name in _RESULTS),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one injection."""

    injected: str  # what was done this time
    result: str  # a short class of results, counted in the table
    held: bool  # whether the program did what it must


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that has ended."""

    code: int  # exit code; negative: the signal that ended it
    text: str  # all it printed
    seconds: float = 0.0
    peak_mib: float = 0.0  # largest resident memory of the process

    @property
    def refused(self) -> bool:
        """Whether it ended as bad input must: exit code 2, and one sentence as the last word."""
        errors = [line for line in self.text.splitlines() if line.startswith("error: ")]
        return self.code == 2 and len(errors) == 1 and "Traceback" not in self.text

    @property
    def last(self) -> str:
        """The last line that it printed."""
        return (self.text.strip().splitlines() or ["(nothing)"])[-1][:300]


class Bench:
    """A folder in which the commands are run.

    Attributes:
        folder: everything is written below it.
        epochs: of each run.
    """

    def __init__(self, folder: Path, *, epochs: int = 5) -> None:
        self.folder, self.epochs = folder, epochs
        folder.mkdir(parents=True, exist_ok=True)

    def command(self, name: str, *arguments: str | Path) -> list[str]:
        """Returns the command line of ``python -m msa_flax.NAME``."""
        return [sys.executable, "-m", f"msa_flax.{name}", *map(str, arguments)]

    def train_command(self, workdir: Path, *more: str) -> list[str]:
        """Returns the command line that trains the tiny run in ``workdir``."""
        epochs = f"--config.train.epochs={self.epochs}"
        return self.command("train", "--workdir", workdir, *CONFIG, epochs, *more)

    def start(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Starts a command in a process group of its own, with what it prints in a file."""
        with log.open("wb") as file:
            return subprocess.Popen(
                command, stdout=file, stderr=file, env=self._environment, start_new_session=True
            )

    def run(self, command: list[str], *, limit: float = 300) -> Ended:
        """Runs a command to its end; one that takes longer than ``limit`` seconds is killed."""
        log, began = self.folder / f"log-{time.monotonic_ns()}.txt", time.monotonic()
        process = self.start(command, log)
        usage = None
        while usage is None:
            ended, status, rusage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                usage, process.returncode = rusage, os.waitstatus_to_exitcode(status)
            elif time.monotonic() - began > limit:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                time.sleep(0.02)
        text = log.read_text("utf-8", "replace")
        log.unlink()
        peak = usage.ru_maxrss / 1024
        seconds = time.monotonic() - began
        return Ended(code=process.returncode, text=text, seconds=seconds, peak_mib=peak)

    def train(self, workdir: Path, *more: str, limit: float = 300) -> Ended:
        """Trains the tiny run in ``workdir`` to its end."""
        return self.run(self.train_command(workdir, *more), limit=limit)

    @functools.cached_property
    def reference(self) -> Path:
        """A finished run that nothing has disturbed, made on first use."""
        workdir = self.folder / "reference"
        if not (workdir / "eval/test/metrics.json").exists():
            ended = self.train(workdir)
            if ended.code:
                raise RuntimeError(f"the undisturbed run failed: {ended.last}")
        return workdir

    @functools.cached_property
    def half(self) -> Path:
        """A run that SIGTERM has ended after its second epoch, made on first use."""
        workdir, log = self.folder / "half", self.folder / "half.txt"
        if not workdir.exists():
            process = self.start(self.train_command(workdir), log)
            wait_for(process, lambda: any(workdir.glob("checkpoints/last/2*")))
            process.send_signal(signal.SIGTERM)
            process.wait()
        return workdir

    def copy(self, of: Path, name: str) -> Path:
        """Returns a fresh copy of a run."""
        workdir = self.folder / name
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(of, workdir, symlinks=True)
        return workdir

    def new(self, name: str) -> Path:
        """Returns the path of a run that is not there yet."""
        workdir = self.folder / name
        shutil.rmtree(workdir, ignore_errors=True)
        return workdir

    def differences(self, workdir: Path, *, arrays: bool = True) -> list[str]:
        """Returns what differs between a run and the reference; empty if nothing does.

        Args:
            workdir: the run.
            arrays: whether its checkpoints are read; a damaged one cannot be.
        """
        want, have = _contents(self.reference, arrays), _contents(workdir, arrays)
        return sorted(
            name for name in want.keys() | have.keys() if want.get(name) != have.get(name)
        )

    def same_bytes(
        self, injected: str, workdir: Path, ended: Ended, *, arrays: bool = True
    ) -> Outcome:
        """Returns the outcome of a run that was disturbed, and then asked again to its end.

        Args:
            injected: what disturbed it.
            workdir: its folder.
            ended: the command that was to mend it.
            arrays: see :meth:`differences`.
        """
        if ended.code:
            return Outcome(injected=injected, result=f"exit {ended.code}: {ended.last}", held=False)
        differ = self.differences(workdir, arrays=arrays)
        result = f"differs in {', '.join(differ[:3])}" if differ else "continued to the same bytes"
        return Outcome(injected=injected, result=result, held=not differ)

    @property
    def _environment(self) -> dict[str, str]:
        own = {"MSA_FLAX_CACHE": str(self.folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
        compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(self.folder / "cache/xla"))
        quick = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
        return {**os.environ, **own, **quick, "JAX_COMPILATION_CACHE_DIR": compiled}


def wait_for(
    process: subprocess.Popen[bytes], condition: Callable[[], bool], *, limit: float = 240
) -> bool:
    """Waits until ``condition()`` holds; returns False if the process ended before."""
    end = time.monotonic() + limit
    while process.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.002)
    return False


def leftovers(workdir: Path) -> list[str]:
    """Returns temporary files that a run has left behind."""
    return [str(p.relative_to(workdir)) for p in workdir.rglob("*") if "tmp" in p.name]


def _contents(workdir: Path, arrays: bool) -> dict[str, str]:
    """Returns a digest of everything in a run that must not depend on what happened to it."""
    found = dict(_arrays(workdir)) if arrays else {}
    for name in _SAME:
        path = workdir / name
        if not path.exists():
            found[name] = "missing"
        elif name.endswith("metrics.json"):
            values = json.loads(path.read_text("utf-8"))
            values.pop("seconds", None)
            found[name] = json.dumps(values, sort_keys=True)
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _arrays(workdir: Path) -> Iterator[tuple[str, str]]:
    """Yields name and digest of every array of every checkpoint, read without our own reader."""
    import jax
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    for item in sorted(workdir.glob("checkpoints/*/*/*/_METADATA")):
        folder = item.parent
        with ocp.PyTreeCheckpointer() as reader:
            tree = reader.restore(folder.absolute())
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            array = np.ascontiguousarray(leaf)
            name = f"{folder.relative_to(workdir)}{jax.tree_util.keystr(path)}"
            digest = hashlib.sha256(array.tobytes()).hexdigest()
            yield name, f"{array.shape} {array.dtype} {digest}"
