"""What the header of a DICOM file says: axial CT slices in Hounsfield units, or why there are none.

Nothing here imports pydicom; a data set is what ``pydicom.dcmread`` returned. Clauses are those of
the DICOM standard, PS3.3 unless another part is named.
"""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from msa_flax.data.headers import ImageError

MAX_SIDE = 8192  # pixels, 16 times a CT slice's: bounds what decoding may allocate
CT = (  # SOP classes (PS3.4, B.5): CT Image, Enhanced CT Image, Legacy Converted Enhanced CT Image
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
)
_NO_SLICE = ("LOCALIZER", "PERFUSION")  # image types (C.8.2.1.1.1, C.8.15.2) without anatomy in HU
_TAGS = {
    "SpecificCharacterSet": 0x00080005,
    "ImageType": 0x00080008,
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "Modality": 0x00080060,
    "FrameType": 0x00089007,
    "PatientID": 0x00100020,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "InstanceNumber": 0x00200013,
    "ImagePositionPatient": 0x00200032,
    "ImageOrientationPatient": 0x00200037,
    "FrameOfReferenceUID": 0x00200052,
    "SamplesPerPixel": 0x00280002,
    "PhotometricInterpretation": 0x00280004,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "HighBit": 0x00280102,
    "PixelRepresentation": 0x00280103,
    "PixelPaddingValue": 0x00280120,
    "PixelPaddingRangeLimit": 0x00280121,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "RescaleType": 0x00281054,
    "SharedFunctionalGroupsSequence": 0x52009229,
    "PerFrameFunctionalGroupsSequence": 0x52009230,
}
TAGS = list(_TAGS.values())  # what is read of a header
_OF_A_FRAME = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "FrameType"),
)
Values = dict[str, list[str]]  # by keyword, the values of an element as text


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
    sop_class_uid: str
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
    bits_allocated: int  # to a pixel in the file, 8 or 16
    bits_stored: int  # of a pixel, the lowest ones
    signed: bool  # whether the stored values are two's complement
    padding: tuple[int, int] | None  # lowest and highest stored value that is no pixel
    transfer_syntax: str  # its UID (PS3.5, annex A)
    offset: int  # of the pixels of all frames in the file, in bytes; -1: deflated


def slices_of(ds: Any, path: Path, *, offset: int, max_tilt: float) -> list[DicomSlice]:
    """Checks a header, and returns a slice per frame.

    Args:
        ds: the data set up to its pixels, with :data:`TAGS`.
        path: of the file.
        offset: of its pixels, in bytes.
        max_tilt: degrees between a slice's normal and the patient's long axis, at most.

    Raises:
        DicomError: not an axial CT image in Hounsfield units, or its parts do not fit.
    """
    _check_kind(ds)
    frames = _whole(ds, "NumberOfFrames", 1)
    syntax, pixels = _transfer_syntax(ds), _pixel_format(ds)
    groups = _frame_groups(ds, frames)
    return [
        DicomSlice(
            path=path,
            frame=i,
            frames=frames,
            patient_id=str(ds.get("PatientID") or ""),
            study_uid=_text(ds, "StudyInstanceUID"),
            series_uid=_text(ds, "SeriesInstanceUID"),
            sop_class_uid=_text(ds, "SOPClassUID"),
            sop_uid=_text(ds, "SOPInstanceUID"),
            frame_of_reference_uid=_text(ds, "FrameOfReferenceUID"),
            modality="CT",
            image_type=tuple(_texts(ds, "ImageType")),
            instance_number=_whole(ds, "InstanceNumber", -1),
            transfer_syntax=syntax,
            offset=offset,
            **pixels,
            **_rescale(group),
            **_geometry(group, max_tilt),
        )
        for i, group in enumerate(groups)
    ]


# pydicom turns an element into an object when it is asked for. For the few numbers and names here
# that would take as long as reading the file, so their bytes are read (PS3.5, 6.2 and 7.1).


def _bytes(ds: Any, keyword: str) -> tuple[bytes, Literal["little", "big"]]:
    element = ds.get_item(_TAGS[keyword])
    if element is None or not isinstance(element.value, bytes):
        return b"", "little"
    return element.value, "little" if element.is_little_endian else "big"


