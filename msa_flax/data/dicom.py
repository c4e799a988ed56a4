"""CT slices from DICOM files: Hounsfield units, and the bone window that a network sees.

pydicom reads and decodes. What is not an axial CT slice in Hounsfield units, or whose pixels are
not what its header says, is refused with the reason, see :mod:`msa_flax.data.dicom_header`. Clauses
are those of the DICOM standard, PS3.3 unless another part is named.
"""

import contextlib
import functools
import hashlib
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data.dicom_header import TAGS, DicomError, DicomSlice, slices_of
from msa_flax.data.dicom_pixels import check_inflated, check_length, find_pixels, stored_words

__all__ = [
    "DicomError",
    "DicomSlice",
    "decode",
    "hounsfield",
    "is_dicom",
    "only_slice",
    "oriented",
    "pseudonym",
    "read_elements",
    "read_header",
    "windowed",
]

AIR = -1000.0  # HU: what padding outside of the reconstructed circle counts as (C.7.5.1.1.2)
# OpenCV 5 looks up words in half the time of NumPy; OpenCV 4 has tables of 256 entries only.
_WIDE_TABLES = int(cv2.__version__.partition(".")[0]) >= 5
_lock = threading.Lock()


class _Values(NamedTuple):
    """What turns a stored word into Hounsfield units."""

    slope: float
    intercept: float
    signed: bool
    bits: int
    padding: tuple[int, int] | None


def is_dicom(head: bytes) -> bool:
    """Whether a file is DICOM by its first 132 bytes or more.

    That is "DICM" after a preamble of 128 bytes (PS3.10, 7.1). Without a preamble, it is a first
    element of group 2, or one of group 8: its length, a character set, type, class or instance.
    """
    if head[128:132] == b"DICM":
        return True
    if head[:2] == b"\2\0":
        return head[4:6] in (b"UL", b"OB", b"UI")
    first = head[2:4] in (b"\0\0", b"\5\0", b"\x08\0", b"\x16\0", b"\x18\0")
    explicit = head[4:6] in (b"UL", b"CS", b"UI")
    implicit = 0 < int.from_bytes(head[4:8], "little") <= 128
    return len(head) >= 132 and head[:2] == b"\x08\0" and first and (explicit or implicit)


def read_header(path: str | os.PathLike[str], *, max_tilt: float = 30.0) -> list[DicomSlice]:
    """Returns the slices of a file, one per frame; no pixel is read.

    Args:
        path: the file.
        max_tilt: degrees between a slice's normal and the patient's long axis, at most.

    Raises:
        DicomError: not an axial CT image in Hounsfield units, or its parts do not fit.
    """
    path = Path(path)
    with _opened(path) as file, _reading():
        return _read(file, path, max_tilt)


def read_elements(path: str | os.PathLike[str], keywords: Sequence[str]) -> Any:
    """Returns some elements of a file's header as a ``pydicom.Dataset``, whatever it is about.

    Raises:
        DicomError: it is no DICOM file, or cannot be read.
    """
    with _opened(Path(path)) as file, _reading():
        if not is_dicom(file.read(132)):
            raise DicomError("not a DICOM file")
        file.seek(0)
        tags: list[Any] = list(keywords)
        ds = _header(file, tags)
        list(ds)  # pydicom looks at a value, and warns of it, when it is first asked for
        return ds


def hounsfield(slice: DicomSlice) -> np.ndarray:
    """Returns the Hounsfield units of a slice as it is stored, float32 [rows, columns].

    Stored value times slope plus intercept (C.11.1.1.2); padding counts as :data:`AIR`. A
    photometric interpretation of MONOCHROME1 asks for another display, not for other values
    (C.7.6.3.1.2).

    Raises:
        DicomError: the pixels cannot be decoded, or are not what the header says.
    """
    with _opened(slice.path) as file:
        return _look_up(_units(_values(slice)), slice, file)


def windowed(slice: DicomSlice, *, centre: float = 400.0, width: float = 1800.0) -> np.ndarray:
    """Returns a slice as a network sees it: bone window, rows to the left, columns to the back.

    The window is LINEAR (C.11.2.1.2.1), rounded to whole grey values. The orientation follows from
    the direction cosines alone, see :func:`oriented`.

    Args:
        slice: from :func:`read_header`.
        centre: HU.
        width: HU, above 1.

    Returns:
        uint8 [rows, columns], or [columns, rows] where rows of the file run to front or back.

    Raises:
        DicomError: the pixels cannot be decoded, or are not what the header says.
    """
    with _opened(slice.path) as file:
        grey = _look_up(_grey(_values(slice), centre, width), slice, file)
    return oriented(grey, slice.orientation)


def decode(data: bytes, config: DataConfig) -> np.ndarray:
    """Returns the one slice that a file holds, as :func:`windowed` does.

    Args:
        data: the whole file.
        config: the window and ``max_tilt`` are used.

    Raises:
        DicomError: what :func:`read_header` and :func:`windowed` refuse, or more than one frame.
    """
    file = io.BytesIO(data)
    with _reading():
        slices = _read(file, Path(), config.max_tilt)
    one = only_slice(slices)
    table = _grey(_values(one), config.window_centre, config.window_width)
    return oriented(_look_up(table, one, file), one.orientation)


