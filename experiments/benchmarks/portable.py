"""Times the portable model: from the start of a process to its first result, and images a second.

    python experiments/benchmarks/portable.py [--starts 5] [--rounds 6]

Beside it: onnxruntime on the model's own model.onnx (needs the extra onnx), a saved model of Keras
2.15, and torch.export of PyTorch, each in an environment of its own. The network is paper 1's at
224 pixels and full width, untrained: weights do not change its speed.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import contestants
import cv2
import numpy as np
import results
import timings
from contestants import Contestant, Kind, take_turns
from predict import first_result, make_run

from msa_flax.data import phantom
from msa_flax.exporting import programs
from msa_flax.exporting.onnx_graph import OnnxError
from msa_flax.files import markdown_table
from msa_flax.results.exports import export_run
from msa_flax.run import Run

SECONDS, SIZE = 2.5, 1.1  # the bars: a later start to its first result; folder by float32 weights
BATCHES = (1, 16)
KINDS = (
    Kind("ours", "portable model", "", "worker_portable.py", "ours"),
    Kind("onnx", "onnxruntime", "", "worker_portable.py", "onnx"),
    Kind("keras", "Keras 2.15, saved model", "keras", "worker_portable.py", "keras"),
    Kind("torch", "PyTorch, torch.export", "torch", "worker_portable.py", "torch"),
)
METHOD = """\
"predict --model" is the command on one PNG file, from the start of its process to the first row on
disk: the first start compiles, later ones find the compiled programs in the cache. It computes a
whole batch of 32 for that one image. The others are a process that imports, loads the file and
predicts one image in memory; "portable model" is ours as they are. Starts are in turns, after one
that is not counted; so are batches, each waiting for the logits in host memory. Ours and
onnxruntime take grey uint8 images, Keras and PyTorch what their network takes: float32, three
channels, 0..1. The bar of batch 16 is to be at least as fast as any of them.
"""


def export(run: Run, path: pathlib.Path) -> bool:
    """Exports a run, as ONNX too where that can be; returns whether it could."""
    try:
        export_run(run, path, zipped=False, onnx=True)
        return True
    except OnnxError as error:
        print(f"without onnxruntime: {error}", file=sys.stderr)
        export_run(run, path, zipped=False)
        return False


def make_peers(folder: pathlib.Path, size: int) -> dict[str, pathlib.Path]:
    """Returns the files of the peers, written in their own environments."""
    paths = {"keras": folder / "keras", "torch": folder / "torch.pt2"}
    for key, path in paths.items():
        command = [contestants.interpreter(key), str(contestants.HERE / "worker_portable.py")]
        command += ["--make", f"--form={key}", f"--network={path}", f"--size={size}"]
        subprocess.run(command, check=True, env=contestants.clean_environment())
    return paths


def starts(paths: dict[str, pathlib.Path], size: int, count: int) -> dict[str, list[float]]:
    """Returns seconds from start to first result of each, in turns; the first is left out."""
    found: dict[str, list[float]] = {key: [] for key in paths}
    for _ in range(1 + count):
        for kind in (kind for kind in KINDS if kind.key in paths):
            one = Contestant(kind, [f"--size={size}", f"--network={paths[kind.key]}"])
            one.close()
            if one.reason:
                raise SystemExit(f"{kind.name}: {one.reason}")
            found[kind.key].append(one.start_seconds)
    return {key: seconds[1:] for key, seconds in found.items()}


def rates(
    paths: dict[str, pathlib.Path], size: int, rounds: int
) -> tuple[dict[int, dict[str, timings.Series]], str]:
    """Returns times a batch by size of the batch, and the versions."""
    kinds = [kind for kind in KINDS if kind.key in paths]
    running = [Contestant(k, [f"--size={size}", f"--network={paths[k.key]}"]) for k in kinds]
    found = {}
    try:
        for batch in BATCHES:
            request = {"task": "infer", "batch": batch, "count": 32 // batch}
            found[batch] = take_turns(running, request, rounds)
    finally:
        for one in running:
            one.close()
    versions = {name: text for one in running for name, text in one.versions.items()}
    return found, ", ".join(f"{name} {text}" for name, text in versions.items())


def rows(
    command: Sequence[float],
    started: dict[str, list[float]],
    measured: dict[int, dict[str, timings.Series]],
) -> list[list[str]]:
    """Returns the rows of the table."""
    made = [["predict --model, first start", f"{command[0]:.2f}", *([""] * 2 * len(BATCHES))]]
    made.append(["predict --model, later", timings.as_cell(command[1:]), *made[0][2:]])
    for kind in (kind for kind in KINDS if kind.key in started):
        cells = [kind.name, timings.as_cell(started[kind.key])]
        for batch in BATCHES:
            series, ours = measured[batch][kind.key], measured[batch]["ours"]
            pairs = [1e3 * batch / turn for turn in series.turns]
            cells.append(timings.as_cell(pairs))
            ratio = timings.Ratio.of(series, ours)
            cells.append("" if kind.key == "ours" else f"{ratio.medians:.2f} ({ratio.minima:.2f})")
        made.append(cells)
    return made


def bars(
    command: Sequence[float], measured: dict[int, dict[str, timings.Series]], share: float
) -> list[list[str]]:
    """Returns the bars and whether they are met."""
    later, largest = statistics.median(command[1:]), measured[BATCHES[-1]]
    medians = {key: series.median for key, series in largest.items()}
    ours = medians.pop("ours")
    fastest = min(medians, key=lambda key: medians[key])
    speed = medians[fastest] / ours
    return [
        [
            "later start to first result",
            f"<= {SECONDS:g} s",
            f"{later:.2f} s",
            _met(later <= SECONDS),
        ],
        ["batch 16, fastest other by ours", ">= 1", f"{speed:.2f} ({fastest})", _met(speed >= 1)],
        ["folder by float32 weights", f"<= {SIZE:g}", f"{share:.3f}", _met(share <= SIZE)],
    ]


def _met(met: bool) -> str:
    return "yes" if met else "no"


def main() -> None:
    """Runs everything, prints it and writes its section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=5, help="after a first one")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--results", type=pathlib.Path, default=results.RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run = make_run(folder / "run")
        size = run.config.data.image_size
        paths = {"ours": folder / "model", **make_peers(folder, size)}
        if export(run, folder / "model"):
            paths["onnx"] = folder / "model"
        weights = sum(array.nbytes for array in programs.flat(run.folded).values())
        whole = sum(p.stat().st_size for p in paths["ours"].iterdir() if p.suffix != ".onnx")
        image = folder / "image.png"
        cv2.imwrite(str(image), np.ascontiguousarray(phantom.draw_slice(1, 0, 0).image))
        given, before = ["--model", str(paths["ours"])], dict(os.environ)
        os.environ["MSA_FLAX_CACHE"] = str(folder / "cache")  # nothing is compiled yet
        command = [
            first_result(given, folder / f"out-{i}", image) for i in range(1 + options.starts)
        ]
        os.environ.clear()
        os.environ.update(before)
        started = starts(paths, size, options.starts)
        measured, versions = rates(paths, size, options.rounds)
    four = "min / q1 / median / q3"
    head = ["", f"first result, s: {four}"]
    for batch in BATCHES:
        head += [f"images/s at {batch}: {four}", "time by ours, medians (minima)"]
    section = "\n\n".join(
        [
            "## The portable model",
            f"{results.provenance()} {versions}.",
            METHOD.strip(),
            markdown_table(head, rows(command, started, measured)),
            markdown_table(["bar", "", "came", "met"], bars(command, measured, whole / weights)),
        ]
    )
    print(section)
    results.write_section(options.results, "portable", section)


if __name__ == "__main__":
    main()
