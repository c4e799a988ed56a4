"""Facts about image files and their pixels that may tell a label without a look at the anatomy."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data.dicom import is_dicom, metadata_bytes
from msa_flax.data.examples import Examples
from msa_flax.data.headers import read_header
from msa_flax.data.images import preprocess

SIZE = 224  # pixels, the side of the images that an audit compares with one another
BORDER = 0.04  # width of the border, as a share of the shorter side


def facts_of_file(data: bytes, name: str, image: np.ndarray) -> dict[str, float]:
    """Returns what is known of a file, in this order: about the file, then about its pixels.

    "bytes"; "height" and "width" in pixels; "channels"; "metadata", bytes that are neither pixels
    nor structure; then :func:`facts_of_pixels`.

    Args:
        data: the whole file.
        name: its name.
        image: its decoded pixels, uint8 [h, w].
    """
    if is_dicom(data[:132]):
        channels, metadata = 1, metadata_bytes(data)
    else:
        header = read_header(data, name)
        channels, metadata = header.channels, header.metadata
    about_file = {
        "bytes": len(data),
        "height": image.shape[0],
        "width": image.shape[1],
        "channels": channels,
        "metadata": metadata,
    }
    return about_file | facts_of_pixels(image)


def facts_of_pixels(image: np.ndarray) -> dict[str, float]:
    """Returns "mean" and "spread" (standard deviation), in grey levels; "border", "black".

    "border" is the mean of the outermost 4 %, "black" the share of zeros.

    Args:
        image: uint8 [h, w].
    """
    edge = max(1, round(BORDER * min(image.shape)))
    inner = image[edge:-edge, edge:-edge]
    outer = image.sum(dtype=np.int64) - inner.sum(dtype=np.int64)
    return {
        "mean": float(image.mean()),
        "spread": float(image.std()),
        "border": float(outer / (image.size - inner.size)),
        "black": float((image == 0).mean()),
    }


def with_facts(examples: Examples) -> Examples:
    """Returns images that were not read from files as :func:`folder.read` would for an audit.

    They are resized, and their facts are those of their pixels: there are no files.
    """
    facts = [facts_of_pixels(image) for image in examples.images]
    return dataclasses.replace(
        examples,
        images=np.stack([comparable(image) for image in examples.images]),
        masks=None,
        facts={name: np.array([row[name] for row in facts]) for name in facts[0]},
        file_hash=examples.pixels,
    )


def comparable(image: np.ndarray) -> np.ndarray:
    """Returns an image, uint8 [h, w], in the size that audits compare, uint8 [224, 224]."""
    if image.shape == (SIZE, SIZE):
        return image
    method = cv2.INTER_AREA if min(image.shape) > SIZE else cv2.INTER_CUBIC
    return cv2.resize(image, (SIZE, SIZE), interpolation=method)


def preparation(config: DataConfig, *, for_search: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from an image, uint8 [h, w], to what a table of images holds of it.

    Args:
        config: image size and ``equalize`` are used, for a network.
        for_search: make it comparable with other images instead, see :func:`comparable`.
    """
    if for_search:
        return comparable
    return functools.partial(preprocess, size=config.image_size, equalize=config.equalize)


def name_order(names: Sequence[str], groups: Sequence[str]) -> np.ndarray:
    """Returns the place of each file name among those of its group, 0..1, float64 [n].

    Numbers in names are compared by their value: 9 comes before 10.
    """
    order, group = np.zeros(len(names)), np.asarray(groups)
    for one in np.unique(group):
        rows = np.flatnonzero(group == one).tolist()
        for place, i in enumerate(sorted(rows, key=lambda i: natural_order(names[i]))):
            order[i] = place / max(len(rows) - 1, 1)
    return order


def natural_order(name: str) -> list[tuple[int, str]]:
    """Returns a key to sort names by, under which 9 comes before 10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
