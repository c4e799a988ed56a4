"""Measures which copies the search by pixels finds, kind by kind, and what it takes for a copy.

    python experiments/copy_search.py [--root FOLDER_OF_THE_PUBLIC_SET]

One copy of one kind is made of every source, and all are searched together: slices of eight
patients of the phantom, at the same eight levels, and one image of every third source of the
public data set, which come from four series. A hit is a copy in the family of its source; a false
hit is an image in a family with another source.
"""

import argparse
import pathlib
import re
import time
from collections.abc import Callable

import cv2
import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data import inspect
from msa_flax.data.facts import comparable
from msa_flax.data.families import find_families
from msa_flax.data.folder import list_folder
from msa_flax.data.phantom import draw_patient
from msa_flax.files import markdown_table

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def warped(
    image: np.ndarray, *, degrees: float = 0, zoom: float = 1, move: float = 0
) -> np.ndarray:
    """Returns an image turned and zoomed about its centre, then moved by a share of its side."""
    side = np.array(image.shape[::-1], np.float64)
    matrix = cv2.getRotationMatrix2D(tuple((side - 1) / 2), degrees, zoom)
    matrix[:, 2] += move * side * np.array([1, 0.6])
    return cv2.warpAffine(image, matrix, image.shape[::-1])


def inside(image: np.ndarray, share: float) -> np.ndarray:
    """Returns an image without a border of a share of its side."""
    edge = round(share * len(image))
    return image[edge:-edge, edge:-edge]


def padded(image: np.ndarray, share: float) -> np.ndarray:
    """Returns an image with a black border of a share of its side."""
    edge = round(share * len(image))
    return cv2.copyMakeBorder(image, edge, edge, edge, edge, cv2.BORDER_CONSTANT)


def noisy(image: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Returns an image with added noise."""
    return np.clip(np.rint(image + rng.normal(0, sigma, image.shape)), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Returns an image after JPEG compression."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


def bent(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns an image after an elastic deformation of up to about 5 pixels."""
    field = [cv2.GaussianBlur(rng.uniform(-1, 1, image.shape), (0, 0), 12) for _ in range(2)]
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    dx, dy = (5 * one / np.abs(one).max() for one in field)
    place = (x + dx).astype(np.float32), (y + dy).astype(np.float32)
    return cv2.remap(image, *place, cv2.INTER_LINEAR)


KINDS: dict[str, Change] = {
    "rotated by any angle": lambda i, r: warped(i, degrees=r.uniform(0, 360)),
    "mirrored": lambda i, r: np.ascontiguousarray(i[:, ::-1]),
    "brighter, clipped": lambda i, r: np.clip(1.2 * i + 12, 0, 255).astype(np.uint8),
    "shifted by 4 %": lambda i, r: warped(i, move=0.04),
    "shifted by 15 %": lambda i, r: warped(i, move=0.15),
    "zoomed by 1.15": lambda i, r: warped(i, zoom=1.15),
    "zoomed by 0.85": lambda i, r: warped(i, zoom=0.85),
    "cropped by 6 %": lambda i, r: inside(i, 0.06),
    "cropped by 15 %": lambda i, r: inside(i, 0.15),
    "padded by 10 %": lambda i, r: padded(i, 0.10),
    "padded by 20 %": lambda i, r: padded(i, 0.20),
    "inverted": lambda i, r: 255 - i,
    "mirrored, rotated and shifted": lambda i, r: warped(i[:, ::-1], degrees=33, move=0.06),
    "inverted and cropped by 6 %": lambda i, r: 255 - inside(i, 0.06),
    "JPEG of quality 90": lambda i, r: jpeg(i, 90),
    "JPEG of quality 50": lambda i, r: jpeg(i, 50),
    "noise of 3 grey levels": lambda i, r: noisy(i, r, 3),
    "noise of 10 grey levels": lambda i, r: noisy(i, r, 10),
    "shifted, JPEG of quality 90": lambda i, r: jpeg(warped(i, move=0.04), 90),
    "bent": bent,
}


def phantom() -> list[np.ndarray]:
    """Returns the slices of eight patients."""
    return [one.image for patient in range(8) for one in draw_patient(3, patient)]


def public(root: pathlib.Path) -> list[np.ndarray]:
    """Returns one image of every third source of the public data set."""
    listing = list_folder(root, DataConfig(family_pattern="", group_pattern=""), layout="any")
    examples = inspect(listing)
    names = [re.sub(r"(_1)?(-\w+)*\.png$", "", name) for name in examples.example_id.tolist()]
    sources = [name.rpartition("/")[2] for name in names]
    _, first = np.unique(sources, return_index=True)
    return [examples.images[i] for i in first[::3]]


def measure(sources: list[np.ndarray], change: Change) -> tuple[int, int, int]:
    """Returns hits, false hits, and pairs that could not be told, of one kind."""
    copies = [change(image, np.random.default_rng([i])) for i, image in enumerate(sources)]
    found = find_families(np.stack([comparable(image) for image in [*sources, *copies]]))
    number = len(sources)
    source = np.tile(np.arange(number), 2)
    hits = found.family[number:] == found.family[:number]
    mixed = [len(set(source[found.family == one].tolist())) > 1 for one in found.family.tolist()]
    return int(hits.sum()), sum(mixed), len(found.unclear)


def main() -> None:
    """Measures every kind on every set and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, help="folder of the public data set")
    options = parser.parse_args()
    sets = {"phantom": phantom()}
    if options.root:
        sets["public"] = public(options.root)
    head = ["copies"]
    for name, sources in sets.items():
        head += [f"{name}, found of {len(sources)}", "false", "cannot be told"]
    rows, began = [], time.perf_counter()
    for kind, change in KINDS.items():
        counts = [n for sources in sets.values() for n in measure(sources, change)]
        rows.append([kind, *map(str, counts)])
        print(rows[-1], flush=True)
    print(markdown_table(head, rows))
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