def only_slice(slices: Sequence[DicomSlice]) -> DicomSlice:
    """Returns the slice of a file that must hold one, because it has one label.

    Raises:
        DicomError: more than one frame.
    """
    if len(slices) > 1:
        raise DicomError(
            f"{len(slices)} frames in one file, and one label; write each frame to a file of its "
            "own, or give the file to predict"
        )
    return slices[0]


def metadata_bytes(data: bytes) -> int:
    """Returns how many bytes of a file lie before its pixels.

    Raises:
        DicomError: it cannot be read.
    """
    with _reading():
        file = io.BytesIO(data)
        _header(file, [])
        return file.tell()


def pseudonym(identifier: str, salt: str) -> str:
    """Returns 16 hexadecimal digits that stand for an identifier, the same ones every time.

    It is a keyed BLAKE2b hash (RFC 7693): who lacks the salt cannot try out identifiers.

    >>> pseudonym("patient 1", "salt") == pseudonym("patient 1", "salt")
    True
    """
    key = hashlib.blake2b(salt.encode("utf-8", "surrogateescape")).digest()
    text = identifier.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, key=key, digest_size=8).hexdigest()


@functools.cache
def _pydicom() -> Any:
    """Imports pydicom, which takes a third of a second, when the first DICOM file is met."""
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise DicomError(
            'DICOM files need pydicom, which is not installed; pip install "msa_flax[dicom]"'
        ) from error
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it repeats its warnings there
    return pydicom


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DicomError(f"cannot be read: {error.strerror or error}") from error


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Turns whatever pydicom and the decoders raise into one sentence, and keeps them quiet.

    Values that break a rule of the standard, such as a UID with a leading zero, are read as they
    are; what this package needs it checks itself. Warnings are a setting of the whole process, so
    one thread reads at a time.
    """
    pydicom = _pydicom()
    try:
        with _lock, warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    except DicomError:
        raise
    except BaseException as error:
        # A decoder written in Rust panics with an error of its own, which is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = " ".join(str(error).split()).rpartition("all available plugins: ")[2]
        reason = said[:160] or type(error).__name__
        raise DicomError(f"damaged or not supported: {reason}") from error


def _header(file: BinaryIO, tags: Sequence[Any]) -> Any:
    """Returns these elements of a file that stands at its beginning, as a ``pydicom.Dataset``."""
    check_inflated(file)
    return _pydicom().dcmread(file, stop_before_pixels=True, specific_tags=tags, force=True)


def _read(file: BinaryIO, path: Path, max_tilt: float) -> list[DicomSlice]:
    ds = _header(file, TAGS)
    offset, length = find_pixels(file)
    slices = slices_of(ds, path, offset=offset, max_tilt=max_tilt)
    check_length(file, slices[0], length)
    return slices


def _look_up(table: np.ndarray, slice: DicomSlice, file: BinaryIO) -> np.ndarray:
    with _reading():
        words = stored_words(slice, file)
    if _WIDE_TABLES and words.dtype == np.uint16 and table.dtype == np.uint8:
        return cv2.LUT(words, table[None])
    return np.take(table, words)


def oriented(image: np.ndarray, orientation: tuple[float, ...]) -> np.ndarray:
    """Turns and mirrors an axial image so that rows run to the patient's left, columns back.

    Args:
        image: [rows, columns].
        orientation: six direction cosines, of a row and of a column (C.7.6.2.1.1).
    """
    row, column = orientation[:3], orientation[3:]
    if abs(row[0]) + abs(column[1]) < abs(row[1]) + abs(column[0]):
        image, row, column = image.T, column, row
    image = image[:, ::-1] if row[0] < 0 else image
    return np.ascontiguousarray(image[::-1] if column[1] < 0 else image)


def _values(slice: DicomSlice) -> _Values:
    return _Values(slice.slope, slice.intercept, slice.signed, slice.bits_stored, slice.padding)


@functools.lru_cache(maxsize=32)
def _units(values: _Values) -> np.ndarray:
    """Returns the Hounsfield units of every word of 16 bits, float32 [65536].

    Bits above the stored ones are no part of a pixel (PS3.5, 8.1.1).
    """
    size = 2**values.bits
    stored = np.arange(2**16) & (size - 1)
    if values.signed:
        stored = np.where(stored >= size // 2, stored - size, stored)
    units = stored * values.slope + values.intercept
    if values.padding:
        units[(stored >= values.padding[0]) & (stored <= values.padding[1])] = AIR
    return units.astype(np.float32)


@functools.lru_cache(maxsize=32)
def _grey(values: _Values, centre: float, width: float) -> np.ndarray:
    """Returns the grey value of every word of 16 bits, uint8 [65536] (C.11.2.1.2.1)."""
    grey = ((_units(values).astype(np.float64) - (centre - 0.5)) / (width - 1) + 0.5) * 255
    return np.rint(np.clip(grey, 0, 255)).astype(np.uint8)
