"""A frozen backbone's feature maps, computed once and kept on disk."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from msa_flax.files import UserError, batches, cache_dir, written_whole

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
        path: a ``.npy`` file, from :func:`features_file`; read if it is there, else written.
        compute: images uint8 [batch_size, s, s] -> feature maps [batch_size, fh, fw, c].
        images: uint8 [n, s, s].
        batch_size: images at a time.

    Raises:
        FeaturesError: a feature is not finite or too large for float16.
    """
    if path.exists():
        log.info("features of the frozen backbone: %s", path)
        return np.load(path, mmap_mode="r")
    log.info("features of the frozen backbone: computing those of %d images", len(images))
    with written_whole(path) as temporary:
        _write(temporary, compute, images, batch_size)
    return np.load(path, mmap_mode="r")


def _write(path: Path, compute: Callable, images: np.ndarray, batch_size: int) -> None:
    features, done = None, 0
    for batch, count in batches(images, batch_size):
        maps = np.asarray(compute(batch), np.float32)[:count]
        largest = np.abs(maps).max()
        if not largest <= np.finfo(np.float16).max:
            raise FeaturesError(
                f"the frozen backbone's features reach {largest}, expected finite numbers below "
                f"{np.finfo(np.float16).max}; are these the right weights and preprocessing?"
            )
        if features is None:
            shape = (len(images), *maps.shape[1:])
            features = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        features[done : done + count] = maps
        done += count
    if features is not None:
        features.flush()