def _texts(ds: Any, keyword: str) -> list[str]:
    """Returns the values of an element that is text; [] where it is missing or empty."""
    value = _bytes(ds, keyword)[0].decode("latin-1").strip(" \0")
    return [part.strip(" \0") for part in value.split("\\")] if value else []


def _text(ds: Any, keyword: str) -> str:
    return "\\".join(_texts(ds, keyword))


def _whole(ds: Any, keyword: str, missing: int) -> int:
    """Returns a whole number that is written as text."""
    text = _text(ds, keyword)
    try:
        return int(text) if text else missing
    except ValueError:
        raise DicomError(f"{keyword}: expected a whole number, got {text[:16]!r}") from None


def _word(ds: Any, keyword: str) -> int | None:
    """Returns a whole number of two bytes, unsigned; None where it is missing or empty."""
    value, order = _bytes(ds, keyword)
    return int.from_bytes(value, order) if len(value) == 2 else None


def _check_kind(ds: Any) -> None:
    uid, modality = _text(ds, "SOPClassUID"), _text(ds, "Modality")
    if uid not in CT:
        name = getattr(ds.get("SOPClassUID"), "name", "")[:64] or modality[:16]
        raise DicomError(f"not a CT image: {name or 'it does not say what it is'}")
    if modality != "CT":
        raise DicomError(f"not a CT image: its modality is {modality[:16] or 'missing'}")
    _check_type(_texts(ds, "ImageType"))


def _check_type(image_type: Iterable[str]) -> None:
    for kind in image_type:
        if kind in _NO_SLICE:
            raise DicomError(f"not a CT slice: its image type is {kind}")


def _transfer_syntax(ds: Any) -> str:
    """Returns how a file is encoded; without file meta information pydicom has found it out."""
    if syntax := getattr(ds, "file_meta", {}).get("TransferSyntaxUID"):
        return str(syntax)
    implicit, little = ds.original_encoding
    return "1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2")


def _pixel_format(ds: Any) -> dict[str, Any]:
    """Checks the Image Pixel module (C.7.6.3)."""
    samples, photometric = _word(ds, "SamplesPerPixel"), _text(ds, "PhotometricInterpretation")
    if samples not in (1, None) or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise DicomError(
            f"not a CT slice: {samples} samples per pixel, "
            f"{photometric[:16] or 'no interpretation'}"
        )
    rows, columns = _word(ds, "Rows") or 0, _word(ds, "Columns") or 0
    if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE):
        raise DicomError(f"{columns} x {rows} pixels, expected 1 to {MAX_SIDE} a side")
    allocated, stored = _word(ds, "BitsAllocated"), _word(ds, "BitsStored") or 0
    high = _word(ds, "HighBit")
    lowest = high in (stored - 1, None)
    if allocated not in (8, 16) or not 1 < stored <= allocated or not lowest:
        raise DicomError(
            f"{stored} of {allocated} bits up to bit {high}, expected the lowest of 8 or 16 bits"
        )
    signed = _word(ds, "PixelRepresentation")
    if signed not in (0, 1):
        raise DicomError("it does not say whether pixels are signed (Pixel Representation)")
    return {
        "rows": rows,
        "columns": columns,
        "bits_allocated": allocated,
        "bits_stored": stored,
        "signed": signed == 1,
        "padding": _padding(ds, 2**stored, signed=signed == 1),
    }


