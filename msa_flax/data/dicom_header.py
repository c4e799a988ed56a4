"""What the header of a DICOM file says: axial CT slices in Hounsfield units, or why there are none.

Nothing here imports pydicom; a data set is what ``pydicom.dcmread`` returned. Clauses are those of
the DICOM standard, PS3.3 unless another part is named.
"""

import dataclasses
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from msa_flax.data.headers import ImageError

MAX_SIDE = 8192  # pixels, 16 times a CT slice's: bounds what decoding may allocate
DEFLATED = "1.2.840.10008.1.2.1.99"  # the transfer syntax that compresses header and pixels alike
_CT = (  # SOP classes (PS3.4, B.5): CT Image, Enhanced CT Image, Legacy Converted Enhanced CT Image
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
)
_NO_SLICE = ("LOCALIZER", "PERFUSION")  # image types (C.8.2.1.1.1, C.8.15.2) without anatomy in HU
_OF_A_FRAME = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "FrameType"),
)
KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"),
    *("FrameOfReferenceUID", "Modality", "ImageType", "InstanceNumber", "SamplesPerPixel"),
    *("PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence", "PixelData", *_OF_A_FRAME),
)


class DicomError(ImageError):
    """A DICOM file cannot be used; the message is a short reason without the file's name."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DicomSlice:
    """One axial CT slice as its header describes it; no pixel has been decoded."""

    path: Path
    frame: int  # of the file, 0-based
    frames: int  # in the file
    patient_id: str  # as in the file, "" unknown; see dicom.pseudonym()
    study_uid: str
    series_uid: str
    sop_uid: str
    frame_of_reference_uid: str
    modality: str  # "CT"
    image_type: tuple[str, ...]  # C.7.6.1.1.2, such as ("ORIGINAL", "PRIMARY", "AXIAL")
    instance_number: int  # -1 unknown; says nothing about where a slice lies
    rows: int  # pixels
    columns: int  # pixels
    orientation: tuple[float, ...]  # six direction cosines, of a row and of a column (C.7.6.2.1.1)
    position: tuple[float, ...]  # of the first pixel's centre: x to the left, y back, z up; mm
    spacing: tuple[float, ...]  # between rows, between columns; mm (10.7.1.3)
    slope: float  # HU per stored unit (C.11.1)
    intercept: float  # HU
    bits_stored: int  # of a pixel, the lowest ones
    signed: bool  # whether the stored values are two's complement
    padding: tuple[int, int] | None  # lowest and highest stored value that is no pixel
    transfer_syntax: str  # its UID (PS3.5, annex A)


def slices_of(ds: Any, file: BinaryIO, path: Path, *, max_tilt: float) -> list[DicomSlice]:
    """Checks a header, and returns a slice per frame.

    Args:
        ds: the data set up to its pixels, with :data:`KEYWORDS`.
        file: stands where the pixels begin.
        path: of the file, for the slices.
        max_tilt: degrees between a slice's normal and the patient's long axis, at most.

    Raises:
        DicomError: not an axial CT image in Hounsfield units, or its parts do not fit.
    """
    kind = ds.get("SOPClassUID", "")
    if str(kind) not in _CT or ds.get("Modality") != "CT":
        what = getattr(kind, "name", "") if str(kind) not in _CT else ds.get("Modality")
        raise DicomError(f"not a CT image: {what or 'it does not say what it is'}")
    _check_type(ds.get("ImageType"))
    syntax, pixels = _transfer_syntax(ds), _pixel_format(ds)
    frames = int(ds.get("NumberOfFrames") or 1)
    number = ds.get("InstanceNumber")
    bits = int(ds.BitsAllocated)
    _check_length(file, syntax, (pixels["rows"], pixels["columns"], frames, bits))
    groups = _frame_groups(ds, frames)
    return [
        DicomSlice(
            path=path,
            frame=i,
            frames=frames,
            patient_id=str(ds.get("PatientID") or ""),
            study_uid=str(ds.get("StudyInstanceUID") or ""),
            series_uid=str(ds.get("SeriesInstanceUID") or ""),
            sop_uid=str(ds.get("SOPInstanceUID") or ""),
            frame_of_reference_uid=str(ds.get("FrameOfReferenceUID") or ""),
            modality="CT",
            image_type=tuple(str(part) for part in ds.get("ImageType") or ()),
            instance_number=-1 if number is None else int(number),
            transfer_syntax=syntax,
            **pixels,
            **_rescale(group),
            **_geometry(group, max_tilt),
        )
        for i, group in enumerate(groups)
    ]


def _check_type(image_type: Any) -> None:
    for kind in _NO_SLICE:
        if kind in [str(part).strip() for part in image_type or ()]:
            raise DicomError(f"not a CT slice: its image type is {kind}")


def _transfer_syntax(ds: Any) -> str:
    """Returns how a file is encoded; without file meta information pydicom has found it out."""
    if syntax := getattr(ds, "file_meta", {}).get("TransferSyntaxUID"):
        return str(syntax)
    implicit, little = ds.original_encoding
    return "1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2")


def _pixel_format(ds: Any) -> dict[str, Any]:
    """Checks the Image Pixel module (C.7.6.3)."""
    samples, photometric = ds.get("SamplesPerPixel", 1), ds.get("PhotometricInterpretation")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise DicomError(
            f"not a CT slice: {samples} samples per pixel, {photometric or 'of no kind'}"
        )
    rows, columns = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
    if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE):
        raise DicomError(f"{columns} x {rows} pixels, expected 1 to {MAX_SIDE} a side")
    allocated, stored = ds.get("BitsAllocated"), ds.get("BitsStored")
    high = ds.get("HighBit", (stored or 0) - 1)
    if allocated not in (8, 16) or not stored or not 1 < stored <= allocated or high != stored - 1:
        raise DicomError(
            f"{stored} of {allocated} bits up to bit {high}, expected the lowest of 8 or 16 bits"
        )
    if ds.get("PixelRepresentation") not in (0, 1):
        raise DicomError("it does not say whether pixels are signed (Pixel Representation)")
    return {
        "rows": rows,
        "columns": columns,
        "bits_stored": int(stored),
        "signed": ds.PixelRepresentation == 1,
        "padding": _padding(ds),
    }


def _padding(ds: Any) -> tuple[int, int] | None:
    """Returns the range of stored values that are no pixels (C.7.5.1.1.2)."""
    ends = [ds.get(f"PixelPadding{name}") for name in ("Value", "RangeLimit")]
    if ends[0] is None:
        return None
    if not all(isinstance(end, int) for end in ends if end is not None):
        raise DicomError(f"Pixel Padding: expected whole numbers, got {ends}"[:100])
    # Headers write it signed or unsigned, whatever the pixels are.
    stored, signed = 2 ** int(ds.BitsStored), ds.PixelRepresentation == 1
    values = [end % stored for end in ends if end is not None]
    values = [end - stored if signed and end >= stored // 2 else end for end in values]
    return min(values), max(values)


def _check_length(file: BinaryIO, syntax: str, shape: tuple[int, int, int, int]) -> None:
    """Refuses a file without pixels, and pixels whose number of bytes does not fit the header.

    Args:
        file: stands where the pixels begin.
        syntax: UID of the transfer syntax.
        shape: rows, columns, frames, bits of a pixel.
    """
    if syntax == DEFLATED:  # the file cannot tell; the decoder does
        return
    head = file.read(12)
    if head[:4] not in (b"\xe0\x7f\x10\0", b"\x7f\xe0\0\x10"):
        raise DicomError("no pixels: the file is cut off, or holds a header alone")
    order: Literal["little", "big"] = "big" if head[0] == 0x7F else "little"
    explicit = head[4:6] in (b"OW", b"OB")  # PS3.5, 7.1.2: two reserved bytes follow
    length = int.from_bytes(head[8:12] if explicit else head[4:8], order)
    start = file.tell() - (0 if explicit else 4)
    there = file.seek(0, io.SEEK_END) - start
    rows, columns, frames, bits = shape
    expected = rows * columns * frames * bits // 8
    if length == 0xFFFFFFFF:  # encapsulated: of undefined length (PS3.5, A.4)
        return
    if length not in (expected, expected + expected % 2) or there < expected:
        raise DicomError(
            f"{min(there, length)} bytes of pixels, expected {expected}: {columns} x {rows} "
            f"pixels of {bits} bits, {frames} frames"
        )


def _frame_groups(ds: Any, frames: int) -> list[dict[str, Any]]:
    """Returns what is said of each frame: by the header, or by functional groups (C.7.6.16)."""
    if "PerFrameFunctionalGroupsSequence" not in ds:
        if frames != 1:
            raise DicomError(f"{frames} frames, but no position of each of them")
        return [{name: ds.get(name) for name in _OF_A_FRAME}]
    per_frame = ds.PerFrameFunctionalGroupsSequence
    if len(per_frame) != frames:
        raise DicomError(f"{frames} frames, but {len(per_frame)} descriptions of frames")
    shared = _inside(ds.get("SharedFunctionalGroupsSequence") or ())
    groups = [shared | _inside([group]) for group in per_frame]
    for group in groups:
        _check_type(group.get("FrameType"))
    return groups


def _inside(groups: Iterable[Any]) -> dict[str, Any]:
    """Returns what functional groups say, each in a macro that is a sequence of one item."""
    macros = [macro.value[0] for group in groups for macro in group if macro.value]
    return {name: macro.get(name) for macro in macros for name in _OF_A_FRAME if name in macro}


def _rescale(group: dict[str, Any]) -> dict[str, Any]:
    """Checks the Modality LUT module (C.11.1): without it, stored values mean nothing.

    A type is needed only where it is not HU (C.8.2.1.1.2), so none means HU.
    """
    kind = str(group.get("RescaleType") or "HU").strip()
    if kind != "HU":
        raise DicomError(f"not Hounsfield units: its Rescale Type is {kind[:16]}")
    values = [group.get("RescaleSlope"), group.get("RescaleIntercept")]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise DicomError("no Hounsfield units: Rescale Slope or Intercept is missing or no number")
    slope, intercept = [float(value) for value in values if value is not None]
    if slope <= 0:
        raise DicomError(f"no Hounsfield units: Rescale Slope {slope:g}, expected a number above 0")
    return {"slope": slope, "intercept": intercept}


def _geometry(group: dict[str, Any], max_tilt: float) -> dict[str, Any]:
    """Checks the Image Plane module (C.7.6.2)."""
    orientation = _numbers(group, "ImageOrientationPatient", 6)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    # C.7.6.2.1.1; scanners write three digits or more, so 0.001 is a rounding, 0.01 is a fault.
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 0.01:
        raise DicomError(
            f"Image Orientation (Patient) {orientation}: not two directions at a right angle"
        )
    tilt = math.degrees(math.acos(min(1.0, normal(orientation)[2])))
    if tilt > max_tilt:
        raise DicomError(f"not axial: tilted by {tilt:.0f} degrees, at most {max_tilt:g} are read")
    spacing = _numbers(group, "PixelSpacing", 2)
    if min(spacing) <= 0:
        raise DicomError(f"Pixel Spacing {spacing}, expected millimetres above 0")
    position = _numbers(group, "ImagePositionPatient", 3)
    return {"orientation": orientation, "position": position, "spacing": spacing}


def _numbers(group: dict[str, Any], name: str, count: int) -> tuple[float, ...]:
    values = group.get(name)
    if values is None or isinstance(values, str) or len(values) != count:
        raise DicomError(f"no {name}, or not of {count} numbers")
    found = tuple(float(value) for value in values)
    if not all(map(math.isfinite, found)):
        raise DicomError(f"{name} {found}, expected finite numbers")
    return found


def normal(orientation: tuple[float, ...]) -> np.ndarray:
    """Returns the unit vector across a slice, towards the head: float64 [3].

    Args:
        orientation: six direction cosines, of a row and of a column (C.7.6.2.1.1).
    """
    across = np.cross(orientation[:3], orientation[3:])
    across /= np.linalg.norm(across)
    return across if across[2] >= 0 else -across
