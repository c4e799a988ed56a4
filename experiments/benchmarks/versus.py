"""Times our training step against Keras 2.15's, interleaved, in one go.

    python experiments/benchmarks/versus.py [--rounds 12] [--batch 16] [--size 224] [--steps 8]

Both contestants stay loaded and take turns (A B A B ...), a turn being --steps training steps of
MobileNetV1 + MSA in float32: forward, backward, Adam, BatchNorm updates. Keras lives in a virtual
environment that is made in this package's cache from requirements-keras.txt. Machines are shared
and their speed drifts: read the ratios, which come from neighbouring turns.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
import venv

from msa_flax.weights import cache_dir

HERE = pathlib.Path(__file__).parent


def keras_python(cache: pathlib.Path) -> str:
    """Returns the interpreter of the Keras environment, made on first use."""
    folder = cache / "benchmark-keras"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "-q", "-r"]
        subprocess.run([*install, str(HERE / "requirements-keras.txt")], check=True)
        (folder / "complete").touch()
    return str(python)


class Contestant:
    """A worker process that does one turn whenever it is told to."""

    def __init__(self, python: str, script: str, arguments: list[str]) -> None:
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [python, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name = self._answer()["ready"]
        self.start_seconds = time.perf_counter() - began
        self.times: list[float] = []
        self.peak_gib = 0.0

    def turn(self) -> None:
        """Does one turn and keeps its time."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.times.append(answer["ms"])
        self.peak_gib = answer["peak_gib"]

    def _answer(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended without an answer")
        return json.loads(line)

    def row(self) -> str:
        """Returns the contestant's row of the table."""
        low, median, high = statistics.quantiles(self.times, n=4)
        return (
            f"| {self.name} | {min(self.times):.0f} | {low:.0f} | {median:.0f} | {high:.0f} | "
            f"{self.peak_gib:.2f} | {self.start_seconds:.0f} |"
        )


def main() -> None:
    """Runs the comparison and prints a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    arguments = [str(options.batch), str(options.size), str(options.steps)]
    ours = Contestant(sys.executable, "worker_ours.py", arguments)
    keras = Contestant(keras_python(cache_dir()), "worker_keras.py", arguments)
    for _ in range(options.rounds):
        ours.turn()
        keras.turn()
    date = time.strftime("%Y-%m-%d", time.gmtime())
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    print(f"training step, batch {options.batch}, {options.size} px, float32, ms; {date}")
    print(f"{machine}; {options.rounds} rounds of {options.steps} steps")
    print("| | min | q1 | median | q3 | peak GiB | start s |\n|---|---|---|---|---|---|---|")
    print(ours.row(), keras.row(), sep="\n")
    pairs = [a / b for a, b in zip(ours.times, keras.times, strict=True)]
    low, median, high = statistics.quantiles(pairs, n=4)
    medians = statistics.median(ours.times) / statistics.median(keras.times)
    minima = min(ours.times) / min(keras.times)
    print(
        f"ours / Keras: of medians {medians:.2f}, of minima {minima:.2f}, "
        f"pair by pair {low:.2f} {median:.2f} {high:.2f} (quartiles)"
    )


if __name__ == "__main__":
    main()
