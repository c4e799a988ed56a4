"""CT slices as DICOM files, made from grey pictures; patients are made up."""

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def units(image):
    """The stored values, HU + 1024, that the bone window shows as these grey values."""
    # PS3.3 C.11.2.1.2.1 for centre 400 and width 1800, solved for the stored value.
    return np.rint((image / 255 - 0.5) * 1799 + 399.5 + 1024).astype(np.int16)


def ct_slice(image, *, position=0.0, series="1", study="1", patient="P1", name="", **more):
    """A data set of a CT slice that is read back as ``image``, uint8 [h, w].

    ``position`` is in mm; ``more`` are further elements by keyword.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    ds = Dataset()
    ds.file_meta, ds.SOPClassUID = meta, CTImageStorage
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study", study])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["series", study, series])
    ds.FrameOfReferenceUID = ds.StudyInstanceUID
    ds.SOPInstanceUID = generate_uid(entropy_srcs=["slice", study, series, str(position)])
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PatientID, ds.PatientName = patient, name
    ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    ds.ImagePositionPatient = [0, 0, position]
    ds.Rows, ds.Columns = image.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.PixelData = units(image).tobytes()
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def write_series(folder, images, *, step=2.0, **about):
    """Writes a series, one file for each image from the lowest upwards; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        # Numbered against the position, as some scanners do.
        path = folder / f"{len(images) - i}.dcm"
        write(path, ct_slice(image, position=step * i, **about))
    return folder


def write(path, dataset):
    """Writes a data set as a DICOM file."""
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
