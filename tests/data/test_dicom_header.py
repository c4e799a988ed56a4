"""What a header must say: one changed element at a time."""

import pytest
from public_dicom import dataset, saved

from msa_flax.config import DataConfig
from msa_flax.data.dicom import DicomError, decode, read_header


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "not a CT image: Secondary Capture"),
        ({"SOPClassUID": ...}, "not a CT image: CT"),
        ({"Modality": "MR"}, "not a CT image: its modality is MR"),
        ({"Modality": ...}, "its modality is missing"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "its image type is LOCALIZER"),
        ({"RescaleSlope": ...}, "RescaleSlope: expected a number, got none"),
        ({"RescaleSlope": None}, "RescaleSlope: expected a number, got none"),
        ({"RescaleSlope": 0}, "Rescale Slope 0, expected a number above 0"),
        ({"RescaleSlope": -1}, "Rescale Slope -1, expected a number above 0"),
        ({"RescaleIntercept": ...}, "RescaleIntercept: expected a number, got none"),
        ({"RescaleType": "US"}, "its Rescale Type is US"),
        ({"RescaleType": "HU_MOD"}, "its Rescale Type is HU_MOD"),
        ({"ImageOrientationPatient": ...}, "ImageOrientationPatient: expected 6 numbers, got none"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "expected 6 numbers"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not two directions at a right angle"),
        ({"ImageOrientationPatient": [0] * 6}, "not two directions at a right angle"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "not axial: tilted by 90 degrees"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.8, 0.6]}, "not axial: tilted by 37 degrees"),
        ({"ImagePositionPatient": ...}, "ImagePositionPatient: expected 3 numbers"),
        ({"PixelSpacing": [0.5, 0]}, "expected millimetres above 0"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "3 samples per pixel, RGB"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "1 samples per pixel, PALETTE COLOR"),
        ({"Rows": 0}, "128 x 0 pixels"),
        ({"Rows": 64}, "32768 bytes of pixels, expected 16384"),
        ({"Rows": 60_000, "Columns": 60_000}, "60000 x 60000 pixels, expected 1 to 8192 a side"),
        ({"BitsAllocated": 32}, "16 of 32 bits"),
        ({"BitsStored": 12, "HighBit": 15}, "12 of 16 bits up to bit 15"),
        ({"PixelRepresentation": ...}, "does not say whether pixels are signed"),
        ({"NumberOfFrames": 2}, "2 frames, but no position of each of them"),
        ({"PixelData": ...}, "no pixels"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(changes, reason):
    with pytest.raises(DicomError) as error:
        decode(saved(dataset(**changes)), DataConfig())
    assert reason in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    "changes",
    [
        {"RescaleType": "HU"},
        {"SamplesPerPixel": 1},
        {"PatientID": ...},
        {"PatientID": "p" * 64},
        {"InstanceNumber": ...},
        {"ImageType": ...},
        {"FrameOfReferenceUID": ...},
        {"NumberOfFrames": 1},
        {"SpacingBetweenSlices": 77},
        {"ImageOrientationPatient": ["0.999999", "0.0001", "0", "0", "1", "0"]},
    ],
)
def test_a_header_with_all_that_is_needed_is_read(changes):
    assert decode(saved(dataset(**changes)), DataConfig()).shape == (128, 128)


def test_what_a_header_says(tmp_path):
    (tmp_path / "a").write_bytes(saved(dataset(PatientID="p 1", InstanceNumber=7)))
    (one,) = read_header(tmp_path / "a")
    assert (one.patient_id, one.instance_number, one.modality) == ("p 1", 7, "CT")
    assert (one.rows, one.columns, one.frame, one.frames) == (128, 128, 0, 1)
    assert one.position == (-158.135803, -179.035797, -75.699997)
    assert one.spacing == (0.661468, 0.661468)
    assert (one.slope, one.intercept, one.signed) == (1, -1024, True)
    assert one.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert one.path == tmp_path / "a"
    assert one.series_uid != one.study_uid != one.sop_uid
