"""CT slices as DICOM files, made from one of pydicom's public ones: made-up patients."""

import copy
import functools

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid


@functools.cache
def _template():
    return pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))


def write_slice(path, image, *, patient, name="Quixote^Ada", study="", position=0.0):
    """Writes an image, uint8 [h, w], so that the bone window 400/1800 gives it back within one.

    Args:
        path: of the file.
        image: grey values.
        patient: Patient ID.
        name: Patient's Name.
        study: what the Study Instance UID is made from; the patient, if there is nothing.
        position: of the slice along the patient, in mm.
    """
    ds = copy.deepcopy(_template())  # copy.copy would share the elements
    stored = np.round(image / 255 * 1799 + 400 - 900 + 1024).astype(np.int16)
    ds.Rows, ds.Columns = image.shape
    ds.PixelData, ds.RescaleSlope, ds.RescaleIntercept = stored.tobytes(), 1, -1024
    ds.PatientID, ds.PatientName = patient, name
    ds.StudyInstanceUID = generate_uid(entropy_srcs=[patient, study])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=[patient, study, "series"])
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[patient, study, str(position)])
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [0, 0, position]
    ds.pop("PixelPaddingValue", None)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path)
