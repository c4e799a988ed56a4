"""What there is to predict: the slices of files, folders and trees, series by series.

A folder of PNG and JPEG files is one series, in the natural order of their names. What cannot be
predicted is listed with the reason; only the beginning of a file is read here.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data.facts import natural_order
from msa_flax.data.headers import ImageError, format_of
from msa_flax.data.images import preprocess, read_image
from msa_flax.data.layout import printable, walk
from msa_flax.files import UserError

_HEAD = 132  # bytes of a file that tell its format; DICOM's mark is the last four of them
NO_IMAGE = "not a PNG, JPEG or DICOM file"


class PredictionError(UserError):
    """There is nothing to predict, or it cannot be written where it was asked for."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One image to predict, and what it belongs to.

    Attributes:
        path: as the tables name it: as it was given, and for one frame of many "#" and its number.
        file: where it is.
        patient, study, series: pseudonyms or identifiers, "" unknown; the folder of a PNG is its
            series.
        position_mm: along the normal of the series; None unknown.
    """

    path: str
    file: pathlib.Path
    patient: str = ""
    study: str = ""
    series: str
    position_mm: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that was found, in the order in which it is predicted.

    Attributes:
        slices: those of a series follow one another, in their order.
        flags: series to what is odd about it.
        refused: (path, reason) of each file that cannot be predicted.
        fingerprint: SHA-256 over names, sizes and times of change of all files.
    """

    slices: Sequence[Slice]
    flags: dict[str, tuple[str, ...]]
    refused: Sequence[tuple[str, str]]
    fingerprint: str


def find_inputs(paths: Sequence[str], *, leave_out: pathlib.Path | None = None) -> Inputs:
    """Returns what there is to predict in files and folders; each file counts once.

    Hidden files and what desktops and storage devices leave behind are passed over.

    Args:
        paths: of files and folders, in any mixture.
        leave_out: a folder whose files are not looked at.

    Raises:
        PredictionError: a path is not there, or there is no file at all.
    """
    if missing := [printable(path) for path in paths if not os.path.exists(path)]:
        raise PredictionError(
            f"expected files or folders to predict; not there: {', '.join(missing)}"
        )
    refused: list[tuple[str, str]] = []
    names = _files(paths, refused, leave_out)
    digest, slices = hashlib.sha256(), []
    for name in names:
        try:
            status = os.stat(name)
            digest.update(f"{name!r} {status.st_size} {status.st_mtime_ns}\n".encode())
            with open(name, "rb") as file:
                head = file.read(_HEAD)
        except OSError as error:
            refused.append((name, f"cannot be read: {error.strerror}"))
            continue
        if not head:
            refused.append((name, "empty file"))
        elif format_of(head):
            series = os.path.dirname(name) or "."
            slices.append(Slice(path=name, file=pathlib.Path(name), series=series))
        else:
            refused.append((name, NO_IMAGE))
    slices.sort(key=lambda one: (one.series, natural_order(one.file.name)))
    return Inputs(slices=slices, flags={}, refused=sorted(refused), fingerprint=digest.hexdigest())


def _files(
    paths: Iterable[str], refused: list[tuple[str, str]], leave_out: pathlib.Path | None
) -> list[str]:
    """Returns all files, sorted, each once; adds folders that cannot be read to ``refused``."""
    found: dict[str, str] = {}
    outside = None if leave_out is None else os.path.realpath(leave_out)
    for path in map(os.path.normpath, paths):
        if not os.path.isdir(path):
            found.setdefault(os.path.abspath(path), path)
            continue
        bad: list[tuple[str, str]] = []
        for place, (_, files) in walk(pathlib.Path(path), bad, [], depth=None).items():
            folder = os.path.join(path, *place)
            inside = os.path.realpath(folder)
            if outside and (inside == outside or inside.startswith(outside + os.sep)):
                continue
            for name in files:
                file = os.path.normpath(os.path.join(folder, name))
                found.setdefault(os.path.abspath(file), file)
        refused += [(os.path.join(path, place), reason) for place, reason in bad]
    return sorted(found.values())


def read_slice(one: Slice) -> np.ndarray:
    """Returns the pixels of a slice at its own resolution, uint8 [h, w].

    Raises:
        ImageError: it cannot be used; a short reason.
    """
    return read_image(one.file)


def prepare_slice(one: Slice, data: DataConfig) -> np.ndarray | str:
    """Returns what the network is given of a slice, uint8 [s, s], or why it cannot be read."""
    try:
        return preprocess(read_slice(one), size=data.image_size, equalize=data.equalize)
    except ImageError as error:
        return str(error)
