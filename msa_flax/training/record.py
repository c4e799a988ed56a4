"""What a run must say of itself to be believed: ``config.json`` and ``run.json``."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from msa_flax.config import Config, changed_fields
from msa_flax.files import UserError

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
        old, new = json.loads(path.read_text())["config"], config.to_dict()
        fields = changed_fields(old, new)
        if fields:
            shown = ", ".join(f"{f} ({_get(old, f)!r}, now {_get(new, f)!r})" for f in fields)
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


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Makes the workdir and keeps a second trainer out of it for as long as this one runs.

    Raises:
        WorkdirError: another one is at work.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise WorkdirError(f"another process is training in {workdir}; wait for it") from error
        yield


def _get(values: dict[str, Any], path: str) -> Any:
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None  # type: ignore[assignment]
    return values


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
