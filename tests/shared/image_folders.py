"""Small folders of random images, laid out like the public data set."""

import cv2
import numpy as np

from msa_flax.config import DataConfig

FOLDERS = [f"{part}/{name}" for part in ("train", "val") for name in ("normal", "fracture")]


def write_image(path, *, seed=0, size=40):
    """Writes random grey values as a file of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    path.write_bytes(cv2.imencode(path.suffix.lower(), pixels)[1].tobytes())


def write_data_set(root, *, folders=FOLDERS, count=2):
    """Writes so many images into each folder; returns the root."""
    for i, place in enumerate(folders):
        for k in range(count):
            write_image(root / place / f"CSFDV1B1{i} ({k + 1})-rotated{k}.png", seed=10 * i + k)
    return root


def config(root, **options):
    """Returns the configuration of a folder's images, as large as they are."""
    return DataConfig(root=str(root), **({"image_size": 40} | options))
