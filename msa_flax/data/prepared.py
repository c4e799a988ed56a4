"""Prepared copies of data sets: made once by TFDS builders, kept in the cache, read as needed.

A copy holds the pixels of the files. Beside them, every image size and equalisation that was asked
for has one array, see :mod:`msa_flax.data.stored`. A prepared folder, which a user has made with
``python -m msa_flax.prepare``, is such a copy; its arrays alone are kept in the cache.
"""

import contextlib
import fcntl
import functools
import hashlib
import io
import itertools
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging as absl_logging

from msa_flax.config import DataConfig
from msa_flax.data.examples import DataError, Examples, from_rows
from msa_flax.data.facts import SIZE, preparation
from msa_flax.data.folder import check_bad_files, listed
from msa_flax.data.images import decode, resize_mask
from msa_flax.data.layout import PARTS
from msa_flax.data.shards import check_prepared, damaged_shards, read_record, refused_files
from msa_flax.data.stored import kept_images
from msa_flax.data.tfds import Folder, Phantom, folder_builder, phantom_builder
from msa_flax.files import cache_dir, read_json, write_json

log = logging.getLogger("msa_flax")


def load(config: DataConfig, *, for_search: bool = False) -> Examples:
    """Prepares the data set of a configuration if need be, and reads it; see ``data.load``."""
    data_dir = cache_dir() / "datasets"
    make_builder = phantom_builder if config.source == "phantom" else folder_builder
    with _locked(data_dir), _quiet():
        if config.source == "rsna2022" and read_record(config.root):
            return _read_folder(config, data_dir, for_search=for_search)
        builder = make_builder(config, data_dir=data_dir)
        prepare(builder)
        return read(builder, config, for_search=for_search)


def prepare(builder: Folder | Phantom) -> None:
    """Writes the prepared copy unless it exists: below a temporary name, then renamed.

    What a killed process left behind is removed, and so are the copies of earlier states of the
    same folder: the cache does not grow.
    """
    current = builder.data_path.parent
    for rest in current.glob("*incomplete*"):
        shutil.rmtree(rest, ignore_errors=True)
    if not builder.data_path.exists():
        content, folder = builder.builder_config.content, cache_dir()
        log.info("preparing %s (done once, kept in %s)", content, folder)
    builder.download_and_prepare()
    if isinstance(builder, Folder):
        _remove_earlier(current)


def _remove_earlier(current: pathlib.Path) -> None:
    """Removes what is kept of earlier states of the place that a name begins with."""
    for old in current.parent.glob(f"{current.name.partition('-')[0]}-*"):
        if old.name != current.name:
            shutil.rmtree(old, ignore_errors=True)


def _read_folder(config: DataConfig, data_dir: pathlib.Path, *, for_search: bool) -> Examples:
    """Returns what is in a prepared folder, as :func:`read` does."""
    root, content = pathlib.Path(config.root).expanduser().absolute(), check_prepared(config)
    place = hashlib.sha256(os.fsencode(root)).hexdigest()
    arrays = data_dir / "arrays" / f"{place[:8]}-{content[:16]}"
    _remove_earlier(arrays)
    builder, bad_files = tfds.builder_from_directory(root), refused_files(root)
    if not arrays.exists():
        log.info("reading %s (done once for each image size, kept in %s)", root, arrays)
    return read(builder, config, for_search=for_search, arrays=arrays, bad_files=bad_files)


