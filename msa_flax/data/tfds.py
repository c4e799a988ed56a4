"""TFDS builders of prepared copies, with one schema; they are read by data/copies.py.

A copy holds the pixels of the files, so that one copy serves every image size and equalisation.
Prepared folders have the same schema; what writes their files is here, too.
"""

import dataclasses
import functools
import io
import logging
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from msa_flax.config import DataConfig
from msa_flax.data.examples import DataError
from msa_flax.data.folder import File, Listing, check_bad_files
from msa_flax.data.headers import ImageError
from msa_flax.data.images import read_image
from msa_flax.data.layout import PARTS
from msa_flax.data.phantom import draw_patient
from msa_flax.data.pipeline import hide_gpu
from msa_flax.data.prepared import KNOWN, phantom_name
from msa_flax.data.shards import SPLIT, VERSION
from msa_flax.files import written_whole

log = logging.getLogger("msa_flax")
hide_gpu()

_NO_PART = "slices"  # TFDS reserves "all": it means every split


class _Builder(tfds.core.GeneratorBasedBuilder):
    """A builder that downloads nothing; the others derive from it."""

    VERSION = tfds.core.Version(VERSION)
    # TFDS would look for a checksum file beside the builder's source, with a package
    # (importlib_resources) that it does not declare as needed.
    url_infos: ClassVar[dict[str, Any]] = {}


@dataclasses.dataclass
class FolderConfig(tfds.core.BuilderConfig):
    """The listing of a folder; ``name`` changes when the folder or its reading does."""

    listing: Listing | None = None

    @property
    def content(self) -> str:
        """What is copied, for a line on the terminal."""
        return f"a copy of {len(self.listing.files)} images" if self.listing else "a copy"


class Folder(_Builder):
    """Images in one folder per class, split as the folder itself is: "train", "val" and "test".

    Files that cannot be decoded are left out and listed, with the reason, in
    ``info.metadata["bad_files"]``; whether that is an error is decided when the copy is read.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=_features(),
            metadata=tfds.core.MetadataDict(bad_files=[]),  # written in the same atomic rename
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        listing = self.builder_config.listing
        self.info.metadata["bad_files"] = list(listing.bad_files)
        parts = {
            part: [file for file in listing.files if file.part == part] for part in ("", *PARTS)
        }
        return {
            part or _NO_PART: self._generate_examples(files)
            for part, files in parts.items()
            if files
        }

    def _generate_examples(self, files: list[File]) -> Iterator[tuple[str, dict[str, Any]]]:
        bad = []
        for file in files:
            try:
                image = read_image(file.path, self.builder_config.listing.config)
            except ImageError as error:
                bad.append((file.example_id, str(error)))
                continue
            known = {name: getattr(file, name) for name in KNOWN}
            yield file.example_id, known | _of_pixels(image)
        check_bad_files(bad, skip=True, total=len(files))  # TFDS cannot store an empty split
        self.info.metadata["bad_files"] += bad


def folder_builder(listing: Listing, name: str, *, data_dir: pathlib.Path) -> Folder:
    """Returns the builder for the files of a listing; nothing is written.

    Args:
        listing: of a folder or a table of labels.
        name: of this state of it, see :func:`msa_flax.data.prepared.listed_now`.
        data_dir: where prepared copies are kept.
    """
    return Folder(config=FolderConfig(name=name, listing=listing), data_dir=data_dir)


@dataclasses.dataclass
class PhantomConfig(tfds.core.BuilderConfig):
    """How many patients are simulated, and the seed; ``name`` says both."""

    patients: int = 0
    seed: int = 0

    @property
    def content(self) -> str:
        """What is drawn, for a line on the terminal."""
        return f"the synthetic phantom: {self.patients} simulated patients"


class Phantom(_Builder):
    """Simulated patients of eight slices each, in order, with the fracture's mask."""

    def _info(self) -> tfds.core.DatasetInfo:
        features = _features(mask=_image_feature())
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {_NO_PART: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        count = 0
        for patient in range(self.builder_config.patients):
            for drawn in draw_patient(self.builder_config.seed, patient):
                example_id = f"phantom/{drawn.patient}/{drawn.slice_index:02d}"
                known = {
                    "label": drawn.label,
                    "example_id": example_id,
                    "group": drawn.patient,
                    "study": drawn.patient,
                    "family": example_id,  # every slice is its own source: there are no copies
                    "slice_index": drawn.slice_index,
                }
                yield count, known | _of_pixels(drawn.image) | {"mask": _png(drawn.mask)}
                count += 1


def phantom_builder(config: DataConfig, *, data_dir: pathlib.Path) -> Phantom:
    """Returns the builder for a phantom; nothing is drawn or written.

    Args:
        config: ``phantom_patients`` and ``phantom_seed`` are used.
        data_dir: where prepared copies are kept.
    """
    patients, seed = config.phantom_patients, config.phantom_seed
    options = PhantomConfig(name=phantom_name(config), patients=patients, seed=seed)
    return Phantom(config=options, data_dir=data_dir)


def write_shard(path: pathlib.Path, slices: Iterable[tuple[File, np.ndarray]]) -> None:
    """Writes one file of a prepared folder, whole or not at all; the same slices, the same bytes.

    Args:
        path: the file, see :func:`msa_flax.data.shards.shard_path`.
        slices: what is known of each, and its pixels, uint8 [h, w]; they are taken one by one.

    Raises:
        DataError: it cannot be written.
    """
    features = _features()
    try:
        with written_whole(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            for file, image in slices:
                known = {name: getattr(file, name) for name in KNOWN}
                data = features.serialize_example(known | _of_pixels(image))
                # TFDS leaves the order of the fields to chance.
                example = tf.train.Example.FromString(data)
                writer.write(example.SerializeToString(deterministic=True))
    except tf.errors.OpError as error:
        raise DataError(f"{path} cannot be written: {error.message}; make room for it") from error


def describe_shards(folder: pathlib.Path, lengths: Sequence[int], size: int) -> None:
    """Writes what TFDS must know of a prepared folder to read it.

    Args:
        folder: it holds a file for each study.
        lengths: number of slices in each file.
        size: bytes of all files together.
    """
    split = tfds.core.SplitInfo(name=SPLIT, shard_lengths=list(lengths), num_bytes=size)
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=_features(),
        split_infos=[split],
        version=VERSION,
        check_data=False,
    )


def _features(**extra: tfds.features.FeatureConnector) -> tfds.features.FeaturesDict:
    """Returns the features that all data sets share, and the extra ones of one data set."""
    text, number = tfds.features.Text, functools.partial(tfds.features.Scalar, dtype=np.int32)
    return tfds.features.FeaturesDict(
        {
            "image": _image_feature(),  # uint8 [h, w, 1]
            "label": tfds.features.ClassLabel(num_classes=2),
            "example_id": text(),  # unique, stable and path-like
            "group": text(),  # series or patient, "" if unknown
            "study": text(),  # "" if unknown
            "family": text(),  # source slice, "" if unknown
            "slice_index": tfds.features.Scalar(dtype=np.int64),  # -1 if unknown
            "height": number(),  # pixels of the file
            "width": number(),
        }
        | extra
    )


def _image_feature() -> tfds.features.Image:
    return tfds.features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="png")


def _of_pixels(image: np.ndarray) -> dict[str, Any]:
    return {"image": _png(image), "height": image.shape[0], "width": image.shape[1]}


def _png(image: np.ndarray) -> io.BytesIO:
    """Encodes an image or mask, uint8 [h, w]; TFDS would do it ten times slower."""
    return io.BytesIO(cv2.imencode(".png", image, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes())
