"""Images of any number, kept as one array in a file and read when they are asked for.

A set that is larger than memory trains like any other: the operating system keeps in memory what it
has room for, and rows are read by their number, wherever they lie.
"""

import contextlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from msa_flax.files import written_whole


def write_images(path: Path, shape: tuple[int, ...], write: Callable[[np.ndarray], None]) -> None:
    """Writes images to a file, whole or not at all.

    Args:
        path: a ``.npy`` file.
        shape: [n, s, s].
        write: fills an array of this shape, whose pages the operating system writes when it must.

    Raises:
        OSError: the disk is full.
    """
    with written_whole(path) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        with temporary.open("r+b") as file:  # a full disk is an error here, later a crash
            os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END))
        write(array)
        array.flush()
        del array


def read_images(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the images in a file, uint8 of this shape, read as needed.

    Raises:
        ValueError: what is in the file is something else, or cut off.
        OSError: there is no such file.
    """
    images = np.load(path, mmap_mode="r") if 0 not in shape else np.zeros(shape, np.uint8)
    if images.shape != shape or images.dtype != np.uint8:
        raise ValueError(f"{path}: expected uint8 {shape}, got {images.dtype} {images.shape}")
    return images


def fetch(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns a copy of rows of an array.

    Those of a file are all asked for first, so that a disk reads them side by side; else each
    would wait for the one before, and neighbours that nobody wants would be read with it.

    Args:
        array: [n, ...].
        rows: whole numbers, of any shape.

    Returns:
        The rows [*shape, ...].
    """
    if isinstance(array, np.memmap) and array.flags.c_contiguous and array.size:
        _ask_for(array, np.ravel(rows))
    return np.array(array[rows])


def _ask_for(array: np.memmap, rows: np.ndarray) -> None:
    """Tells the operating system that rows of a file will be read (madvise(2), MADV_WILLNEED)."""
    memory: mmap.mmap = array._mmap  # type: ignore[attr-defined]
    first = array.offset % mmap.ALLOCATIONGRANULARITY  # the map begins at a page of the file
    size = array[0].nbytes
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it is advice
        for row in rows.tolist():
            start = first + row * size
            page = start - start % os.sysconf("SC_PAGE_SIZE")
            memory.madvise(mmap.MADV_WILLNEED, page, start + size - page)
