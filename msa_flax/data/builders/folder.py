"""TFDS builder of a class-per-folder data set: ``ROOT/{train,val}/{normal,fracture}/*.png``."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from msa_flax.config import DataConfig
from msa_flax.data.builders.schema import Builder, features, png
from msa_flax.data.images import ImageError, read_image
from msa_flax.data.scan import PARTS, Entry, Scan, check_bad_files, scan_folder


@dataclasses.dataclass
class FolderConfig(tfds.core.BuilderConfig):
    """Which folder, and how its file names are read; ``name`` changes when any of it does."""

    root: str = ""  # absolute path of the folder
    classes: tuple[str, ...] = ()  # folder names; index = label
    family_pattern: str = ""  # see msa_flax.config.DataConfig
    group_pattern: str = ""  # idem


class Folder(Builder):
    """Images in one folder a class, split as the folder itself is: "train" and "val".

    Files that cannot be decoded are left out and listed, with the reason, in
    ``info.metadata["bad_files"]``; whether that is an error is decided when the copy is read.
    """

    VERSION = tfds.core.Version("1.0.0")  # raise it when what is stored changes

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=features(),
            metadata=tfds.core.MetadataDict(bad_files=[]),  # written in the same atomic rename
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        found = _scan(self.builder_config)
        self.info.metadata["bad_files"] = [list(item) for item in found.bad_files]
        return {
            part: self._generate_examples([e for e in found.entries if e.part == part])
            for part in PARTS
        }

    def _generate_examples(self, entries: list[Entry]) -> Iterator[tuple[str, dict[str, Any]]]:
        bad = []
        for entry in entries:
            try:
                image = read_image(entry.path)
            except ImageError as error:
                bad.append((entry.example_id, str(error)))
                continue
            fields = {
                "image": png(image),
                "label": entry.label,
                "example_id": entry.example_id,
                "group": entry.group,
                "family": entry.family,
                "slice_index": entry.slice_index,
                "height": image.shape[0],
                "width": image.shape[1],
            }
            yield entry.example_id, fields
        check_bad_files(bad, skip=True, total=len(entries))  # TFDS cannot store an empty split
        self.info.metadata["bad_files"] += [list(item) for item in bad]


def builder(config: DataConfig, *, data_dir: pathlib.Path) -> Folder:
    """Returns the builder for a folder as it is now; nothing is decoded or written.

    The configuration's name is ``<hash of the path>-<hash of the listing and the options>``, so a
    folder in which a file was added, removed, renamed or rewritten is prepared anew.

    Args:
        config: root, classes and patterns are used.
        data_dir: where prepared copies are kept.

    Raises:
        DataError: the folder is not as expected.
    """
    options = FolderConfig(
        name="listing",
        root=str(pathlib.Path(config.root).absolute()),
        classes=tuple(config.classes),
        family_pattern=config.family_pattern,
        group_pattern=config.group_pattern,
    )
    found = _scan(options)
    listing = [(entry.example_id, *_size_and_time(entry.path)) for entry in found.entries]
    patterns = (options.family_pattern, options.group_pattern)
    state = json.dumps([listing, found.bad_files, options.classes, patterns])
    options.name = f"{prefix(config)}{_sha256(state)[:16]}"
    return Folder(config=options, data_dir=data_dir)


def prefix(config: DataConfig) -> str:
    """Returns what the names of all prepared copies of one root begin with."""
    return _sha256(str(pathlib.Path(config.root).absolute()))[:8] + "-"


def _scan(options: FolderConfig) -> Scan:
    config = DataConfig(
        classes=options.classes,
        family_pattern=options.family_pattern,
        group_pattern=options.group_pattern,
    )
    return scan_folder(options.root, config, need_parts=True)


def _size_and_time(path: pathlib.Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # a dangling link: read_image says so when the file is read
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
