"""A frozen backbone's feature maps, computed once and kept on disk."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from msa_flax.files import UserError, cache_dir

log = logging.getLogger("msa_flax")


class FeaturesError(UserError):
    """Features cannot be kept."""


def features_file(variables: PyTree, name: str) -> Path:
    """Returns the file in the cache folder for a frozen backbone's feature maps.

    Args:
        variables: of the network; those of its backbone are part of the file's name.
        name: what else the maps depend on: the network, the images and how they are scaled.
    """
    digest = hashlib.sha256()
    backbone = {key: tree["backbone"] for key, tree in variables.items() if "backbone" in tree}
    for path, leaf in jax.tree.leaves_with_path(backbone):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape}\n".encode())
        digest.update(np.asarray(leaf).tobytes())
    digest.update(name.encode())
    return cache_dir() / "features" / f"{digest.hexdigest()[:32]}.npy"


def cached_features(
    path: Path,
    compute: Callable[[np.ndarray], Any],
    images: np.ndarray,
    *,
    batch_size: int,
) -> np.ndarray:
    """Returns the feature maps of all images, float16 [n, fh, fw, c], read from disk as needed.

    Args:
        path: a ``.npy`` file whose name says what the maps depend on; used if it is there, else
            written whole or not at all.
        compute: images uint8 [batch_size, s, s] -> feature maps [batch_size, fh, fw, c].
        images: uint8 [n, s, s].
        batch_size: images at a time; the last ones are filled up.

    Raises:
        FeaturesError: a feature is not finite or too large for float16.
    """
    if path.exists():
        log.info("features of the frozen backbone: %s", path)
        return np.load(path, mmap_mode="r")
    log.info("features of the frozen backbone: computing those of %d images", len(images))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".npy")
    os.close(handle)
    try:
        _write(Path(name), compute, images, batch_size)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _write(path: Path, compute: Callable, images: np.ndarray, batch_size: int) -> None:
    found = None
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        filled = np.resize(part, (batch_size, *part.shape[1:]))
        maps = np.asarray(compute(filled), np.float32)[: len(part)]
        largest = np.abs(maps).max()
        if not largest <= np.finfo(np.float16).max:
            raise FeaturesError(
                f"the frozen backbone's features reach {largest}, expected finite numbers below "
                f"{np.finfo(np.float16).max}; are these the right weights and preprocessing?"
            )
        if found is None:
            shape = (len(images), *maps.shape[1:])
            found = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        found[start : start + len(part)] = maps
    if found is not None:
        found.flush()
