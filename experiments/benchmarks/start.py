"""Times what is not a training step: reading images, making batches, starting a command.

    python experiments/benchmarks/start.py [--images 4200] [--size 224] [--starts 3]

Everything runs on generated PNG files, in temporary folders and with caches of its own: the first
start of a training prepares the data and compiles, a later one finds both done.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import reading
import results
import timings

from msa_flax.config import TrainConfig
from msa_flax.files import markdown_table

CONFIG = pathlib.Path(__file__).parents[1] / "paper1_msa.py"
BAR, AIM = 10.0, 6.0  # seconds, a later start up to its first finished training step
METHOD = """\
The images are slices of the package's phantom, 160 to 224 pixels square before resizing. A start is
that of `python -m msa_flax.train` with paper 1's experiment on them, without pretrained weights, in
a new workdir; "ready" is when it begins to compile the training step, or to load it, after reading
the data and initialising the network; "first step" is the first line of progress. The first start
of all also copies the images and searches them for copies of one another, once. The bar is for one
step in a compiled call; by default the command makes {dispatch}, and shows progress after those.
"""


def start(command: list[str], cache: pathlib.Path) -> tuple[float, float]:
    """Starts a training and ends it; returns seconds until it is ready and to its first step."""
    environment = os.environ | {"MSA_FLAX_CACHE": str(cache)}
    began, ready, lines = time.perf_counter(), 0.0, []
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            taken = time.perf_counter() - began
            ready = taken if line.startswith("compiling the training step") else ready
            lines.append(line)
            if line.startswith("step "):
                process.send_signal(signal.SIGTERM)
                process.stderr.read()
                return ready, taken
    raise SystemExit(f"training ended without a step: {''.join(lines[-3:])}")


def train_command(root: pathlib.Path, workdir: pathlib.Path, size: int, dispatch: int) -> list[str]:
    """Returns the command of paper 1's experiment that shows its progress at once."""
    overrides = {
        "data.root": root,
        "data.image_size": size,
        "model.pretrained": "none",
        "train.log_every": 1,
        "train.steps_per_dispatch": dispatch,
    }
    command = [sys.executable, "-m", "msa_flax.train", "--workdir", str(workdir)]
    return [*command, f"--config={CONFIG}", *(f"--config.{k}={v}" for k, v in overrides.items())]


def starts(folder: pathlib.Path, options: argparse.Namespace) -> Iterator[tuple[str, list[tuple]]]:
    """Yields the kind of start, and of each the seconds until ready and to the first step."""
    for dispatch in (1, TrainConfig().steps_per_dispatch):
        cache, found = folder / f"cache-{dispatch}", []
        for i in range(1 + options.starts):
            workdir = folder / f"run-{dispatch}-{i}"
            command = train_command(folder / "images", workdir, options.size, dispatch)
            found.append(start(command, cache))
        steps = f"{dispatch} step{'s' if dispatch > 1 else ''} a call"
        yield f"first start, {steps}", found[:1]
        yield f"later start, {steps}", found[1:]


def help_seconds(repeats: int) -> list[float]:
    """Returns seconds that ``msa_flax.evaluate --help`` takes, each time."""
    command = [sys.executable, "-m", "msa_flax.evaluate", "--help"]
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    """Runs everything, prints it and writes its section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4200)
    parser.add_argument("--size", type=int, default=224, help="pixels, after resizing")
    parser.add_argument("--starts", type=int, default=3, help="later starts; and other repeats")
    parser.add_argument("--results", type=pathlib.Path, default=results.RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        reading.write_images(folder / "images", options.images)
        os.environ["MSA_FLAX_CACHE"] = str(folder / "cache")
        rates = list(reading.rates(folder / "images", options.size, options.starts))
        helped = help_seconds(options.starts)
        started = list(starts(folder, options))
    section = text(rates, helped, started)
    print(section)
    results.write_section(options.results, "start", section)


def text(rates: list, helped: list[float], started: list) -> str:
    """Returns the section."""
    seconds = [["python -m msa_flax.evaluate --help", "", timings.as_cell(helped)]]
    for name, times in started:
        seconds.append([name, *(timings.as_cell(column) for column in zip(*times, strict=True))])
    _, _, median, _ = timings.quartiles([step for _, step in started[1][1]])
    reached = "yes, and the aim" if median <= AIM else "yes" if median <= BAR else "no"
    bar = [f"{started[1][0]}, to its first step", f"<= {BAR:.0f} s", f"<= {AIM:.0f} s"]
    four = "min / q1 / median / q3"
    return "\n\n".join(
        [
            "## Reading and starting",
            results.provenance(),
            METHOD.format(dispatch=TrainConfig().steps_per_dispatch).strip(),
            markdown_table(
                ["", "bar", "aim", "median", "met"], [[*bar, f"{median:.1f} s", reached]]
            ),
            markdown_table(
                ["", f"s until ready: {four}", f"s to the first step, or the end: {four}"],
                seconds,
            ),
            markdown_table(
                ["", f"images/s: {four}"], [[name, timings.as_cell(found)] for name, found in rates]
            ),
        ]
    )


if __name__ == "__main__":
    main()
