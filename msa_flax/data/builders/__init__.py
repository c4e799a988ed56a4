"""Preparing data sets with TFDS, quietly and once, and reading them back into memory."""

import contextlib
import fcntl
import io
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from msa_flax.config import DataConfig
from msa_flax.data import pipeline, scan
from msa_flax.data.examples import DataError, Examples, from_rows
from msa_flax.data.images import decode, preprocess, resize_mask
from msa_flax.files import cache_dir

pipeline.hide_gpu()

_TEXT = ("example_id", "group", "family")
_NUMBERS = ("label", "slice_index", "height", "width")


def load(config: DataConfig) -> Examples:
    """Prepares the data set of a configuration if need be, and reads it; see ``data.load``."""
    data_dir = cache_dir() / "datasets"
    with _locked(data_dir), _quiet():
        if config.source == "phantom":
            from msa_flax.data.builders import phantom

            builder = phantom.builder(config, data_dir=data_dir)
            prepare(builder)
            return read(builder, config, parts={"slices": ""})
        from msa_flax.data.builders import folder

        builder = folder.builder(config, data_dir=data_dir)
        prepare(builder)
        _remove_old_copies(builder, folder.prefix(config))
        return read(builder, config, parts={part: part for part in scan.PARTS})


def prepare(builder: tfds.core.GeneratorBasedBuilder) -> None:
    """Writes the prepared copy unless it exists: below a temporary name, then renamed.

    Args:
        builder: any builder with the features of :mod:`.schema`.
    """
    for rest in builder.data_path.parent.glob("*incomplete*"):  # of a process that was killed
        shutil.rmtree(rest, ignore_errors=True)
    builder.download_and_prepare()


def read(
    builder: tfds.core.DatasetBuilder, config: DataConfig, *, parts: Mapping[str, str]
) -> Examples:
    """Reads a prepared copy into memory, every image preprocessed, every mask resized.

    A copy holds the pixels of the files: one serves every size and every equalisation.

    Args:
        builder: a prepared builder with the features of :mod:`.schema`.
        config: image size, ``equalize`` and ``on_bad_file`` are used.
        parts: TFDS split -> value of ``Examples.part``.

    Raises:
        DataError: unreadable files (see :func:`scan.check_bad_files`), or a damaged copy.
    """
    total = sum(builder.info.splits[split].num_examples for split in parts)
    bad_files = [
        (name, reason) for name, reason in (builder.info.metadata or {}).get("bad_files", ())
    ]
    skip = config.on_bad_file == "skip"
    scan.check_bad_files(bad_files, skip=skip, total=total + len(bad_files))
    shape = (total, config.image_size, config.image_size)
    images = np.empty(shape, np.uint8)
    masks = np.empty(shape, np.uint8) if "mask" in builder.info.features else None
    rows: list[dict[str, Any]] = []
    placed: list[Future[None]] = []

    def place(i: int, stored: dict[str, bytes]) -> None:
        pixels = {name: decode(data, "stored.png") for name, data in stored.items()}
        images[i] = preprocess(pixels["image"], size=config.image_size, equalize=config.equalize)
        if masks is not None:
            masks[i] = resize_mask(pixels["mask"], size=config.image_size)

    try:
        with ThreadPoolExecutor() as pool:  # OpenCV lets other threads run while it works
            for row, stored in _stored(builder, parts):
                placed.append(pool.submit(place, len(rows), stored))
                rows.append(row)
        for future in placed:
            future.result()
    except tf.errors.DataLossError as error:
        raise DataError(f"the prepared copy is damaged; delete {builder.data_path}") from error
    return from_rows(rows, images, masks=masks, bad_files=bad_files)


def _stored(
    builder: tfds.core.DatasetBuilder, parts: Mapping[str, str]
) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
    """Yields the fields of every stored example, and its files: "image" and perhaps "mask"."""
    pixels = [name for name in ("image", "mask") if name in builder.info.features]
    decoders = {name: tfds.decode.SkipDecoding() for name in pixels}
    for split, part in parts.items():
        # Without decoding every field is a scalar, so examples of any size can be batched.
        batches = builder.as_dataset(split=split, decoders=decoders).batch(64)
        for batch in batches.as_numpy_iterator():
            for i in range(len(batch["label"])):
                row = {name: batch[name][i].decode() for name in _TEXT}
                row |= {name: int(batch[name][i]) for name in _NUMBERS}
                yield row | {"part": part}, {name: batch[name][i] for name in pixels}


def _remove_old_copies(builder: tfds.core.DatasetBuilder, prefix: str) -> None:
    """Removes the copies of earlier states of the same root, so that the cache does not grow."""
    current = builder.data_path.parent
    for old in current.parent.glob(f"{prefix}*"):
        if old.name != current.name:
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS from telling the terminal about "downloads" and "custom configurations"."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


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