def _padding(ds: Any, size: int, *, signed: bool) -> tuple[int, int] | None:
    """Returns the range of stored values that are no pixels (C.7.5.1.1.2).

    Headers write its ends signed or unsigned, whatever the pixels are.

    Args:
        ds: the data set.
        size: number of different stored values.
        signed: whether they are two's complement.
    """
    words = [_word(ds, f"PixelPadding{name}") for name in ("Value", "RangeLimit")]
    if words[0] is None:
        return None
    ends = [word % size for word in words if word is not None]
    ends = [end - size if signed and end >= size // 2 else end for end in ends]
    return min(ends), max(ends)


def _frame_groups(ds: Any, frames: int) -> list[Values]:
    """Returns what is said of each frame: by the header, or by functional groups (C.7.6.16)."""
    if "PerFrameFunctionalGroupsSequence" not in ds:
        if frames != 1:
            raise DicomError(f"{frames} frames, but no position of each of them")
        return [_inside([ds])]
    per_frame = ds.PerFrameFunctionalGroupsSequence
    if len(per_frame) != frames:
        raise DicomError(f"{frames} frames, but {len(per_frame)} descriptions of frames")
    shared = _inside(_macros(ds.get("SharedFunctionalGroupsSequence") or ()))
    groups = [shared | _inside(_macros([group])) for group in per_frame]
    for group in groups:
        _check_type(group.get("FrameType", ()))
    return groups


def _macros(groups: Iterable[Any]) -> list[Any]:
    """Returns the macros of functional groups, each a sequence of one item."""
    elements = [element for group in groups for element in group]
    return [element.value[0] for element in elements if element.VR == "SQ" and element.value]


def _inside(items: Iterable[Any]) -> Values:
    return {name: values for ds in items for name in _OF_A_FRAME if (values := _texts(ds, name))}


def _rescale(group: Values) -> dict[str, Any]:
    """Checks the Modality LUT module (C.11.1): without it, stored values mean nothing.

    A type is needed only where it is not HU (C.8.2.1.1.2), so none means HU.
    """
    kind = "".join(group.get("RescaleType", ["HU"]))
    if kind != "HU":
        raise DicomError(f"not Hounsfield units: its Rescale Type is {kind[:16]}")
    slope, intercept = (_numbers(group, f"Rescale{name}", 1)[0] for name in ("Slope", "Intercept"))
    if slope <= 0:
        raise DicomError(f"no Hounsfield units: Rescale Slope {slope:g}, expected a number above 0")
    return {"slope": slope, "intercept": intercept}


def _geometry(group: Values, max_tilt: float) -> dict[str, Any]:
    """Checks the Image Plane module (C.7.6.2)."""
    orientation = _numbers(group, "ImageOrientationPatient", 6)
    row, column = orientation[:3], orientation[3:]
    product = sum(a * b for a, b in zip(row, column, strict=True))
    faults = (math.hypot(*row) - 1, math.hypot(*column) - 1, product)
    # C.7.6.2.1.1; scanners write three digits or more, so 0.001 is a rounding, 0.01 is a fault.
    if max(map(abs, faults)) > 0.01:
        raise DicomError(
            f"ImageOrientationPatient {orientation}: not two directions at a right angle"
        )
    tilt = math.degrees(math.acos(min(1.0, normal(orientation)[2])))
    if tilt > max_tilt:
        raise DicomError(f"not axial: tilted by {tilt:.0f} degrees, at most {max_tilt:g} are read")
    spacing = _numbers(group, "PixelSpacing", 2)
    if min(spacing) <= 0:
        raise DicomError(f"PixelSpacing {spacing}, expected millimetres above 0")
    position = _numbers(group, "ImagePositionPatient", 3)
    return {"orientation": orientation, "position": position, "spacing": spacing}


def _numbers(group: Values, name: str, count: int) -> tuple[float, ...]:
    texts = group.get(name, [])
    try:
        found = tuple(float(text) for text in texts)
    except ValueError:
        found = ()
    if len(found) != count or not all(map(math.isfinite, found)):
        got = "\\".join(texts)[:60]
        expected = "a number" if count == 1 else f"{count} numbers"
        raise DicomError(f"{name}: expected {expected}, got {got or 'none'}")
    return found


def normal(orientation: tuple[float, ...]) -> tuple[float, float, float]:
    """Returns the unit vector across a slice, towards the head.

    Args:
        orientation: six direction cosines, of a row and of a column (C.7.6.2.1.1).
    """
    a, b, c, d, e, f = orientation
    x, y, z = b * f - c * e, c * d - a * f, a * e - b * d
    length = math.copysign(math.hypot(x, y, z), z)
    return x / length, y / length, z / length
