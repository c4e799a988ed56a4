"""What a header must say: one changed element at a time."""

import copy
import io

import pydicom
import pytest
from pydicom.data import get_testdata_file

from msa_flax.config import DataConfig
from msa_flax.data.dicom import DicomError, decode


@pytest.fixture(scope="module")
def original():
    return pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))


def refused(ds):
    file = io.BytesIO()
    ds.save_as(file)
    with pytest.raises(DicomError) as error:
        decode(file.getvalue(), DataConfig())
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Modality": "MR"}, "not a CT image: its modality is MR"),
        ({"RescaleSlope": None}, "RescaleSlope: expected a number, got none"),
        ({"RescaleSlope": 0}, "Rescale Slope 0"),
        ({"RescaleType": "US"}, "Rescale Type is US"),
        ({"Rows": 64}, "32768 bytes of pixels, expected 16384"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "LOCALIZER"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "not axial: tilted by 90 degrees"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(original, changes, reason):
    ds = copy.deepcopy(original)
    for name, value in changes.items():
        setattr(ds, name, value)
    assert reason in refused(ds)
