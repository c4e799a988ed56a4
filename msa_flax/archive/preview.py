"""A slice with the map over it, as a secondary capture that says what it is in its pixels.

The original is not changed: a preview is an image of its own, which names the one that it was made
from, and lies where that one lies in the frame of reference. The words stand below the slice, not
over it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from msa_flax.archive.objects import MAKER, Device, Instance, Source, file_of, general, plain

_SERIES_NUMBER = 9002
_LEAST = 512  # pixels a side: in smaller pictures nobody can read the words
_FONT, _LINE = cv2.FONT_HERSHEY_SIMPLEX, 26  # a line's height in pixels
_LARGEST = 0.62  # scale of the font


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the picture lies in the patient (C.7.6.2), in mm.

    Attributes:
        position: of the first pixel's centre.
        orientation: six direction cosines, of a row and of a column.
        spacing: between rows, between columns.
        frame_of_reference_uid: in which all of this is.
    """

    position: Sequence[float]
    orientation: Sequence[float]
    spacing: Sequence[float]
    frame_of_reference_uid: str


def preview(
    source: Source,
    device: Device,
    picture: np.ndarray,
    lines: Sequence[str],
    *,
    of: Instance,
    place: Place,
    number: int,
) -> tuple[str, bytes]:
    """Returns the preview of a slice: the name of its file, and the bytes.

    Args:
        source: the series.
        device: the model.
        picture: the slice with the map over it, uint8 [h, w, 3], RGB, rows to the patient's left
            and columns to the back.
        lines: what is burnt in.
        of: the slice.
        place: where the picture lies.
        number: of the preview, from 1.
    """
    from highdicom.sc import SCImage

    factor = max(1, -(-_LEAST // min(picture.shape[:2])))
    pixels = burn_in(np.repeat(np.repeat(picture, factor, 0), factor, 1), lines)
    image = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=source.study_uid,
        series_number=_SERIES_NUMBER,
        **general(f"preview {number}", source, device, number),
    )
    image.ConversionType = "WSD"  # by a workstation (C.8.6.1)
    image.BodyPartExamined = "CSPINE"
    image.BurnedInAnnotation = "NO"  # none that names the patient (C.7.6.1.1)
    image.ImageComments = plain("; ".join(lines))
    image.DerivationDescription = "bone window, with a map of what speaks for the finding over it"
    image.SourceImageSequence = [_reference(of)]
    _lay(image, place, factor)
    return file_of(image, source, f"{MAKER}: preview")


def burn_in(picture: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Returns a picture with a band of words below it.

    Args:
        picture: uint8 [h, w, 3].
        lines: what the band says, in characters of ASCII; as many lines as here.

    Returns:
        uint8 [h + the band, w, 3].
    """
    width = picture.shape[1]
    band = np.zeros((_LINE * len(lines) + _LINE // 2, width, 3), np.uint8)
    for i, line in enumerate(map(plain, lines), 1):
        widest = cv2.getTextSize(line, _FONT, 1.0, 1)[0][0]
        scale = min(_LARGEST, (width - 16) / widest)
        where = (8, _LINE * i)
        cv2.putText(band, line, where, _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([picture, band])


def _reference(of: Instance) -> Any:
    """Returns an item of the Source Image Sequence (C.7.6.1.1.4)."""
    from highdicom.sr import CodedConcept
    from pydicom import Dataset
    from pydicom.sr.codedict import codes

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = of.class_uid, of.uid
    if of.frame:
        item.ReferencedFrameNumber = of.frame
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(purpose)]
    return item


def _lay(image: Any, place: Place, factor: int) -> None:
    """Says where the picture lies, each pixel of which has become factor x factor pixels."""
    from pydicom.valuerep import DS

    spacing = np.array(place.spacing)
    row, column = np.array(place.orientation[:3]), np.array(place.orientation[3:])
    to_corner = row * spacing[1] + column * spacing[0]
    position = np.array(place.position) - to_corner * (factor - 1) / (2 * factor)

    def texts(values: Any) -> list[Any]:
        return [DS(float(value), auto_format=True) for value in values]

    image.ImagePositionPatient = texts(position)
    image.ImageOrientationPatient = texts(place.orientation)
    image.PixelSpacing = texts(spacing / factor)
    image.FrameOfReferenceUID = place.frame_of_reference_uid
    image.PositionReferenceIndicator = ""