def read(
    builder: tfds.core.DatasetBuilder,
    config: DataConfig,
    *,
    for_search: bool = False,
    arrays: pathlib.Path | None = None,
    bad_files: Sequence[tuple[str, str]] | None = None,
) -> Examples:
    """Returns a prepared copy, every image preprocessed, every mask resized.

    Images and masks are kept in files of the copy, and read when they are asked for: they may be
    more than memory holds. A file that is not what was written is written again.

    Args:
        builder: its copy is prepared.
        config: image size, ``equalize`` and ``on_bad_file`` are used.
        for_search: see :func:`msa_flax.data.load`; masks are left out.
        arrays: the folder of the files of images and masks; None: that of the copy.
        bad_files: (name, reason) of what was left out; None: as the copy says.

    Raises:
        DataError: unreadable files (see :func:`check_bad_files`), or a damaged copy.
    """
    total = sum(split.num_examples for split in builder.info.splits.values())
    if bad_files is None:
        bad_files = [
            (name, why) for name, why in (builder.info.metadata or {}).get("bad_files", ())
        ]
    skip = config.on_bad_file == "skip"
    check_bad_files(bad_files, skip=skip, total=total + len(bad_files))
    size = SIZE if for_search else config.image_size
    kind = "search" if for_search else f"{size}-{config.equalize}"
    path = (arrays or builder.data_path) / f"{kind}.npy"
    prepare_image = preparation(config, for_search=for_search)
    to_mask = functools.partial(resize_mask, size=size)
    masked = "mask" in builder.info.features and not for_search

    def stored() -> Examples:
        rows = sorted(_rows(builder), key=lambda row: row["example_id"])
        place = {row["example_id"]: i for i, row in enumerate(rows)}
        kept = functools.partial(_kept, builder, place=place, size=size)
        images = kept(path, "image", prepare_image)
        masks = kept(path.with_name(f"{kind}-masks.npy"), "mask", to_mask) if masked else None
        return from_rows(rows, images, masks=masks, bad_files=bad_files, classes=config.classes)

    record, was_there = path.with_suffix(".json"), path.exists()
    try:
        with contextlib.suppress(ValueError):  # the file is damaged
            examples = stored()
            if was_there and examples.fingerprint == read_json(record).get("fingerprint"):
                return examples
        if was_there:
            log.warning("%s is not what was written, and is written again", path)
            for one in path.parent.glob(f"{kind}*.npy"):
                one.unlink()
            examples = stored()
    except tf.errors.DataLossError as error:
        raise DataError(_damage(builder.data_path)) from error
    write_json(record, {"fingerprint": examples.fingerprint})
    return examples


def _damage(folder: pathlib.Path) -> str:
    """Says what of a copy, or of a prepared folder, is damaged, and what to do."""
    if damaged := damaged_shards(folder):
        names = listed([str(path) for path in damaged])
        return f"damaged: {names}; delete that and give the command msa_flax.prepare again"
    return f"the prepared copy is damaged; delete {folder}"


def _kept(
    builder: tfds.core.DatasetBuilder,
    path: pathlib.Path,
    name: str,
    convert: Callable[[np.ndarray], np.ndarray],
    *,
    place: dict[str, int],
    size: int,
) -> np.ndarray:
    """Returns what a copy's images or masks are converted to, uint8 [n, size, size], of a file.

    Args:
        builder: its copy is prepared.
        path: the file, which is written if there is none.
        name: "image" or "mask".
        convert: uint8 [h, w] -> uint8 [size, size].
        place: the position of each example id.
        size: pixels a side.
    """

    def write(array: np.ndarray) -> None:
        def fill(row: dict[str, Any]) -> None:
            array[place[row["example_id"]]] = convert(decode(row[name], "stored.png"))

        rows = _rows(builder, name)
        with ThreadPoolExecutor() as pool:  # OpenCV lets other threads run while it works
            while some := list(itertools.islice(rows, 256)):  # a pool's queue has no limit
                list(pool.map(fill, some))

    return kept_images(path, (len(place), size, size), write)


def _rows(builder: tfds.core.DatasetBuilder, pixels: str = "") -> Iterator[dict[str, Any]]:
    """Yields the fields of every stored example, and its part.

    Args:
        builder: its copy is prepared.
        pixels: "image" or "mask", to have that as a PNG file beside the id; "" for all the rest.
    """
    names = {"example_id", pixels} if pixels else {*builder.info.features} - {"image", "mask"}
    decoding = tfds.decode.PartialDecoding(
        dict.fromkeys(names, True), {pixels: tfds.decode.SkipDecoding()} if pixels else None
    )
    for split in builder.info.splits:
        # Without decoding every field is a scalar, so examples of any size can be batched.
        batches = builder.as_dataset(split=split, decoders=decoding).batch(64)
        for batch in batches.as_numpy_iterator():
            for i in range(len(batch["example_id"])):
                row = {name: values[i] for name, values in batch.items()}
                for name in row.keys() - {pixels}:
                    value = row[name]
                    row[name] = value.decode() if isinstance(value, bytes) else int(value)
                yield row | {"part": split if split in PARTS else ""}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS from telling the terminal about "downloads" and "custom configurations"."""
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl_logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Lets one process at a time prepare, remove and read copies; a killed one lets go."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise DataError(
            f"cannot write to {folder}: {error.strerror}; name another cache in MSA_FLAX_CACHE"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
