"""One study: from its DICOM files to one file of labelled slices.

A task says all that its result follows from, so that whatever process or machine does it, in
whatever order, writes the same bytes.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data import rsna, shards
from msa_flax.data.folder import File, listed
from msa_flax.data.headers import ImageError
from msa_flax.data.images import read_image
from msa_flax.files import UserError, sha256


class PreparationError(UserError):
    """Studies cannot be prepared as asked; the message says what was found and what to do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be done about one study; small, because engines send it to their workers."""

    study: str
    index: int  # of its file, from 0
    count: int  # of all files
    slices: tuple[tuple[str, int], ...]  # name of the file without its end, and label; by number
    refused: tuple[tuple[str, str], ...]  # (name, reason) of what its folder lacks
    challenge: Path  # the folder with the challenge's files
    out: Path  # the prepared folder
    config: DataConfig  # window, ``max_tilt`` and ``on_bad_file`` are used

    @property
    def files(self) -> list[File]:
        """The slices in the order of their numbers."""
        folder = self.challenge / rsna.IMAGES / self.study
        return [rsna.slice_file(self.study, folder / f"{one}.dcm", y) for one, y in self.slices]

    @property
    def path(self) -> Path:
        """The file that is written."""
        return shards.shard_path(self.out, self.index, self.count)

    def state(self) -> str:
        """Returns a hash of what the study is prepared from: labels, names and sizes of files.

        Hashes of what is in the files would take as long as preparing them.
        """
        sizes = [file.path.stat().st_size for file in self.files]
        return hashlib.sha256(json.dumps([self.study, self.slices, sizes]).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Returns what is recorded of the study if its file is as it was written, or else {}."""
        found = shards.read_study_record(self.out, self.index)
        whole = found and self.path.is_file() and self.path.stat().st_size == found["bytes"]
        return found if whole else {}

    def standing(self) -> str:
        """Returns "new", "done", or "changed": done, but from other files than there are now.

        What was refused is new as long as nothing may be refused, or once its files have changed.
        """
        record = self.record()
        if not record or (record["refused"] and self.config.on_bad_file == "error"):
            return "new"
        if record["state"] == self.state():
            return "done"
        return "new" if record["refused"] else "changed"


def not_overwritten(tasks: Sequence[Task]) -> PreparationError:
    """Returns the error about studies that were prepared from other files; it names all of them."""
    names = listed([task.path.name for task in tasks])
    return PreparationError(
        f"prepared from other files than there are now: {names}; delete those in --out to prepare "
        "them anew, or name another --out"
    )


def write_study(task: Task) -> tuple[str, dict[str, int]]:
    """Prepares one study unless that has been done: writes its file, then its record.

    What cannot be read is recorded with the reason; a study of which nothing can be read leaves an
    empty file, because TFDS does not read a set in which one is missing.

    Returns:
        "written", "kept" or "refused", and the counts "slices", "positive" and "refused".

    Raises:
        PreparationError: the study was prepared before, from other files than there are now.
    """
    standing = task.standing()
    if standing == "changed":
        raise not_overwritten([task])
    if standing == "done":
        return "kept", counts(task.record())
    cv2.setNumThreads(1)  # each core has a study of its own
    refused, labels = list(task.refused), []

    def usable() -> Iterator[tuple[File, np.ndarray]]:
        for file in task.files:
            try:
                yield file, read_image(file.path, task.config)
                labels.append(file.label)
            except ImageError as error:
                refused.append((file.example_id, str(error)))

    from msa_flax.data.tfds import write_shard

    state = task.state()
    write_shard(task.path, usable())
    record = {
        "study": task.study,
        "state": state,
        "slices": len(labels),
        "positive": sum(labels),
        "refused": refused,
        "bytes": task.path.stat().st_size,
        "sha256": sha256(task.path),
    }
    shards.write_study_record(task.out, task.index, record)
    return "refused" if refused and not labels else "written", counts(record)


def counts(record: dict[str, Any]) -> dict[str, int]:
    """Returns how many slices of a study are in its file, show a fracture, and were refused."""
    return {
        "slices": record["slices"],
        "positive": record["positive"],
        "refused": len(record["refused"]),
    }
