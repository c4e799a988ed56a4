"""Injects faults into the real commands and counts what came of them.

    python experiments/soak.py --out DIR [--kills 100] [--faults kill labels ...] [--seed 0]

Trains tiny runs on the phantom and damages them in every way that FAULTS below lists: processes
killed, bits flipped, disks full, hostile images and names, files edited by hand. Everything happens
in DIR, in processes of its own; DIR/soak.md has a table with a row per fault, DIR/soak.json every
single injection. --kills is how often training is killed; the other faults are scaled with it, or
go through their whole list. The exit code is 1 if anything did not hold. Faults already in
DIR/soak.json are not injected again, so that a soak that was ended goes on where it was.

RELIABILITY.md has the results. A full disk is a tmpfs of its own where one can be mounted, which
needs the rights to do so; elsewhere it is a limit for the size of a file.
"""

import argparse
import collections
import dataclasses
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "faults"))

import answers
import inputs
import interruptions
import storage
from bench import Bench, Outcome
from command_line import Parser, call

from msa_flax.files import markdown_table, read_json, write_json, write_text

Inject = Callable[[Bench, int, random.Random], Iterator[Outcome]]
ALL = 0  # injections: the whole list of the fault


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault."""

    inject: Inject  # its docstring says how
    share: float  # injections per kill; ALL: its whole list


FAULTS = {
    "kill": Fault(interruptions.kill, 1.0),
    "signal in training": Fault(interruptions.interrupt, 0.2),
    "signal in evaluate": Fault(interruptions.interrupt_evaluate, 0.2),
    "two trainers": Fault(interruptions.two_trainers, 0.06),
    "newest checkpoint damaged": Fault(storage.damage_last, 0.3),
    "best checkpoint damaged": Fault(storage.damage_best, 0.3),
    "disk full": Fault(storage.full_disk, 0.12),
    "read-only folder": Fault(storage.read_only, ALL),
    "numbers not finite": Fault(answers.not_finite, ALL),
    "odd images": Fault(inputs.images, ALL),
    "hostile names": Fault(inputs.names, ALL),
    "wrong labels": Fault(inputs.labels, ALL),
    "foreign weights": Fault(inputs.weights, ALL),
    "impossible configurations": Fault(inputs.configurations, ALL),
    "files edited by hand": Fault(answers.edits, ALL),
    "random labels": Fault(answers.chance, 0.03),
}


def soak(
    bench: Bench, names: Sequence[str], *, kills: int, seed: int, results: Path
) -> dict[str, list[Outcome]]:
    """Injects faults; returns every outcome by the name of the fault.

    Args:
        bench: where it happens.
        names: of faults, keys of FAULTS.
        kills: how often training is killed; other faults are scaled with it.
        seed: of what is drawn at random.
        results: JSON file that keeps what has been done.
    """
    done = {
        name: [Outcome(**outcome) for outcome in outcomes]
        for name, outcomes in read_json(results).get("faults", {}).items()
    }
    for name in names:
        if name in done:
            continue
        fault, began = FAULTS[name], time.monotonic()
        times = max(1, round(fault.share * kills)) if fault.share else ALL
        found = []
        for outcome in fault.inject(bench, times, random.Random(f"{seed} {name}")):
            found.append(outcome)
            sign = "ok  " if outcome.held else "FAIL"
            print(f"{sign} {name}: {outcome.injected} -> {outcome.result}", flush=True)
        print(f"{name}: {len(found)} times, {time.monotonic() - began:.0f} s", flush=True)
        done[name] = found
        write_json(
            results,
            {
                "faults": {
                    fault: [dataclasses.asdict(outcome) for outcome in outcomes]
                    for fault, outcomes in done.items()
                },
                "seed": seed,
            },
        )
    return {name: done[name] for name in names}


def table(found: dict[str, list[Outcome]]) -> str:
    """Returns a row per fault: how it was injected, how often, what came, how often it held."""
    rows = []
    for name, outcomes in found.items():
        counts = collections.Counter(outcome.result for outcome in outcomes)
        told = "; ".join(f"{count} x {result}" for result, count in counts.most_common(4))
        held = sum(outcome.held for outcome in outcomes)
        how = (FAULTS[name].inject.__doc__ or "").strip().splitlines()[0]
        rows.append([name, how, str(len(outcomes)), told, f"{held} of {len(outcomes)}"])
    return markdown_table(["fault", "how it is injected", "times", "what came", "held"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 if anything did not hold."""
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--kills", type=int, default=100, help="how often training is killed")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn at random")
    parser.add_argument(
        "--faults", nargs="+", choices=FAULTS, default=list(FAULTS), help="only these"
    )
    options: argparse.Namespace = parser.parse_args(arguments)
    bench = Bench(options.out.absolute() / "work")
    found = soak(
        bench,
        options.faults,
        kills=options.kills,
        seed=options.seed,
        results=options.out / "soak.json",
    )
    text = table(found)
    write_text(options.out / "soak.md", text + "\n")
    print(text)
    return 0 if all(outcome.held for outcomes in found.values() for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(call(main))
