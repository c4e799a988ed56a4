"""Images and labels: reading, preprocessing, splitting, augmenting, batching.

TensorFlow is imported only when a prepared data set is read (:func:`load`) or batches are made
(:mod:`msa_flax.data.pipeline`); importing this package costs NumPy.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from msa_flax.config import DataConfig
from msa_flax.data.examples import DataError, Examples

# TensorFlow only moves bytes here. Its start-up lines would be the first thing a user sees, and the
# oneDNN notice is printed before its log level applies, so both have to be set before the import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

__all__ = ["DataError", "Examples", "load", "load_external", "load_files"]


def load(config: DataConfig) -> Examples:
    """Returns the data set of a configuration, every image preprocessed, sorted by example id.

    The first call prepares the data set with TFDS below :func:`files.cache_dir`; later calls
    read that copy for as long as the folder's listing (names, sizes, times) stays the same.

    Raises:
        DataError: the folder is not as expected, or holds files that cannot be read and
            ``config.on_bad_file`` is "error"; everything found is named.
    """
    from msa_flax.data import tfds

    return tfds.load(config)


def load_external(root: str | os.PathLike[str], config: DataConfig) -> Examples:
    """Returns an external set of images: ``ROOT/{train,val}/CLASS/`` or ``ROOT/CLASS/``.

    Args:
        root: the folder; where it has no ``train/`` and ``val/``, ``part`` is "".
        config: classes, patterns, image size, ``equalize`` and ``on_bad_file`` are used, nothing
            else.

    Raises:
        DataError: as in :func:`load`.
    """
    from msa_flax.data import scan

    return scan.read(scan.scan_folder(root, config), config)


def load_files(names: Sequence[str], config: DataConfig) -> Examples:
    """Returns image files of which nothing is known but their pixels; their ids are the names.

    Args:
        names: paths of n files.
        config: image size and ``equalize`` are used, nothing else.

    Raises:
        DataError: a file cannot be read, or is named twice.
    """
    import numpy as np

    from msa_flax.data import examples
    from msa_flax.data.images import preprocess, read_image

    size, equalize = config.image_size, config.equalize
    pictures = [read_image(Path(name)) for name in names]
    blank = {"label": -1, "group": "", "family": "", "slice_index": -1, "part": ""}
    rows = [
        {**blank, "example_id": name, "height": picture.shape[0], "width": picture.shape[1]}
        for name, picture in zip(names, pictures, strict=True)
    ]
    resized = [preprocess(p, size=size, equalize=equalize) for p in pictures]
    return examples.from_rows(rows, np.array(resized, np.uint8).reshape(-1, size, size))
