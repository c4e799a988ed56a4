"""A slice with the map over it, as a secondary capture that says what it is in its pixels.

The original is not changed: a preview is an image of its own, which names the one that it was made
from. The words stand below the slice, not over it.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from highdicom.sc import SCImage
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes

from msa_flax.archive.origin import Instance, Origin, plain

_SERIES_NUMBER = 9002
_LEAST = 512  # pixels a side: in smaller pictures nobody can read the words
_LINE = 26  # height of a line, in pixels
_FONT, _LARGEST = cv2.FONT_HERSHEY_SIMPLEX, 0.62


def preview(
    origin: Origin, picture: np.ndarray, lines: Sequence[str], *, of: Instance, number: int
) -> tuple[str, bytes]:
    """Returns the preview of a slice: the name of its file, and the bytes.

    Args:
        origin: the series and the model.
        picture: the slice with the map over it, uint8 [h, w, 3], RGB, rows to the patient's left
            and columns to the back.
        lines: what is burnt in.
        of: the slice.
        number: of the preview, from 1.
    """
    factor = max(1, -(-_LEAST // min(picture.shape[:2])))
    large = np.repeat(np.repeat(picture, factor, 0), factor, 1)
    image = SCImage(
        pixel_array=burn_in(large, lines),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=origin.study_uid,
        series_number=_SERIES_NUMBER,
        **origin.common("preview", number),
    )
    image.ConversionType, image.BodyPartExamined = "WSD", "CSPINE"  # by a workstation (C.8.6.1)
    image.BurnedInAnnotation = "NO"  # none that names the patient (C.7.6.1.1)
    image.ImageComments = plain("; ".join(lines))
    image.DerivationDescription = "bone window, with a map of what speaks for the finding over it"
    image.FrameOfReferenceUID = origin.header.get("FrameOfReferenceUID", "")
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = of.class_uid, of.uid
    if of.frame:
        source.ReferencedFrameNumber = of.frame
    purpose = CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    source.PurposeOfReferenceCodeSequence = [purpose]
    image.SourceImageSequence = [source]
    return origin.file(image)


def burn_in(picture: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Returns a picture with a band of words below it.

    Args:
        picture: uint8 [h, w, 3].
        lines: of the band; as many lines as here.

    Returns:
        uint8 [h + the band, w, 3].
    """
    width = picture.shape[1]
    band = np.zeros((_LINE * len(lines) + _LINE // 2, width, 3), np.uint8)
    for i, line in enumerate(map(plain, lines), 1):
        scale = min(_LARGEST, (width - 16) / cv2.getTextSize(line, _FONT, 1.0, 1)[0][0])
        cv2.putText(band, line, (8, _LINE * i), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([picture, band])
