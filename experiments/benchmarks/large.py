"""A set twice as large as the memory that may be used, beside the same set in memory.

    python experiments/benchmarks/large.py --images 60000

The images are kept as data.load keeps them, in one mapped file. Two processes make the batches of
an epoch, and train a narrow MSA-CSpineNet on them, in turns: one has all images in memory, the
other maps the file in a memory cgroup of half of its size, which counts pages of the file as well.
Every ratio is that of two turns in a row. The slices are 400 of the phantom, shifted, made lighter
and given noise: drawing 60,000 would take hours and change nothing here. Needs Linux, and the right
to make a memory cgroup below one's own.
"""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import results

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from command_line import Parser, call

from msa_flax.data.images import preprocess
from msa_flax.data.phantom import draw_slice
from msa_flax.data.stored import write_images
from msa_flax.files import UserError, markdown_table

DRAWN, SIZE, BATCH, STEPS = 400, 224, 16, 16  # slices; pixels; images a step; steps a dispatch
WORK = {"batches": 24, "training": 4}  # dispatches a turn
GROUPS = pathlib.Path("/sys/fs/cgroup")


def write_slices(path: pathlib.Path, count: int) -> None:
    """Writes so many slices, uint8 [count, 224, 224], unless the file is there."""
    drawn = [preprocess(draw_slice(0, i // 8, i % 8).image, size=SIZE) for i in range(DRAWN)]

    def write(array: np.ndarray) -> None:
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 16, (2 * SIZE, 2 * SIZE), np.uint8)
        for i in range(count):
            down, across, lighter = rng.integers(0, [SIZE, SIZE, 16])
            moved = np.roll(drawn[i % DRAWN], rng.integers(-20, 21, 2), (0, 1))
            array[i] = moved // 8 * 7 + lighter + noise[down:, across:][:SIZE, :SIZE]

    if not path.exists():
        write_images(path, (count, SIZE, SIZE), write)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, or is one of its two processes."""
    parser = Parser(__doc__)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=pathlib.Path, help="where the file is written; a disk")
    parser.add_argument("--results", type=pathlib.Path, default=results.RESULTS)
    parser.add_argument("--turns", type=pathlib.Path, help="for its own use")
    parser.add_argument("--held", action="store_true", help="for its own use")
    parser.add_argument("--group", type=pathlib.Path, help="for its own use")
    options = parser.parse_args(arguments)
    if options.group:
        (options.group / "cgroup.procs").write_text(str(os.getpid()))
    if options.turns:
        serve(options.turns, held=options.held)
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = pathlib.Path(folder) / "images.npy"
        write_slices(path, options.images)
        text = measure(path, options.rounds)
    print(text)
    heading = "## A set larger than memory"
    section = "\n\n".join([heading, results.provenance(), text])
    results.write_section(options.results, "large", section)
    return 0


def measure(path: pathlib.Path, rounds: int) -> str:
    """Returns a table of the rates of both processes, and what memory the limited one used."""
    limit = path.stat().st_size // 2
    with limited_group(limit) as group, worker(path, held=True) as held:
        forget(path)  # pages that the other process has read are in memory, and not counted
        with worker(path, group=group) as mapped:
            rates: dict[str, list[tuple[float, float]]] = {name: [] for name in WORK}
            for turn in range(rounds + 1):
                for name in WORK:
                    pair = ask(held, name), ask(mapped, name)
                    print(f"{name}: {pair[0]:.0f} and {pair[1]:.0f}", file=sys.stderr)
                    if turn:  # the first one compiles
                        rates[name].append(pair)
            used = int((group / "memory.max_usage_in_bytes").read_text())
    rows = [
        (
            {"batches": "batches alone", "training": "training steps"}[name],
            *(f"{statistics.median(pair[i] for pair in pairs):,.0f}" for i in (0, 1)),
            f"{statistics.median(b / a for a, b in pairs):.2f}",
            f"{min(b / a for a, b in pairs):.2f} to {max(b / a for a, b in pairs):.2f}",
        )
        for name, pairs in rates.items()
    ]
    head = ("images a second", "in memory", "mapped, half the memory", "ratio", "all ratios")
    size = path.stat().st_size
    return (
        f"{size / 1e9:.2f} GB of images, a limit of {limit / 1e9:.2f} GB, of which the process "
        f"with JAX, TensorFlow and its pages of the file used {used / 1e9:.2f} GB at most; "
        f"{rounds} rounds.\n\n{markdown_table(head, rows)}"
    )


@contextlib.contextmanager
def limited_group(limit: int) -> Iterator[pathlib.Path]:
    """Gives a memory cgroup below this process's own, and removes it at the end."""
    lines = [line.split(":", 2) for line in pathlib.Path("/proc/self/cgroup").read_text().split()]
    own = next((place for _, kinds, place in lines if kinds == "memory"), None)
    if own is None:
        raise UserError("expected a memory cgroup (version 1) on this machine, found none")
    group = GROUPS / "memory" / own.lstrip("/") / f"msa_flax_large_{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit))
        yield group
    finally:
        for _ in range(50):  # the kernel needs a moment after the last process has ended
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


@contextlib.contextmanager
def worker(
    path: pathlib.Path, *, held: bool = False, group: pathlib.Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Starts a process that makes turns; it is ready when it has said so."""
    command = [sys.executable, __file__, "--turns", str(path), *(["--held"] if held else [])]
    command += ["--group", str(group)] if group else []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise UserError("a process of the benchmark ended early; is the limit too small?")
        try:
            yield process
        finally:
            process.kill()


def ask(process: subprocess.Popen[str], name: str) -> float:
    """Returns the images per second of a turn."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{name}\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise UserError(f"a process of the benchmark ended during {name}")
    return float(json.loads(answer))


def forget(path: pathlib.Path) -> None:
    """Asks the system to drop what it holds of a file in memory (posix_fadvise(2))."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def serve(path: pathlib.Path, *, held: bool) -> None:
    """Makes the turns that are asked for on standard input, until it ends."""
    images = np.load(path, mmap_mode=None if held else "r")
    turns = {"batches": take_batches(images), "training": train(images)}
    print("ready", flush=True)
    for line in sys.stdin:
        name = line.strip()
        began, done = time.perf_counter(), turns[name](WORK[name])
        print(json.dumps(done / (time.perf_counter() - began)), flush=True)


def dispatches(images: np.ndarray) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Yields training batches, epoch after epoch, as training does."""
    from msa_flax.data.pipeline import train_dispatches

    labels, epoch = np.arange(len(images)) % 2, 0
    while True:
        yield from train_dispatches(
            images, labels, batch_size=BATCH, steps_per_dispatch=STEPS, seed=0, epoch=epoch
        )
        epoch += 1


def take_batches(images: np.ndarray) -> Callable[[int], int]:
    """Returns what takes so many dispatches, and returns the number of their images."""
    made = dispatches(images)
    return lambda count: sum(len(next(made)[0]["index"].ravel()) for _ in range(count))


def train(images: np.ndarray) -> Callable[[int], int]:
    """Returns what trains for so many dispatches, and returns the number of their images."""
    import jax

    from msa_flax import models
    from msa_flax.config import Config, ModelConfig
    from msa_flax.training import devices, optim, steps
    from msa_flax.training.compile import compile_train_steps

    config = Config(model=ModelConfig(pretrained="none", alpha=0.25))
    model = models.create_model(config.model)
    optimizer = optim.create_optimizer(config.optim, total_steps=1)
    mesh = devices.mesh(BATCH)
    state = steps.create_state(models.initialise(model, seed=0), optimizer)
    step = steps.make_train_step(model, optimizer, models.scaler(config), seed=0)
    compiled = compile_train_steps(step, mesh)
    held: dict[str, Any] = {"state": devices.replicate(mesh, state)}
    made = dispatches(images)

    def work(count: int) -> int:
        for _ in range(count):
            batch, number = next(made)
            held["state"], _ = jax.block_until_ready(compiled(held["state"], batch, number))
        return count * BATCH * STEPS

    return work


if __name__ == "__main__":
    sys.exit(call(main))
