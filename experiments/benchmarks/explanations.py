"""Times explanations against a plain evaluation and against the package grad-cam, interleaved.

    python experiments/benchmarks/explanations.py [--rounds 6] [--size 224] [--batch 16]

Ours and the peer, PyTorch's eager mode with grad-cam 1.5.7, have paper 1's network with random
weights, stay loaded in a process each and take turns. A call explains a batch: ours for both
classes, of grey uint8 images, raw maps; the peer's for one class, of images that are ready, with
maps scaled and resized to the image, as its users get them. Methods that evaluate the network for
every channel have --perturbed images a call. "evaluation" is the prediction of the same batch.
"""

import argparse
import contextlib
import pathlib

import results
import timings
from contestants import KINDS, Contestant, take_turns
from timings import Ratio, Series

from msa_flax.files import markdown_table

TASKS = {
    "infer": "evaluation",
    "gradcam": "Grad-CAM",
    "gradcam_plus_plus": "Grad-CAM++",
    "layercam": "LayerCAM",
    "score_cam": "Score-CAM",
    "ablation_cam": "Ablation-CAM",
}
PERTURBED = ("score_cam", "ablation_cam")


def measure(
    contestants: list[Contestant], options: argparse.Namespace, task: str
) -> dict[str, Series]:
    """Returns what each contestant needed for a task, by its key; times are per image."""
    perturbed = task in PERTURBED
    batch = options.perturbed if perturbed else options.batch
    request = {"task": task, "batch": batch, "count": 1 if perturbed else 4}
    return take_turns(contestants, request, options.rounds, images=batch)


def main() -> None:
    """Runs all tasks, prints the table and writes its section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--size", type=int, default=224, help="pixels, a multiple of 32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--perturbed", type=int, default=2, help="images, where channels are lost")
    parser.add_argument("--results", type=pathlib.Path, default=results.RESULTS)
    options = parser.parse_args()
    found: dict[str, dict[str, Series]] = {}
    versions: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        contestants = []
        for kind in KINDS:
            if kind.key in ("ours", "torch"):
                contestants.append(Contestant(kind, [f"--size={options.size}"]))
                stack.callback(contestants[-1].close)
                versions |= contestants[-1].versions
        for task in TASKS:
            found[task] = measure(contestants, options, task)
            print(task, {key: round(s.median, 1) for key, s in found[task].items()}, flush=True)
        missing = [f"{c.kind.name}: {c.reason}." for c in contestants if c.reason]
    plain, rows = found["infer"]["ours"], []
    for task, series in found.items():
        ours, peer = series["ours"], series.get("torch")
        to_plain = f"{ours.median / plain.median:.2f}"
        peers = ["", "", "", ""]
        if peer and len(peer.turns) == len(ours.turns):
            peers = [timings.as_cell(peer.turns), *Ratio.of(ours, peer).cells()]
        memory = [f"{s.peak_gib:.2f}" if s else "" for s in (ours, peer)]
        rows.append([TASKS[task], timings.as_cell(ours.turns), to_plain, *peers, *memory])
    header = [
        "ms an image: minimum / quartiles",
        "ours",
        "by ours' evaluation",
        "grad-cam",
        "ours / grad-cam: medians",
        "minima",
        "pairs, quartiles",
        "peak GiB so far, ours",
        "grad-cam",
    ]
    text = "\n\n".join(
        [
            "## Explanations",
            f"{results.provenance()} {', '.join(f'{k} {v}' for k, v in versions.items())}.",
            " ".join(__doc__.split("\n\n")[2].split()),
            markdown_table(header, rows),
            *missing,
        ]
    )
    results.write_section(options.results, "saliency", text)
    print(text)


if __name__ == "__main__":
    main()
