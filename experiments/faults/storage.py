"""What is stored goes wrong: bits, lost files, a full disk, a folder that cannot be written to."""

import contextlib
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import Bench, Ended, Outcome


def damage_last(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """A bit flipped, or a file cut or deleted, in the newest checkpoint of half a training."""
    for _ in range(times):
        workdir = bench.copy(bench.half, "damaged")
        newest = max(workdir.glob("checkpoints/last/*"), key=lambda path: int(path.name))
        injected = f"{_damage(newest, draw)} of the newest checkpoint"
        yield bench.same_bytes(injected, workdir, bench.train(workdir))


def damage_best(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """The same in the best checkpoint of a finished run, which is then evaluated."""
    for _ in range(times):
        workdir = bench.copy(bench.reference, "damaged")
        injected = f"{_damage(next(workdir.glob('checkpoints/best/*')), draw)} of the best"
        ended = bench.run(bench.command("evaluate", "--workdir", workdir))
        if ended.refused:
            yield Outcome(injected=injected, result="refused in one sentence", held=True)
        else:  # from the other checkpoint, if it is of the same step
            yield bench.same_bytes(injected, workdir, ended, arrays=False)


def full_disk(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """No space left at some size of the run; then space, and the same command again.

    On a file system of its own where one can be mounted, else with a limit for a file's size.
    """
    length = sum(path.stat().st_size for path in bench.reference.rglob("*") if path.is_file())
    for _ in range(times):
        with _small_disk(bench, int(length * draw.uniform(0.02, 0.9))) as (folder, grow, what):
            workdir = folder / "run"
            first = grow.before(bench.train_command(workdir))
            injected = f"disk full ({what})"
            if first.code == 0:
                yield Outcome(injected=injected, result="it was large enough", held=True)
                continue
            if not first.refused:
                yield Outcome(injected=injected, result=f"said: {first.last}", held=False)
                continue
            grow.after()
            outcome = bench.same_bytes(injected, workdir, bench.train(workdir))
            result = f"one sentence, then {outcome.result}"
            yield Outcome(injected=injected, result=result, held=outcome.held)


def read_only(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """Every command on a run, or into a folder, that may be read only."""
    workdir = bench.copy(bench.reference, "read-only")
    commands = {
        "train": bench.train_command(workdir, f"--config.train.epochs={bench.epochs + 1}"),
        "evaluate": bench.command("evaluate", "--workdir", workdir),
        "explain": bench.command("explain", "--workdir", workdir, "--split", "test", "--limit=1"),
        "audit": bench.command("audit", "--workdir", workdir),
        "report": bench.command("report", "--workdir", workdir),
    }
    with _read_only(workdir):
        for name, command in list(commands.items())[: times or None]:
            ended = bench.run([*_without_root_rights(), *command])
            result = "refused in one sentence" if ended.refused else f"said: {ended.last}"
            yield Outcome(injected=f"{name}, read-only folder", result=result, held=ended.refused)


def _damage(folder: Path, draw: random.Random) -> str:
    """Damages one file below a folder; a file is chosen by its size, and small ones by turns."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size]
    sizes = [path.stat().st_size for path in files]
    small = draw.random() < 0.5
    path = draw.choice(files) if small else draw.choices(files, weights=sizes)[0]
    how, data = draw.choice(("flip", "flip", "flip", "cut", "delete")), path.read_bytes()
    if how == "flip":
        place = draw.randrange(len(data) * 8)
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        how = f"bit {place} flipped"
    elif how == "cut":
        path.write_bytes(data[: draw.randrange(len(data))])
    else:
        path.unlink()
    return f"{how} in {path.relative_to(folder)}"


class _Room:
    """How a command is run with too little space, and how there is more afterwards."""

    def __init__(self, before: Callable[[list[str]], Ended], after: Callable[[], object]) -> None:
        self.before, self.after = before, after


@contextlib.contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[bool]:
    """Makes a folder with a file system of its own.

    Yields:
        Whether it has one; without the right to mount it is a folder like others.

    Args:
        folder: a new one.
        size: bytes.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = (
        bool(shutil.which("mount"))
        and not subprocess.run(mount, check=False, capture_output=True).returncode
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def _small_disk(bench: Bench, size: int) -> Iterator[tuple[Path, _Room, str]]:
    folder = bench.new("small")
    with tmpfs(folder, max(size, 8192)) as mounted:
        if mounted:
            larger = ["mount", "-o", "remount,size=200m", str(folder)]
            room = _Room(bench.run, lambda: subprocess.run(larger, check=True))
            yield folder, room, f"tmpfs, {size} bytes"
            return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(command: list[str]) -> Ended:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 8, hard))
        try:
            return bench.run(command)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    yield folder, _Room(limited, lambda: None), f"a file may have {size // 8} bytes"


@contextlib.contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    paths = [path for path in (folder, *folder.rglob("*")) if path.is_dir()]
    for path in paths:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in paths:
            path.chmod(0o755)


def _without_root_rights() -> list[str]:
    """Returns what to begin a command with, so that permissions bind the user root as well."""
    if os.geteuid() or not shutil.which("setpriv"):
        return []
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
