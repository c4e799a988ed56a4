"""Images and labels: reading, preprocessing, splitting, augmenting, batching.

TensorFlow is imported only when a data set is read for the first time (:mod:`msa_flax.data.copies`)
or batches are made (:mod:`msa_flax.data.pipeline`); importing this package costs NumPy.
"""

import dataclasses
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

__all__ = [
    "DataError",
    "Examples",
    "inspect",
    "list_images",
    "load",
    "load_external",
    "load_files",
    "place_of_images",
    "settled",
    "with_place",
]


def settled(config: DataConfig) -> DataConfig:
    """Returns a configuration with what only the data tell, which a run must remember.

    Paths become absolute. A table of labels is split as its column ``split`` says (protocol
    "published") or, where it has none, by patient ("kfold"), whichever of the two was asked for.

    Raises:
        DataError: the table cannot be read, or a fold is asked for although the table has splits.
    """
    paths = {name: getattr(config, name) for name in ("root", "manifest")}
    paths = {name: p and os.path.abspath(os.path.expanduser(p)) for name, p in paths.items()}
    config = dataclasses.replace(config, **paths)
    if config.source != "manifest" or config.protocol not in ("published", "kfold"):
        return config
    from msa_flax.data.manifest import has_splits

    by_table = has_splits(config.manifest)
    if by_table and config.fold:
        raise DataError(
            f"data.fold: {config.manifest} says which split an image is in, so there are no folds; "
            "leave its column split out, or data.fold"
        )
    return dataclasses.replace(config, protocol="published" if by_table else "kfold")


def place_of_images(config: DataConfig) -> tuple[str, str]:
    """Returns the field that says where the images of a configuration are, and what it says."""
    field = "manifest" if config.source == "manifest" else "root"
    return field, getattr(config, field)


def with_place(config: DataConfig, place: str | None) -> DataConfig:
    """Returns the configuration of data whose folder, or table of labels, is elsewhere now."""
    config = dataclasses.replace(config)
    if place:
        setattr(config, place_of_images(config)[0], place)
    return config


def list_images(config: DataConfig) -> "Listing":
    """Lists the files of a configuration: of a table of labels, of the challenge, or of a folder.

    A folder needs parts only where the protocol does.

    Raises:
        DataError: the table or folder is not as expected.
    """
    from msa_flax.data.folder import list_folder
    from msa_flax.data.manifest import list_manifest

    if config.source == "manifest":
        return list_manifest(config.manifest, config)
    if config.source == "rsna2022":
        from msa_flax.data.rsna import list_rsna

        return list_rsna(config)
    by_part = config.protocol in ("published", "family")
    return list_folder(config.root, config, layout="parts" if by_part else "classes")


def load(config: DataConfig, *, for_search: bool = False) -> Examples:
    """Returns the data set of a configuration, every image preprocessed, sorted by example id.

    The first call prepares the data set with TFDS below :func:`files.cache_dir`; later calls read
    what is kept of it for as long as the files (names and content) and their table stay the same.

    Args:
        config: of the data.
        for_search: return the images not as a network sees them but as images are compared with
            one another, see :func:`msa_flax.data.facts.comparable`.

    Raises:
        DataError: the folder is not as expected, or holds files that cannot be read and
            ``config.on_bad_file`` is "error"; everything found is named.
    """
    from msa_flax.data import prepared
    from msa_flax.data.folder import check_bad_files

    with prepared.locked():
        source = prepared.find_source(config)
        kept = prepared.kept_of(config, source, for_search=for_search)
        if (examples := kept.read(config)) is None:
            from msa_flax.data import copies  # imports TensorFlow

            examples = copies.read(config, source, kept)
            kept.write(examples)
    bad_files = examples.bad_files
    skip, total = config.on_bad_file == "skip", len(examples) + len(bad_files)
    check_bad_files(bad_files, skip=skip, total=total)
    return examples


def load_external(
    root: str | os.PathLike[str], config: DataConfig, *, for_search: bool = False
) -> Examples:
    """Returns an external set of images: a folder as for ``kfold``, or a table of labels.

    It may be of one class.

    Args:
        root: the folder, ``ROOT/[PART/]CLASS/[GROUP/]FILE``, or the table, a file; where it has no
            parts, ``part`` is "".
        config: classes, patterns, image size, ``equalize`` and ``on_bad_file`` are used, nothing
            else.
        for_search: as in :func:`load`.

    Raises:
        DataError: as in :func:`load`.
    """
    from msa_flax.data.folder import list_folder
    from msa_flax.data.manifest import list_manifest

    if Path(root).expanduser().is_file():
        listing = list_manifest(root, config)
    else:
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
