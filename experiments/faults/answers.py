"""Runs that must not give a false answer: numbers not finite, files changed by hand, chance."""

import csv
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import Bench, Ended, Outcome
from inputs import FOLDER, image_folder
from scipy import stats

_HUGE = (
    "--config.optim.learning_rate=1e30 --config.optim.name=sgd --config.train.batch_size=128",
    "--config.optim.learning_rate=1e30",
    "--config.optim.learning_rate=1e20",
    "--config.optim.learning_rate=1e30 --config.optim.schedule=plateau",
    "--config.optim.learning_rate=1e9 --config.optim.name=sgd",
    "--config.optim.learning_rate=1e9 --config.train.compute_dtype=bfloat16",
)


def not_finite(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """Learning rates at which training leaves the numbers; nothing that is not finite is kept."""
    for given in _HUGE[: times or None]:
        workdir = bench.new("huge")
        more = given.split(" ")
        for attempt in ("first", "the same command again"):
            ended = bench.train(workdir, *more)
            problem = _not_finite(workdir, ended)
            told = "stopped, and said so" if ended.code else "finite to the end"
            injected = f"{given.replace('--config.', '')} ({attempt})"
            yield Outcome(injected=injected, result=problem or told, held=not problem)


def edits(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """Files of a run that were changed by hand; each must be named, or the same must be said."""
    for (name, change), what in list(_EDITS.items())[: times or None]:
        workdir = bench.copy(bench.reference, "edited")
        path = workdir / name
        path.write_text(change(path.read_text("utf-8")), "utf-8")
        for command in what:
            more = ("--split", "test", "--limit", "1") if command == "explain" else ()
            ended = bench.run(bench.command(command, "--workdir", workdir, *more))
            named = ended.refused and path.name in ended.text
            result = f"refused, names {path.name}" if named else f"exit {ended.code}: {ended.last}"
            injected = f"{name}: {(change.__doc__ or '').rstrip('.')}, then {command}"
            yield Outcome(injected=injected, result=result, held=named)


def chance(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """Labels drawn at random: accuracy on patients that were not trained on must be chance."""
    for number in range(times):
        root, workdir = image_folder(bench.new("chance-set"), draw), bench.new("chance")
        for part in ("train", "val"):
            files = sorted((root / part).glob("*/*.png"))
            names = ["normal", "fracture"] * len(files)
            draw.shuffle(files)
            for path, name in zip(files, names, strict=False):
                path.rename(root / part / name / f"x-{path.name}")
            for path in (root / part).glob("*/x-*"):
                path.rename(path.with_name(path.name.removeprefix("x-")))
        command = ("train", "--workdir", workdir, *FOLDER, f"--config.data.root={root}")
        ended = bench.run(bench.command(*command, "--config.train.epochs=5"))
        if ended.code:
            yield Outcome(injected="random labels", result=ended.last, held=False)
            continue
        rows = list(csv.DictReader((workdir / "eval/test/predictions.csv").open()))
        right = sum((float(row["probability"]) >= 0.5) == (row["label"] == "1") for row in rows)
        interval = stats.binomtest(right, len(rows)).proportion_ci(0.99)
        held = interval.low <= 0.5 <= interval.high
        result = "0.5 is inside the 99 % interval" if held else f"accuracy {right / len(rows):.3f}"
        yield Outcome(injected=f"random labels ({number})", result=result, held=held)


def _not_finite(workdir: Path, ended: Ended) -> str:
    """Says what is wrong with a run whose training left the numbers; empty if nothing is."""
    import orbax.checkpoint as ocp
    from jax import tree
    from numpy import asarray, isfinite

    if "Traceback" in ended.text or (ended.code and ended.text.count("error: ") != 1):
        return f"exit {ended.code}: {ended.last}"
    for item in workdir.glob("checkpoints/*/*/*/_METADATA"):
        with ocp.PyTreeCheckpointer() as reader:
            leaves = tree.leaves(reader.restore(item.parent.absolute()))
        if not all(isfinite(asarray(leaf, float)).all() for leaf in leaves):
            return f"not finite: {item.parent.relative_to(workdir)}"
    for line in _lines(workdir / "metrics.jsonl"):
        constants: list[str] = []
        json.loads(line, parse_constant=constants.append)
        if constants:
            return f"metrics.jsonl holds {constants[0]}, which is not JSON"
    return ""


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


def _swap_splits(text: str) -> str:
    """Train and test swapped."""
    return text.replace(",test,", ",?,").replace(",train,", ",test,").replace(",?,", ",train,")


def _swap_labels(text: str) -> str:
    """Labels moved on by a row."""
    head, *lines = text.splitlines()
    place = head.split(",").index("label")
    rows = [line.split(",") for line in lines]
    moved = [row[place] for row in rows]
    for row, label in zip(rows, moved[1:] + moved[:1], strict=True):
        row[place] = label
    return "\n".join([head, *map(",".join, rows)]) + "\n"


def _swap_ids(text: str) -> str:
    """Identifiers of the first and the last row swapped."""
    head, *lines = text.splitlines()
    first, last = lines[0].split(","), lines[-1].split(",")
    first[0], last[0] = last[0], first[0]
    return "\n".join([head, ",".join(first), *lines[1:-1], ",".join(last)]) + "\n"


def _newer_schema(text: str) -> str:
    """A schema of the future."""
    return text.replace('"schema_version": 1', '"schema_version": 99')


def _cut(text: str) -> str:
    """Cut in the middle."""
    return text[: len(text) // 2]


def _other_preprocessing(text: str) -> str:
    """Another preprocessing."""
    return text.replace('"preprocess": "paper"', '"preprocess": "native"')


_EDITS: dict[tuple[str, Callable[[str], str]], tuple[str, ...]] = {
    ("splits.csv", _swap_splits): ("evaluate", "report"),
    ("config.json", _other_preprocessing): ("evaluate", "explain"),
    ("config.json", _newer_schema): ("evaluate", "report"),
    ("config.json", _cut): ("evaluate", "report", "train"),
    ("run.json", _cut): ("evaluate", "report"),
    ("splits.csv", _cut): ("evaluate", "report"),
    ("eval/test/predictions.csv", _swap_labels): ("report",),
    ("eval/test/predictions.csv", _swap_ids): ("report",),
    ("eval/test/predictions.csv", _cut): ("report",),
    ("eval/test/metrics.json", _cut): ("report",),
    ("eval/test/metrics.json", _newer_schema): ("report",),
}
