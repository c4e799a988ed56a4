"""What there is to predict: the slices of files, folders and trees, series by series.

DICOM files are grouped by their SeriesInstanceUID, wherever they lie, and sorted by the geometry. A
folder of PNG and JPEG files is one series, in the natural order of their names. What cannot be
predicted is listed with the reason; no pixel is read before it is asked for.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data import dicom
from msa_flax.data.dicom_header import DicomSlice
from msa_flax.data.facts import natural_order
from msa_flax.data.headers import ImageError, check_ordinary, format_of
from msa_flax.data.images import preprocess, read_image
from msa_flax.data.layout import printable, walk
from msa_flax.data.pseudonyms import read_salt
from msa_flax.data.series import Series, find_series
from msa_flax.files import UserError

_HEAD = 132  # bytes of a file that tell its format; DICOM's mark is the last four of them
ODD = {  # flags of a series, in words
    "gap": "slices are missing between others",
    "duplicates": "slices at one place",
    "irregular": "irregular distances between slices",
    "tilted": "tilted against the patient's axis",
    "mixed": "slices of different geometry in one series",
}
NO_IMAGE = "not a PNG, JPEG or DICOM file"


class PredictionError(UserError):
    """There is nothing to predict, or it cannot be written where it was asked for."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One image to predict, and what it belongs to.

    Attributes:
        path: as the tables name it: as it was given, and for one frame of many "#" and its number.
        file: where it is.
        header: of a slice from a DICOM file; None for an image.
        patient, study, series: pseudonyms or identifiers, "" unknown; the folder of a PNG is its
            series.
        position_mm: along the normal of the series; None unknown.
    """

    path: str
    file: pathlib.Path
    header: DicomSlice | None = None
    patient: str = ""
    study: str = ""
    series: str
    position_mm: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that was found, in the order in which it is predicted.

    Attributes:
        slices: those of a series follow one another, in their order.
        flags: (study, series) to what is odd about it.
        refused: (path, reason) of each file that cannot be predicted.
        fingerprint: SHA-256 over names, sizes and times of change of all files.
    """

    slices: Sequence[Slice]
    flags: dict[tuple[str, str], list[str]]
    refused: Sequence[tuple[str, str]]
    fingerprint: str


def find_inputs(
    paths: Sequence[str],
    data: DataConfig,
    *,
    identifiers: bool = False,
    leave_out: Sequence[pathlib.Path] = (),
) -> Inputs:
    """Returns what there is to predict in files and folders; each file counts once.

    Hidden files and what desktops and storage devices leave behind are passed over.

    Args:
        paths: of files and folders, in any mixture.
        data: how the run reads images; ``max_tilt`` is used.
        identifiers: whether patients, studies and series of DICOM files keep their identifiers.
        leave_out: folders whose files are not looked at.

    Raises:
        PredictionError: a path is not there.
    """
    if missing := [printable(path) for path in paths if not os.path.exists(path)]:
        raise PredictionError(
            f"expected files or folders to predict; not there: {', '.join(missing)}"
        )
    refused: list[tuple[str, str]] = []
    digest, images, slices = hashlib.sha256(), [], []
    names: dict[pathlib.Path, str] = {}
    for name in _files(paths, refused, leave_out):
        file = pathlib.Path(name)
        try:
            status = os.stat(name)
            check_ordinary(status)
            digest.update(f"{name!r} {status.st_size} {status.st_mtime_ns}\n".encode())
            with open(name, "rb") as opened:
                head = opened.read(_HEAD)
            if format_of(head):
                images.append(Slice(path=name, file=file, series=os.path.dirname(name) or "."))
            elif dicom.is_dicom(head):
                names[file] = name
                slices += dicom.read_header(file, max_tilt=data.max_tilt)
            else:
                refused.append((name, NO_IMAGE if head else "empty file"))
        except OSError as error:
            refused.append((name, f"cannot be read: {error.strerror}"))
        except ImageError as error:
            refused.append((name, str(error)))
    images.sort(key=lambda one: (one.series, natural_order(one.file.name)))
    named = _namer(identifiers=identifiers) if slices else str
    flags: dict[tuple[str, str], list[str]] = {}
    for series in find_series(slices):
        found = _slices_of(series, names, named)
        odd = [ODD.get(flag, flag) for flag in series.report.flags]
        flags.setdefault((found[0].study, found[0].series), []).extend(odd)
        images += found
    return Inputs(
        slices=images,
        flags={key: list(dict.fromkeys(odd)) for key, odd in flags.items()},
        refused=sorted(refused),
        fingerprint=digest.hexdigest(),
    )


def _namer(*, identifiers: bool) -> Callable[[str], str]:
    """Returns the function from an identifier to what stands for it in the tables."""
    if identifiers:
        return str
    salt = read_salt()
    return functools.cache(lambda text: dicom.pseudonym(text, salt) if text else "")


def _slices_of(
    series: Series, names: Mapping[pathlib.Path, str], named: Callable[[str], str]
) -> list[Slice]:
    return [
        Slice(
            path=names[one.path] + (f"#{one.frame + 1}" if one.frames > 1 else ""),
            file=one.path,
            header=one,
            patient=named(series.patient_id),
            study=named(series.study_uid),
            series=named(series.series_uid),
            position_mm=float(position),
        )
        for one, position in zip(series.slices, series.positions_mm, strict=True)
    ]


def _files(
    paths: Iterable[str], refused: list[tuple[str, str]], leave_out: Iterable[pathlib.Path]
) -> list[str]:
    """Returns all files, sorted, each once; adds folders that cannot be read to ``refused``."""
    found: dict[str, str] = {}
    outside = [os.path.realpath(folder) for folder in leave_out]
    for path in map(os.path.normpath, paths):
        if not os.path.isdir(path):
            found.setdefault(os.path.abspath(path), path)
            continue
        bad: list[tuple[str, str]] = []
        for place, (_, files) in walk(pathlib.Path(path), bad, [], depth=None).items():
            folder = os.path.join(path, *place)
            inside = os.path.realpath(folder)
            if any(inside == one or inside.startswith(one + os.sep) for one in outside):
                continue
            for name in files:
                file = os.path.normpath(os.path.join(folder, name))
                found.setdefault(os.path.abspath(file), file)
        refused += [(os.path.join(path, place), reason) for place, reason in bad]
    return sorted(found.values())


def read_slice(one: Slice, data: DataConfig) -> np.ndarray:
    """Returns the pixels of a slice at its own resolution, uint8 [h, w].

    Args:
        one: a slice.
        data: how the run reads images; of a DICOM slice its window is shown.

    Raises:
        ImageError: it cannot be used; a short reason.
    """
    if one.header is None:
        return read_image(one.file)
    return dicom.windowed(one.header, centre=data.window_centre, width=data.window_width)


def prepare_slice(one: Slice, data: DataConfig) -> np.ndarray | str:
    """Returns what the network is given of a slice, uint8 [s, s], or why it cannot be read."""
    try:
        return preprocess(read_slice(one, data), size=data.image_size, equalize=data.equalize)
    except ImageError as error:
        return str(error)
