"""Images and labels: reading, preprocessing, splitting, augmenting, batching.

TensorFlow is imported only when a prepared data set is read (:func:`load`) or batches are made
(:mod:`msa_flax.data.pipeline`); importing this package costs NumPy.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msa_flax.config import DataConfig
from msa_flax.data.examples import DataError, Examples

if TYPE_CHECKING:
    from msa_flax.data.folder import Listing, Progress

# TensorFlow only moves bytes here. Its start-up lines would be the first thing a user sees, and the
# oneDNN notice is printed before its log level applies, so both have to be set before the import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

__all__ = ["DataError", "Examples", "inspect", "load", "load_external", "load_files"]


def load(config: DataConfig, *, for_search: bool = False) -> Examples:
    """Returns the data set of a configuration, every image preprocessed, sorted by example id.

    The first call prepares the data set with TFDS below :func:`files.cache_dir`; later calls
    read that copy for as long as the folder's files (names and content) stay the same.

    Args:
        config: of the data.
        for_search: return the images not as a network sees them but as images are compared with
            one another, see :func:`msa_flax.data.facts.comparable`.

    Raises:
        DataError: the folder is not as expected, or holds files that cannot be read and
            ``config.on_bad_file`` is "error"; everything found is named.
    """
    from msa_flax.data import tfds

    return tfds.load(config, for_search=for_search)


def load_external(
    root: str | os.PathLike[str], config: DataConfig, *, for_search: bool = False
) -> Examples:
    """Returns an external set of images: ``ROOT/{train,val}/CLASS/`` or ``ROOT/CLASS/``.

    It may be of one class.

    Args:
        root: the folder; where it has no ``train/`` and ``val/``, ``part`` is "".
        config: classes, patterns, image size, ``equalize`` and ``on_bad_file`` are used, nothing
            else.
        for_search: as in :func:`load`.

    Raises:
        DataError: as in :func:`load`.
    """
    from msa_flax.data.folder import list_folder

    listing = list_folder(root, config, layout="external")
    return _read(listing, config, skip=config.on_bad_file == "skip", for_search=for_search)


def load_files(names: Sequence[str], config: DataConfig, *, skip: bool = False) -> Examples:
    """Returns image files of which nothing is known but their pixels; their ids are the names.

    Args:
        names: paths of n files.
        config: image size and ``equalize`` are used, nothing else.
        skip: whether files that cannot be read are only listed, in ``bad_files``.

    Raises:
        DataError: files cannot be read, with ``skip`` all of them, and each is named; or one is
            named twice.
    """
    from msa_flax.data.folder import File, Listing

    files = tuple(File(path=Path(name), example_id=name) for name in names)
    classes = tuple(config.classes)
    listing = Listing(root=Path(), classes=classes, files=files, bad_files=(), config=config)
    return _read(listing, config, skip=skip)


def inspect(listing: "Listing", *, progress: "Progress | None" = None) -> Examples:
    """Returns the images of a listing as an audit sees them: in one size, with facts about files.

    Args:
        listing: what :func:`msa_flax.data.folder.list_folder` found.
        progress: called after each file.

    Raises:
        DataError: fewer than two of the files can be used.
    """
    from msa_flax.data.facts import comparable
    from msa_flax.data.folder import first_reasons, read

    examples = read(listing, comparable, progress=progress)
    if len(examples) < 2:
        raise DataError(
            f"{listing.root}: expected two or more usable images, found {len(examples)}; "
            f"{len(examples.bad_files)} files cannot be used: {first_reasons(examples.bad_files)}"
        )
    return examples


def _read(
    listing: "Listing", config: DataConfig, *, skip: bool, for_search: bool = False
) -> Examples:
    from msa_flax.data.facts import preparation
    from msa_flax.data.folder import check_bad_files, read

    examples = read(listing, preparation(config, for_search=for_search))
    bad_files = examples.bad_files
    check_bad_files(bad_files, skip=skip, total=len(examples) + len(bad_files))
    return examples
