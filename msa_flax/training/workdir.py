"""The folder of a run: who may write to it, its log, and what it says about the run.

``config.json`` is the configuration. ``run.json`` holds what a reader needs to know to believe the
results: versions, devices, commit, seed, data, weights, and how long it took.
"""

import contextlib
import fcntl
import importlib.metadata
import logging
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from msa_flax.config import Config, changed_fields
from msa_flax.files import UserError, flatten, read_json, write_json

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "numpy",
    "opencv-python",
    "clu",
)


class WorkdirError(UserError):
    """The workdir belongs to another run, or cannot be written."""


def check_workdir(workdir: Path, config: Config) -> None:
    """Refuses a workdir whose run has another configuration, before anything is written.

    Raises:
        WorkdirError: names the fields that differ, with both values.
    """
    path = workdir / "config.json"
    if workdir.exists() and not workdir.is_dir():
        raise WorkdirError(f"--workdir: expected a folder, got the file {workdir}")
    if path.exists():
        old, new = read_json(path)["config"], config.to_dict()
        if fields := changed_fields(old, new):
            was, now = flatten(old), flatten(new)
            shown = ", ".join(f"{f} ({was.get(f)!r}, now {now.get(f)!r})" for f in fields)
            raise WorkdirError(
                f"{workdir} holds a run that differs in {shown}; use another --workdir "
                "(only more train.epochs may be asked of a run that exists)"
            )
    elif workdir.exists() and any(workdir.iterdir()):
        raise WorkdirError(
            f"--workdir: expected a new, empty or earlier run's folder, {workdir} holds other files"
        )
    parent = next(p for p in (workdir, *workdir.absolute().parents) if p.exists())
    if not os.access(parent, os.W_OK):
        raise WorkdirError(f"--workdir: {parent} cannot be written to")


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Makes the workdir, and keeps other processes from training in it at the same time.

    Raises:
        WorkdirError: another process is training in it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise WorkdirError(f"another process is training in {workdir}; wait for it") from error
        yield


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Logs into a file too; what is too long for a terminal goes there only (``msa_flax.file``)."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    loggers = [logging.getLogger("msa_flax"), logging.getLogger("msa_flax.file")]
    loggers[1].propagate = False
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def record_start(workdir: Path, config: Config, facts: dict[str, Any], *, seconds: float) -> None:
    """Writes config.json and run.json, or brings them up to date where a run is continued.

    Args:
        workdir: the folder of the run.
        config: its configuration.
        facts: what else run.json says, "data_fingerprint" among it.
        seconds: what the preparation took.

    Raises:
        WorkdirError: the run was started with other images or labels.
    """
    earlier, found = read_json(workdir / "run.json"), facts["data_fingerprint"]
    if earlier and earlier["data_fingerprint"] != found:
        raise WorkdirError(
            "the images or labels are not those that this workdir's run was started with "
            f"(fingerprint {earlier['data_fingerprint'][:12]}, now {found[:12]}); restore them or "
            "use another --workdir"
        )
    about = {"name": config.name, "seed": config.train.seed}
    spent = earlier.get("seconds", {"setup": 0.0, "train": 0.0})
    spent["setup"] += seconds
    write_json(workdir / "config.json", {"config": config.to_dict()})
    write_json(workdir / "run.json", {**environment(), **about, **facts, "seconds": spent})


def record_end(workdir: Path, *, seconds: float, step_seconds: float | None) -> None:
    """Adds to run.json how long training took, and the largest memory of this program.

    Args:
        workdir: the folder of the run.
        seconds: of this training; added to those of earlier ones.
        step_seconds: median per step, where it was measured.
    """
    values = read_json(workdir / "run.json")
    values["seconds"]["train"] += seconds
    values["seconds"]["step"] = step_seconds
    values["peak_memory_gib"] = peak_memory_gib()
    write_json(workdir / "run.json", values)


def environment() -> dict[str, Any]:
    """Returns versions, devices and the source's commit, as far as they are known."""
    versions = {name: _version(name) for name in (*_PACKAGES, "tensorflow-cpu", "tensorflow")}
    return {
        "versions": {name: v for name, v in versions.items() if v}
        | {"python": platform.python_version()},
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "devices": [str(device) for device in jax.devices()],
        "processes": jax.process_count(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def peak_memory_gib() -> float:
    """Returns the largest resident memory that this program has had so far, in GiB.

    On Linux (VmHWM) it is that of this program only. Elsewhere it may include the memory of the
    process that started it, before the program was loaded.
    """
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, KiB elsewhere


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Returns the commit of the source tree this package runs from; None for an installed copy."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
