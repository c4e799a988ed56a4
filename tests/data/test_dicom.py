"""DICOM: true values of public files, and what is refused."""

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from msa_flax.data.dicom import AIR, DicomError, hounsfield, is_dicom, read_header, windowed


def public(name):
    return get_testdata_file(name, download=False)


# Least and greatest stored value times slope plus intercept; dcmtk and GDCM decode the same.
@pytest.mark.parametrize(
    ("name", "least", "greatest"),
    [
        ("bad_sequence.dcm", -1011, 1243),
        ("693_J2KR.dcm", -1024, 1468),
        ("693_UNCR.dcm", -1024, 1468),
        ("693_UNCI.dcm", -3995, 1812),
        ("693_J2KI.dcm", -3995, 1812),
        ("explicit_VR-UN.dcm", -1024, 1186),
        ("CT_small.dcm", -896, 1167),
        ("J2K_pixelrep_mismatch.dcm", -2000, 1896),
    ],
)
def test_public_files_have_their_known_hounsfield_units(name, least, greatest):
    (one,) = read_header(public(name))
    values = hounsfield(one)
    assert (values.min(), values.max()) == (least, greatest)
    assert values.dtype == np.float32
    assert windowed(one).dtype == np.uint8
    assert is_dicom(one.path.read_bytes()[:132])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("eCT_Supplemental.dcm", "PERFUSION"),
        ("dicomdirtests/98892001/CT2N/6293", "LOCALIZER"),
        ("dicomdirtests/98892001/CT2N/6924", "LOCALIZER"),
        ("MR_small.dcm", "not a CT image: MR Image Storage"),
    ],
)
def test_other_images_are_refused_with_the_reason(name, reason):
    with pytest.raises(DicomError, match=reason):
        read_header(public(name))


def test_padding_counts_as_air():
    (one,) = read_header(public("693_UNCR.dcm"))
    assert one.padding == (-2000, -2000)
    assert (hounsfield(one) == AIR).sum() > 10_000
