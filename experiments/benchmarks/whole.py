"""Times the whole of paper 1's experiment, ours and as a Keras 2.15 user writes it.

    python experiments/benchmarks/whole.py --root DIR --weights FILE.h5 [--epochs 15]

One after the other, each in a process of its own.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import contestants
import results
import timings

from msa_flax.files import markdown_table

HERE = pathlib.Path(__file__).parent
METHOD = """\
Epochs: {epochs}; batch 16, 224 px, ImageNet weights, validation after every epoch, evaluation of
validation and test at the end. Ours starts with an empty cache, so that it prepares the data and
compiles; it also writes checkpoints, draws figures and explains test images, which the Keras script
does not. Test scores are those of our epoch of lowest validation loss and of Keras's last epoch.
"""


def run(command: list[str], **variables: str) -> tuple[dict[str, float], str]:
    """Runs a command; returns its wall-clock seconds and peak memory, and its last line."""
    began = time.perf_counter()
    environment = contestants.clean_environment() | variables
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, env=environment)
        # Of this child alone, and known only to the call that also waits for it.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
        output.seek(0)
        lines = output.read().splitlines()
    peak = usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    return {"wall": wall, "peak": peak}, lines[-1] if lines else ""


def ours(options: argparse.Namespace) -> dict[str, float]:
    """Runs the train command in a temporary workdir."""
    with tempfile.TemporaryDirectory() as name:
        workdir = pathlib.Path(name) / "run"
        command = [sys.executable, "-m", "msa_flax.train", "--workdir", str(workdir)]
        command += [f"--config={HERE.parent / 'paper1_msa.py'}"]
        command += [f"--config.data.root={options.root}", f"--config.train.epochs={options.epochs}"]
        command += [f"--config.model.pretrained={options.weights}"]
        found, _ = run(command, MSA_FLAX_CACHE=str(pathlib.Path(name) / "cache"))
        metrics = json.loads((workdir / "eval/test/metrics.json").read_text())["metrics"]
        train = json.loads((workdir / "run.json").read_text())["seconds"]["train"]
    scores = {name: metrics[name]["value"] for name in ("accuracy", "auc")}
    return {**found, "train": train, **scores}


def keras(options: argparse.Namespace) -> dict[str, float]:
    """Runs the Keras script in its environment."""
    script = [contestants.interpreter("keras"), str(HERE / "paper1_keras.py")]
    files = ["--root", options.root, "--weights", options.weights]
    found, last = run([*script, *files, "--epochs", str(options.epochs)])
    said = json.loads(last)
    scores = {name: said["test"][name] for name in ("accuracy", "auc")}
    return {**found, "train": said["seconds"]["train"], **scores}


def text(a: dict[str, float], b: dict[str, float], options: argparse.Namespace) -> str:
    """Returns the section."""
    shown = {
        "wall-clock time of everything, s": ("wall", timings.short),
        "training, validation included, s": ("train", timings.short),
        "peak resident memory, GiB": ("peak", "{:.2f}".format),
        "test accuracy": ("accuracy", "{:.4f}".format),
        "test AUC": ("auc", "{:.4f}".format),
    }
    rows = []
    for name, (key, form) in shown.items():
        ratio = f"{a[key] / b[key]:.2f}" if key in ("wall", "train", "peak") else ""
        rows.append([name, form(a[key]), form(b[key]), ratio])
    return "\n\n".join(
        [
            "## The whole experiment",
            results.provenance(),
            METHOD.format(epochs=options.epochs).strip(),
            markdown_table(["", "msa_flax", "Keras 2.15", "ours / Keras"], rows),
        ]
    )


def main() -> None:
    """Runs both, prints the comparison and writes its section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="the folder that holds train/ and val/")
    parser.add_argument("--weights", required=True, help="Keras's MobileNet file without top")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--results", type=pathlib.Path, default=results.RESULTS)
    options = parser.parse_args()
    section = text(ours(options), keras(options), options)
    print(section)
    results.write_section(options.results, "whole", section)


if __name__ == "__main__":
    main()
