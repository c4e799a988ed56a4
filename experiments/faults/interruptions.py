"""A run that is killed, ended by a signal, or started a second time while it goes on."""

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench import Bench, Ended, Outcome, leftovers, wait_for

# What a run has just written, when it is hit; "" is a moment drawn at random.
_MOMENTS = (
    *("", "checkpoints/last/*tmp*", "checkpoints/best/*tmp*", "", "checkpoints/last/2*"),
    *("metrics.jsonl", "", "eval/validation/predictions.csv", "eval/test/explanations/*"),
)
_KILLS_OF_A_RUN = 3  # before it may go on to its end


def kill(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """SIGKILL, several times per run, at moments drawn at random or during a chosen write."""
    for number in range(0, times, _KILLS_OF_A_RUN):
        workdir, hits = bench.new(f"killed-{number}"), []
        for _ in range(min(_KILLS_OF_A_RUN, times - number)):
            hits.append(_hit(bench, workdir, signal.SIGKILL, draw))
        ended = bench.train(workdir)
        outcome = bench.same_bytes(f"SIGKILL {', '.join(hits)}", workdir, ended)
        left = leftovers(workdir)
        if outcome.held and left:
            outcome = Outcome(injected=outcome.injected, result=f"left {left[0]}", held=False)
        yield from [outcome] * len(hits)


def interrupt(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """SIGTERM or SIGINT in training, once or twice; the exit code, then the same command again."""
    for number in range(times):
        workdir, which = bench.new(f"interrupted-{number}"), _signals(number)
        log = bench.folder / "interrupted.txt"
        process = bench.start(bench.train_command(workdir), log)
        _wait_for_moment(process, workdir, _MOMENTS[number % len(_MOMENTS)], draw)
        process.send_signal(which)
        if number % 3 == 2:
            time.sleep(0.01)
            process.send_signal(which)
        code, text = process.wait(), log.read_text("utf-8", "replace")
        injected = f"{which.name} at {_MOMENTS[number % len(_MOMENTS)] or 'a random moment'}"
        # A handler that is not there yet, or no longer: Python's own ways to end.
        if code not in (0, 128 + which, -which) or "Traceback" in text:
            yield Outcome(injected=injected, result=f"exit code {code}", held=False)
            continue
        yield bench.same_bytes(injected, workdir, bench.train(workdir))


def interrupt_evaluate(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """SIGINT or SIGTERM during ``evaluate``; it must end, and leave whole results or none."""
    length = bench.run(bench.command("evaluate", "--workdir", bench.copy(bench.reference, "e")))
    for number in range(times):
        workdir, which = bench.copy(bench.reference, "e"), _signals(number)
        for path in workdir.glob("eval/test/*.*"):
            path.unlink()
        log = bench.folder / "evaluate.txt"
        process = bench.start(bench.command("evaluate", "--workdir", workdir), log)
        time.sleep(draw.uniform(0.5, 0.8 * length.seconds))
        process.send_signal(which)
        code, text = process.wait(), log.read_text("utf-8", "replace")
        injected = f"{which.name} during evaluate"
        if code == 0:
            yield Outcome(injected=injected, result="was done already", held=not _swallowed(text))
            continue
        held = code in (128 + which, -which) and "Traceback" not in text
        left = leftovers(workdir)
        result = "ended" if held and not left else f"exit code {code}, left {left[:1]}"
        yield Outcome(injected=injected, result=result, held=held and not left)


def two_trainers(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """A second trainer with another seed, while the first one prepares, trains or concludes."""
    for number in range(times):
        workdir, log = bench.new("two"), bench.folder / "two.txt"
        first = bench.start(bench.train_command(workdir), log)
        _wait_for_moment(first, workdir, ("config.json", "", "metrics.jsonl")[number % 3], draw)
        second = bench.train(workdir, "--config.train.seed=7")
        ended = Ended(code=first.wait(), text=log.read_text("utf-8", "replace"))
        injected = f"a second trainer with another seed ({number})"
        if not second.refused:
            yield Outcome(injected=injected, result=f"not refused: {second.last}", held=False)
        else:
            outcome = bench.same_bytes(injected, workdir, ended)
            yield dataclasses.replace(outcome, result=f"refused; the first one {outcome.result}")


def _hit(bench: Bench, workdir: Path, which: signal.Signals, draw: random.Random) -> str:
    """Starts training and kills the process at some moment; returns which moment."""
    moment = draw.choice(_MOMENTS)
    process = bench.start(bench.train_command(workdir), bench.folder / "killed.txt")
    _wait_for_moment(process, workdir, moment, draw)
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(process.pid, which)
    process.wait()
    return moment or "at a random moment"


def _wait_for_moment(
    process: subprocess.Popen[bytes], workdir: Path, moment: str, draw: random.Random
) -> None:
    """Waits until something new is there, or for a time drawn at random."""
    if not moment:
        wait_for(process, lambda: False, limit=draw.uniform(0.5, 15))
        return

    def there() -> set[tuple[str, int]]:
        found = set()
        for path in workdir.glob(moment):
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                found.add((path.name, path.stat().st_size if path.is_file() else 0))
        return found

    known = there()
    wait_for(process, lambda: bool(there() - known), limit=60)


def _signals(number: int) -> signal.Signals:
    return (signal.SIGTERM, signal.SIGINT)[number % 2]


def _swallowed(text: str) -> bool:
    return "interrupt" in text.lower()
