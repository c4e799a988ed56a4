"""The folder of a run: who may write to it, its log, and what it says about the run.

``config.json`` is the configuration. ``run.json`` holds what a reader needs to know to believe the
results: versions, devices, commit, seed, data, weights, and how long it took.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
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

from msa_flax.config import RESUMABLE_FIELDS, Config, ConfigError, changed_fields
from msa_flax.files import (
    UserError,
    flatten,
    read_json,
    remove_unfinished,
    sha256,
    write_json,
)
from msa_flax.run_files import CURVES, RUN_FILES, check_run_files

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


def check_workdir(workdir: Path, config: Config, *, accept: bool = False) -> list[str]:
    """Refuses a workdir whose run has another configuration, before anything is written.

    Args:
        workdir: the folder of the run; it need not exist.
        config: what is to be trained there.
        accept: see :func:`msa_flax.run_files.check_run_files`, of which the stamps are returned.

    Raises:
        WorkdirError: names the fields that differ, with both values.
        UserError: files of the run were changed by hand.
    """
    stamps: list[str] = []
    path = workdir / "config.json"
    if workdir.exists() and not workdir.is_dir():
        raise WorkdirError(f"--workdir: expected a folder, got the file {workdir}")
    if path.exists():
        stamps = check_run_files(workdir, accept=accept, training=True)
        old, new = _stored(workdir).to_dict(), config.to_dict()
        # Images may be elsewhere now; whether they are the same ones, their fingerprint tells.
        for field in ("root", "manifest"):
            old["data"][field] = new["data"][field]
        if (fields := changed_fields(old, new)) == ["train.epochs"]:
            raise WorkdirError(_epochs_refused(workdir, old, new))
        if fields:
            was, now = flatten(old), flatten(new)
            shown = ", ".join(f"{f} ({was.get(f)!r}, now {now.get(f)!r})" for f in fields)
            raise WorkdirError(
                f"{workdir} holds a run that differs in {shown}; use another --workdir"
            )
    elif workdir.exists() and any(map(_is_foreign, workdir.iterdir())):
        raise WorkdirError(
            f"--workdir: expected a new, empty or earlier run's folder, {workdir} holds other files"
        )
    parent = next(p for p in (workdir, *workdir.absolute().parents) if p.exists())
    if not parent.is_dir():
        raise WorkdirError(f"--workdir: expected a folder, got {workdir}, where {parent} is a file")
    if not os.access(parent, os.W_OK):
        raise WorkdirError(f"--workdir: {parent} cannot be written to")
    return stamps


def _epochs_refused(workdir: Path, old: dict[str, Any], new: dict[str, Any]) -> str:
    was, now = old["train"]["epochs"], new["train"]["epochs"]
    if now < was:
        return f"{workdir} holds a run of {was} train.epochs; expected as many or more, got {now}"
    return (
        f"{workdir} holds a run of {was} train.epochs, which cannot become {now}: with "
        f"optim.schedule {old['optim']['schedule']!r} the learning rate of every step depends on "
        "their number, so the steps that are done would have been others; use another --workdir"
    )


def _is_foreign(path: Path) -> bool:
    """Returns whether a file is none of those that a start leaves which was killed early."""
    ours = path.name in (".lock", "train.log", "run.json")
    return not (ours or (path.name.startswith(".") and path.name.endswith(".tmp")))


def read_config(workdir: Path) -> Config:
    """Returns the configuration that the run in a folder was started with.

    Raises:
        WorkdirError: config.json holds none that can be run.
    """
    try:
        return _stored(workdir).validate()
    except ConfigError as error:
        path = workdir / "config.json"
        raise WorkdirError(f"{path}: {error}; put the original back") from error


def _stored(workdir: Path) -> Config:
    path = workdir / "config.json"
    values = read_json(path).get("config")
    if not isinstance(values, dict) or not values:
        raise WorkdirError(f"{path} holds no configuration; put the original back")
    try:
        return Config.from_dict(values)
    except ConfigError as error:
        raise WorkdirError(f"{path}: {error}; put the original back") from error


def identity(config: Config) -> str:
    """Returns the SHA-256 of what makes a run this one and no other, to tie checkpoints to it.

    Fields with their default value are left out: so fields of later versions change nothing.
    """
    default = flatten(Config().to_dict())
    free = (*RESUMABLE_FIELDS, "data.root", "data.manifest")
    fields = {
        name: value
        for name, value in flatten(config.to_dict()).items()
        if value != default[name] and name not in free
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Makes the workdir, and keeps other processes from training in it at the same time.

    Files that a killed process had not finished are removed first.

    Raises:
        WorkdirError: another process is training in it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise WorkdirError(f"another process is training in {workdir}; wait for it") from error
        remove_unfinished(workdir)
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
    accepted = bool(facts.get("changes"))
    if not (earlier or accepted) and any((workdir / "checkpoints/last").glob("*")):
        raise WorkdirError(f"{workdir / 'run.json'} is gone; put the original back")
    known = str(earlier.get("data_fingerprint"))
    if earlier and known != found:
        raise WorkdirError(
            "the images or labels are not those that this workdir's run was started with "
            f"(fingerprint {known[:12]}, now {found[:12]}); restore them or use another --workdir"
        )
    about = {"name": config.name, "seed": config.train.seed}
    spent = earlier.get("seconds", {"setup": 0.0, "train": 0.0})
    try:
        spent["setup"] += seconds
        spent["train"] += 0.0
    except (KeyError, TypeError) as error:
        raise WorkdirError(
            f"{workdir / 'run.json'}: expected seconds of setup and train, got {spent!r}; put the "
            "original back"
        ) from error
    # Without hashes until both files are there: a kill in between makes nothing look changed.
    write_json(workdir / "run.json", {**environment(), **about, **facts, "seconds": spent})
    write_json(workdir / "config.json", {"config": config.to_dict()})


def record_files(workdir: Path) -> None:
    """Adds to run.json the SHA-256 of the files that later commands believe."""
    values = read_json(workdir / "run.json")
    values["files"] = {name: sha256(workdir / name) for name in RUN_FILES}
    write_json(workdir / "run.json", values)


def record_end(workdir: Path, *, seconds: float, step_seconds: float | None) -> None:
    """Adds to run.json how long training took, its largest memory, and the SHA-256 of its curves.

    Args:
        workdir: the folder of the run.
        seconds: of this training; added to those of earlier ones.
        step_seconds: median per step, where it was measured.
    """
    values = read_json(workdir / "run.json")
    values["seconds"]["train"] += seconds
    values["seconds"]["step"] = step_seconds
    values["peak_memory_gib"] = peak_memory_gib()
    if (workdir / CURVES).exists():
        values["files"] = {**values.get("files", {}), CURVES: sha256(workdir / CURVES)}
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
