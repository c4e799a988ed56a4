"""Times finding families by pixels, and counts what is found, as a set of images grows.

    python experiments/benchmarks/families.py [--images 1000 5000 20000] [--copies 20]

Sources are slices of the package's phantom; their copies are rotated about the centre by any angle,
every second one sharpened, every fifth mirrored. Each size is a process of its own, so that its
peak memory is that size's. That of 20,000 includes 1 GiB of images.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import cv2
import numpy as np
import results

from msa_flax.data import phantom
from msa_flax.data.facts import SIZE
from msa_flax.data.families import find_families
from msa_flax.files import markdown_table
from msa_flax.training.workdir import peak_memory_gib


def images(count: int, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns shuffled images, uint8 [n, 224, 224], and the source of each, int [n]."""
    rng = np.random.default_rng(0)
    found, source = [], []
    for i in range(count // copies):
        drawn = phantom.draw_slice(0, i // 8, i % 8).image
        original = cv2.resize(drawn, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        for j in range(copies):
            found.append(copy(original, j, rng) if j else original)
            source.append(i)
    order = rng.permutation(len(found))
    return np.stack(found)[order], np.array(source)[order]


def copy(image: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a copy as a data set that was augmented offline holds them."""
    centre = ((SIZE - 1) / 2, (SIZE - 1) / 2)
    turn = cv2.getRotationMatrix2D(centre, float(rng.uniform(0, 360)), 1.0)
    image = cv2.warpAffine(image, turn, (SIZE, SIZE))
    if number % 5 == 0:
        image = image[:, ::-1].copy()
    if number % 2 == 0:
        image = cv2.addWeighted(image, 2.5, cv2.GaussianBlur(image, (0, 0), 1), -1.5, 0)
    return image


def measure(count: int, copies: int) -> dict[str, float]:
    """Returns seconds, peak memory and how right the families are, for one size."""
    pixels, source = images(count, copies)
    before = peak_memory_gib()
    began = time.perf_counter()
    family = find_families(pixels).family
    seconds = time.perf_counter() - began
    _, first = np.unique(source, return_index=True)
    main = [np.bincount(family[source == one]).argmax() for one in range(len(first))]
    others = [len(set(source[family == one].tolist())) > 1 for one in np.unique(family)]
    mixed = np.isin(family, np.unique(family)[others])
    return {
        "images": len(pixels),
        "seconds": seconds,
        "ms an image": 1e3 * seconds / len(pixels),
        "peak GiB": peak_memory_gib(),
        "before, GiB": before,
        "in the source's family": float((family == np.array(main)[source]).mean()),
        "with another source": float(mixed.mean()),
    }


def main() -> None:
    """Runs every size, prints the table and writes its section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--copies", type=int, default=20, help="images per source, itself included")
    parser.add_argument("--one", action="store_true", help="this process's size only, as JSON")
    parser.add_argument("--results", type=pathlib.Path, default=results.RESULTS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.images[0], options.copies)))
        return
    rows = []
    for count in options.images:
        command = [sys.executable, __file__, "--one", "--images", str(count)]
        command += ["--copies", str(options.copies)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout))
        print(rows[-1], flush=True)
    cells = [[f"{value:.4g}" for value in row.values()] for row in rows]
    text = "\n\n".join(
        [
            "## Finding copies",
            results.provenance(),
            " ".join(__doc__.split("\n\n")[2].split()),
            markdown_table(list(rows[0]), cells),
        ]
    )
    results.write_section(options.results, "families", text)


if __name__ == "__main__":
    main()
