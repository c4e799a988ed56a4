"""Times our training step and our prediction against Keras 2.15's and PyTorch's, interleaved.

    python experiments/benchmarks/versus.py [--rounds 12] [--size 224] [--batch 16] [--only ...]

Every contestant stays loaded in a process of its own and takes turns (A B C D A B C D ...), a turn
being the training steps that our train command makes in one compiled call, or as many batches
predicted. Peers live in virtual environments that are made in this package's cache from the
requirements files beside this script. Machines are shared and their speed drifts: read the ratios,
which come from neighbouring turns. On a GPU: --bf16 --batch 16 64 256 --infer 16 64 256.

    python experiments/benchmarks/versus.py --networks all --steps 4 [--record FILE.json]

compares the backbones of the papers, without attention, in one table. What is measured is kept in
the record, and a run with the same record measures what is missing.
"""

import argparse
import contextlib
import pathlib

import costs
import networks
import report
import results
from contestants import CEILINGS, KINDS, Contestant, take_turns
from report import Measured

from msa_flax.config import TrainConfig

TASKS = ("train", "infer")
METHOD = """\
One network everywhere: MobileNetV1 at alpha 1 without top, spatial attention with kernels 3, 5 and
7, global average pooling, one logit; {parameters:,} parameters and running statistics, as each
contestant counts them. A training step is forward, backward, Adam and the BatchNorm updates.
Peers get images as they want them (0..1, three channels, float32, already on the device). Ours gets
grey uint8 images, in NumPy, scales them in the compiled call, and convolves one channel where they
convolve three equal ones. Our train command makes {steps} steps in one compiled call, and so a turn
is {steps} steps for everyone and our time the mean of a turn; ratios compare turns with turns.
Where a peer's steps were timed one by one they are shown. Prediction: Keras is a `tf.function` of
the model, PyTorch is in `inference_mode`, "frozen" is compiled with the weights as constants; every
call waits for the logits in host memory. Ours has BatchNorm folded into the convolutions, once,
before the clock starts; so has "frozen". Compile: the first turn less the fastest. Peak memory is
that of processes that only train (VmHWM), from their start.
"""
BF16 = """\
In bfloat16 are images, activations and the products' inputs; parameters, the sums over a batch,
Adam and the loss are float32. PyTorch does this by `torch.autocast`, ours by the images' type.
"""


def measure(
    contestants: list[Contestant], options: argparse.Namespace, task: str, batch: int
) -> Measured:
    """Lets everyone do a task in turns."""
    # A turn of small batches is longer, so that its first calls' cold caches weigh little.
    units = options.steps if task == "train" else 8 * max(1, 4 // batch)
    request = {"task": task, "batch": batch, "count": units}
    series = take_turns(contestants, request, options.rounds)
    able = {c.kind.key: c for c in contestants if not c.reason}
    return Measured(
        task=task,
        batch=batch,
        size=options.size,
        bf16=options.bf16,
        series={key: series[key] for key in able},
        start_seconds={key: contestant.start_seconds for key, contestant in able.items()},
        missing={c.kind.key: c.reason for c in contestants if c.reason},
    )


def run(
    options: argparse.Namespace, network: str = "", ceilings: tuple[str, ...] = CEILINGS
) -> tuple[list[Measured], str, int]:
    """Runs what is asked for; returns results, versions, and the network's parameter count.

    Args:
        options: of the command.
        network: a backbone, or "" for paper 1's network.
        ceilings: contestants that show the limits of the machine.
    """
    arguments = [f"--size={options.size}", *(["--bf16"] if options.bf16 else [])]
    arguments += [f"--network={network}"] if network else []
    # Each training batch has processes of its own, so that their peak memory is that batch's.
    phases = [("train", [batch]) for batch in options.batch] + [("infer", options.infer)]
    found: list[Measured] = []
    versions: dict[str, str] = {}
    parameters: set[int] = set()
    for task, batches in phases:
        if task not in options.tasks:
            continue
        with contextlib.ExitStack() as stack:
            contestants = []
            for kind in KINDS:
                if task in kind.tasks and kind.key in (*options.only, *ceilings):
                    contestants.append(Contestant(kind, arguments))
                    stack.callback(contestants[-1].close)
                    versions |= contestants[-1].versions
                    parameters |= {contestants[-1].parameters} - {0}
            for batch in batches:
                found.append(measure(contestants, options, task, batch))
                if ceilings:
                    print(found[-1].text(), end="\n\n", flush=True)
    if len(parameters) != 1:
        raise SystemExit(f"the networks differ: {sorted(parameters)} parameters")
    shown = ", ".join(f"{key} {value}" for key, value in versions.items())
    return found, shown, parameters.pop()


def compare_networks(options: argparse.Namespace) -> None:
    """Compares the backbones and writes their section of RESULTS.md."""
    record = networks.read(options.record)
    for network in networks.BACKBONES if "all" in options.networks else options.networks:
        if network not in record:
            found, versions, parameters = run(options, network, ())
            for key in ("ours", "keras"):
                if missing := [one.missing[key] for one in found if key in one.missing]:
                    raise SystemExit(f"{network}: {key} failed: {missing[0]}")
            record[network] = networks.Compared(versions, parameters, found)
            networks.write(options.record, record)
            print(networks.table({network: record[network]}), end="\n\n", flush=True)
    versions = next(iter(record.values())).versions
    parts = [
        "## Every network against Keras and PyTorch",
        f"{results.provenance()} {versions}; {options.rounds} rounds.",
        networks.METHOD.format(steps=options.steps),
        networks.table(record),
        networks.MET,
    ]
    text = "\n\n".join(part.strip("\n") for part in parts)
    results.write_section(options.results, "versus-networks", text)


def main() -> None:
    """Runs the comparison, prints it and writes its section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [kind.key for kind in KINDS if kind.key not in CEILINGS]
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--size", type=int, default=224, help="pixels, a multiple of 32")
    parser.add_argument("--batch", type=int, nargs="+", default=[16], help="of training")
    parser.add_argument("--infer", type=int, nargs="+", default=[1, 16, 64], help="batches")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--bf16", action="store_true", help="autocast; Keras takes no part")
    every = [*networks.BACKBONES, "all"]
    steps = TrainConfig().steps_per_dispatch
    parser.add_argument("--networks", nargs="+", choices=every, help="backbones to compare")
    parser.add_argument("--steps", type=int, default=steps, help="of a turn; in one call of ours")
    parser.add_argument("--record", type=pathlib.Path, help="keeps what --networks measured")
    parser.add_argument("--results", type=pathlib.Path, default=results.RESULTS)
    options = parser.parse_args()
    if options.size % 32 or options.rounds < 1:
        parser.error("--size: a multiple of 32; --rounds: 1 or more")
    if options.networks:
        compare_networks(options)
        return
    found, versions, parameters = run(options)
    parts = [
        "## Against Keras and PyTorch" + (", bfloat16" if options.bf16 else ""),
        f"{results.provenance()} {versions}; {options.rounds} rounds.",
        METHOD.format(parameters=parameters, steps=options.steps),
        *([BF16] if options.bf16 else [report.bars(found), report.MET]),
        *(measured.text() for measured in found),
        f"### What is counted\n\n{costs.COUNTED}",
    ]
    text = "\n\n".join(part.strip("\n") for part in parts)
    results.write_section(options.results, "versus-bf16" if options.bf16 else "versus", text)


if __name__ == "__main__":
    main()
