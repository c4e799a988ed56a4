"""Images and labels: reading, preprocessing, splitting, augmenting, batching.

TensorFlow is imported only when a prepared data set is read (:func:`load`) or batches are made
(:mod:`msa_flax.data.pipeline`); importing this package costs NumPy.
"""

import os

from msa_flax.config import DataConfig
from msa_flax.data.examples import DataError, Examples

# TensorFlow only moves bytes here. Its start-up lines would be the first thing a user sees, and the
# oneDNN notice is printed before its log level applies, so both have to be set before the import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

__all__ = ["DataError", "Examples", "load", "load_external"]


def load(config: DataConfig) -> Examples:
    """Returns the data set of a configuration, every image preprocessed, sorted by example id.

    The first call prepares the data set with TFDS below :func:`examples.cache_dir`; later calls
    read that copy for as long as the folder's listing (names, sizes, times) stays the same.

    Raises:
        DataError: the folder is not as expected, or holds files that cannot be read and
            ``config.on_bad_file`` is "error"; everything found is named.
    """
    from msa_flax.data import builders

    return builders.load(config)


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
