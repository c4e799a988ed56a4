"""Prepared copies of data sets: made once by TFDS builders, and read where nothing is kept of them.

A copy holds the pixels of the files. What is kept beside it, for the next start, is in
:mod:`msa_flax.data.prepared`.
"""

import contextlib
import functools
import io
import itertools
import logging
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
from msa_flax.data.facts import preparation
from msa_flax.data.folder import check_bad_files, listed
from msa_flax.data.images import decode, resize_mask
from msa_flax.data.layout import PARTS
from msa_flax.data.prepared import Kept, Source
from msa_flax.data.shards import damaged_shards, refused_files
from msa_flax.data.stored import read_images, write_images
from msa_flax.data.tfds import Folder, Phantom, folder_builder, phantom_builder
from msa_flax.files import cache_dir

log = logging.getLogger("msa_flax")


def read(config: DataConfig, source: Source, kept: Kept) -> Examples:
    """Returns the data set of a configuration, whose copy is prepared if need be.

    Every image is preprocessed, every mask resized. They are written to files, and read from there
    when they are asked for: they may be more than memory holds.

    Args:
        config: of the data.
        source: what :func:`msa_flax.data.prepared.find_source` found.
        kept: where images and masks are written.

    Raises:
        DataError: unreadable files (see :func:`check_bad_files`), or a damaged copy.
    """
    with _quiet():
        builder, bad_files = opened(config, source)
        total = sum(split.num_examples for split in builder.info.splits.values())
        skip = config.on_bad_file == "skip"
        check_bad_files(bad_files, skip=skip, total=total + len(bad_files))
        try:
            return _written(builder, config, kept, bad_files)
        except tf.errors.DataLossError as error:
            raise DataError(_damage(builder.data_path)) from error


def opened(
    config: DataConfig, source: Source
) -> tuple[tfds.core.DatasetBuilder, Sequence[tuple[str, str]]]:
    """Returns the builder of a copy, which is prepared, and (name, reason) of what is left out."""
    if config.source == "rsna2022" and source.listing is None:
        root = pathlib.Path(config.root).expanduser().absolute()
        _remove_earlier(source.folder)
        if not source.folder.exists():
            log.info("reading %s (done once for each image size, kept in %s)", root, source.folder)
        return tfds.builder_from_directory(root), refused_files(root)
    name, data_dir = source.folder.parent.name, source.folder.parents[2]
    if source.listing is None:
        builder: Folder | Phantom = phantom_builder(config, data_dir=data_dir)
    else:
        builder = folder_builder(source.listing, name, data_dir=data_dir)
    prepare(builder)
    bad_files = (builder.info.metadata or {}).get("bad_files", ())
    return builder, [(name, why) for name, why in bad_files]


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


def _written(
    builder: tfds.core.DatasetBuilder,
    config: DataConfig,
    kept: Kept,
    bad_files: Sequence[tuple[str, str]],
) -> Examples:
    """Writes the images and masks of a copy to their files, and returns them with what is known."""
    rows = sorted(_rows(builder), key=lambda row: row["example_id"])
    write = functools.partial(
        _write, builder, place={row["example_id"]: i for i, row in enumerate(rows)}, size=kept.size
    )
    for_search = kept.kind == "search"
    images = write(kept.images, "image", preparation(config, for_search=for_search))
    masks = None
    if "mask" in builder.info.features and not for_search:
        masks = write(kept.masks, "mask", functools.partial(resize_mask, size=kept.size))
    return from_rows(rows, images, masks=masks, bad_files=bad_files, classes=config.classes)


def _damage(folder: pathlib.Path) -> str:
    """Says what of a copy, or of a prepared folder, is damaged, and what to do."""
    if damaged := damaged_shards(folder):
        names = listed([str(path) for path in damaged])
        return f"damaged: {names}; delete that and give the command msa_flax.prepare again"
    return f"the prepared copy is damaged; delete {folder}"


def _write(
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
        path: the file, which is written.
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

    shape = (len(place), size, size)
    write_images(path, shape, write)
    return read_images(path, shape)


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
