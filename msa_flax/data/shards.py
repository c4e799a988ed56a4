"""Prepared folders: what ``python -m msa_flax.prepare`` makes of the RSNA 2022 challenge.

A prepared folder is a TFDS data set of one split, "slices", in which a study is one file:

- ``prepared.json``: what the folder was made from and how, and, once it is whole, its content;
- ``rsna2022-slices.tfrecord-00007-of-01293``: the labelled slices of a study, as PNG files;
- ``studies/00007.json``: what is in that file, and what of the study was refused;
- ``studies.csv`` and ``refused.csv``: the same of all studies;
- ``dataset_info.json`` and ``features.json``, which TFDS reads.

``data.root`` of source "rsna2022" may be such a folder: it holds the same data as the challenge's.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msa_flax.config import PREPARED_FIELDS, DataConfig
from msa_flax.data.examples import DataError
from msa_flax.files import csv_rows, read_json, sha256, write_json

RECORD, REFUSED, STUDIES = "prepared.json", "refused.csv", "studies.csv"
NAME, SPLIT = "rsna2022", "slices"
VERSION = "1.2.0"  # raise it when what is stored of an image changes: copies and folders are kept
_SHAPE = {
    "challenge": str,
    "tables": {"*": str},
    "data": dict.fromkeys(PREPARED_FIELDS, (float, str)),
    "studies": int,
    "version": str,
    "content?": str,
}
_STUDY = {
    **dict.fromkeys(("study", "state", "sha256"), str),
    **dict.fromkeys(("slices", "positive", "bytes"), int),
    "refused": [[str]],
}


def shard_path(folder: Path, index: int, count: int) -> Path:
    """Returns the file of a study, the one that TFDS expects of ``count`` of them."""
    return folder / f"{NAME}-{SPLIT}.tfrecord-{index:05d}-of-{count:05d}"


def read_study_record(folder: Path, index: int) -> dict[str, Any]:
    """Returns what is recorded of a study, or {} before it has been prepared."""
    return read_json(_study_path(folder, index), _STUDY)


def write_study_record(folder: Path, index: int, values: Mapping[str, Any]) -> None:
    """Records a study whose file has been written."""
    write_json(_study_path(folder, index), values)


def _study_path(folder: Path, index: int) -> Path:
    return folder / "studies" / f"{index:05d}.json"


def read_record(root: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns what a folder was prepared from and how, or {} where it is no prepared folder."""
    return read_json(Path(root).expanduser() / RECORD, _SHAPE)


def challenge_folder(root: str | os.PathLike[str]) -> Path:
    """Returns the folder with the challenge's DICOM files: the root, or what it was prepared from.

    Raises:
        DataError: the root is a prepared folder, and what it was prepared from is gone.
    """
    folder = Path(root).expanduser().absolute()
    if not (record := read_record(folder)):
        return folder
    challenge = Path(record["challenge"])
    if not challenge.is_dir():
        raise DataError(
            f"{folder} holds labelled slices only, and the DICOM files that it was prepared from "
            f"are no longer in {challenge}; say where they are with --moved_to DIR"
        )
    return challenge


def check_prepared(config: DataConfig) -> str:
    """Returns the content of a prepared folder, a hash in hex, if it suits a configuration.

    Raises:
        DataError: the folder is not whole, or was prepared otherwise than is configured.
    """
    record = read_record(config.root)
    if "content" not in record:
        raise DataError(
            f"{config.root}: expected a prepared folder that is whole; give the command "
            "msa_flax.prepare, which was stopped or refused something, again"
        )
    wanted = {name: getattr(config, name) for name in PREPARED_FIELDS}
    if differ := [name for name, value in wanted.items() if record["data"][name] != value]:
        raise DataError(
            f"{config.root} was prepared with "
            + ", ".join(f"data.{one}={record['data'][one]} (not {wanted[one]})" for one in differ)
            + "; configure the same, or prepare another folder"
        )
    return str(record["content"])


def refused_files(folder: Path) -> list[tuple[str, str]]:
    """Returns (name, reason) of what a prepared folder had to leave out."""
    return [(name, reason) for name, reason in csv_rows(folder / REFUSED)[1:]]


def damaged_shards(folder: Path) -> list[Path]:
    """Returns the files of studies that do not hold what was written; all of them are read."""
    count = read_record(folder).get("studies", 0)
    paths = [shard_path(folder, index, count) for index in range(count)]
    hashes = [read_study_record(folder, index).get("sha256") for index in range(count)]
    return [path for path, one in zip(paths, hashes, strict=True) if sha256(path) != one]
