"""DICOM slices: true values of public files, the bone window, and one orientation for all."""

import pathlib
import sys
import warnings

import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from public_dicom import dataset, public, saved

from msa_flax.config import DataConfig
from msa_flax.data import dicom
from msa_flax.data.dicom import (
    AIR,
    DicomError,
    decode,
    hounsfield,
    is_dicom,
    read_elements,
    read_header,
    windowed,
)

# Least and greatest value times slope plus intercept, padding apart; dcmtk and GDCM say the same.
VALUES = {
    "bad_sequence.dcm": (-1011, 1243),
    "693_J2KR.dcm": (-1024, 1468),
    "693_UNCR.dcm": (-1024, 1468),
    "693_UNCI.dcm": (-3995, 1812),  # stored -2971 and 2836
    "693_J2KI.dcm": (-3995, 1812),
    "explicit_VR-UN.dcm": (-1024, 1186),
    "CT_small.dcm": (-896, 1167),
    "J2K_pixelrep_mismatch.dcm": (-2000, 1896),
}


def content(name):
    return pathlib.Path(public(name)).read_bytes()


def slice_of(ds, tmp_path, **options):
    (tmp_path / "a.dcm").write_bytes(saved(ds))
    (one,) = read_header(tmp_path / "a.dcm", **options)
    return one


@pytest.mark.parametrize("name", VALUES)
def test_public_files_have_their_known_hounsfield_units(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # those of pydicom are passed over, such as of a UID
        (one,) = read_header(public(name))
        units = hounsfield(one)
    assert (units.min(), units.max()) == VALUES[name]
    assert units.dtype == np.float32
    assert np.array_equal(decode(one.path.read_bytes(), DataConfig()), windowed(one))


def test_reversible_copies_of_one_slice_are_equal():
    for one, other in (("693_J2KR.dcm", "693_UNCR.dcm"), ("693_J2KI.dcm", "693_UNCI.dcm")):
        a, b = (hounsfield(read_header(public(name))[0]) for name in (one, other))
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("eCT_Supplemental.dcm", "not a CT slice: its image type is PERFUSION"),
        ("dicomdirtests/98892001/CT2N/6293", "not a CT slice: its image type is LOCALIZER"),
        ("dicomdirtests/98892001/CT2N/6924", "not a CT slice: its image type is LOCALIZER"),
        ("MR_small.dcm", "not a CT image: MR Image Storage"),
        ("DICOMDIR", "not a CT image"),
        ("dicomdirtests/TINY_ALPHA/PT000000/ST000000/SE000000/IM000000", "not a CT slice: None"),
    ],
)
def test_other_images_are_refused_with_the_reason(name, reason):
    with pytest.raises(DicomError, match=reason):
        read_header(public(name))


def test_a_tilted_gantry_is_refused_or_reported_as_is_asked():
    path = public("J2K_pixelrep_mismatch.dcm")
    with pytest.raises(DicomError, match="not axial: tilted by 22 degrees, at most 15 are read"):
        read_header(path, max_tilt=15)
    assert len(read_header(path, max_tilt=23)) == 1


@pytest.mark.parametrize("stripped", [0, 132])
def test_a_file_is_known_by_its_first_bytes(stripped):
    for name in VALUES:
        assert is_dicom(content(name)[stripped:][:132])


@pytest.mark.parametrize(
    "data", [b"", b"DICM", b"\x89PNG\r\n\x1a\n" + bytes(200), b"\xff\xd8\xff" * 60, b"\x08\0" * 99]
)
def test_other_files_are_not_taken_for_dicom(data):
    assert not is_dicom(data)


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        dicom._Values,
        slope=st.floats(0.01, 40),
        intercept=st.floats(-4096, 4096),
        bits=st.integers(2, 16),
        signed=st.booleans(),
        padding=st.none(),
    ),
    st.floats(-1000, 2000),
    st.floats(2, 5000),
    st.integers(0, 65535),
)
def test_the_table_of_grey_values_is_plain_arithmetic(values, centre, width, word):
    stored = word % 2**values.bits
    if values.signed and stored >= 2 ** (values.bits - 1):
        stored -= 2**values.bits
    x = stored * values.slope + values.intercept
    # PS3.3 C.11.2.1.2.1, its three cases as they are written there.
    if x <= centre - 0.5 - (width - 1) / 2:
        y = 0.0
    elif x > centre - 0.5 + (width - 1) / 2:
        y = 255.0
    else:
        y = ((x - (centre - 0.5)) / (width - 1) + 0.5) * 255
    # Units are kept in float32: off by 2^-24 of at most 2.7e6 HU, which is 0.16 HU; a grey value is
    # off by half a step at most, and one step at its edge.
    error = 0.5 + 255 / (width - 1) * abs(x) * 2**-24 + 1e-6
    assert abs(int(dicom._grey(values, centre, width)[word]) - y) <= error


@pytest.mark.parametrize("name", ["693_UNCR.dcm", "bad_sequence.dcm"])
@pytest.mark.parametrize(("centre", "width"), [(400, 1800), (50, 400), (-600, 1500)])
def test_the_window_is_pydicoms(name, centre, width):
    (one,) = read_header(public(name))
    ds = pydicom.Dataset()
    ds.PhotometricInterpretation, ds.PixelRepresentation, ds.BitsStored = "MONOCHROME2", 1, 16
    ds.WindowCenter, ds.WindowWidth = centre, width
    units = hounsfield(one)
    theirs = pydicom.pixels.apply_windowing(units.astype(np.int16), ds)  # to -32768 .. 32767
    grey = np.clip((theirs + 32768) / 65535 * 255, 0, 255)
    # Both round to the nearest grey value; at a tie of one of them they may differ by one.
    assert np.abs(windowed(one, centre=centre, width=width) - np.rint(grey)).max() <= 1


@pytest.mark.parametrize("mirrored", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
@pytest.mark.parametrize("turned", [False, True])
def test_every_axial_orientation_gives_the_same_picture(mirrored, turned, tmp_path):
    """The patient is the same; the rows of the file run in another direction."""
    truth = np.random.default_rng(0).integers(-200, 1200, (64, 96)).astype("<i2")  # left, back
    left, back = mirrored
    image, row, column = truth[::back, ::left], [left, 0, 0], [0, back, 0]
    if turned:
        image, row, column = image.T, column, row
    ds = dataset(ImageOrientationPatient=[*row, *column], RescaleIntercept=0)
    ds.Rows, ds.Columns = image.shape
    ds.PixelData = image.tobytes()
    one = slice_of(ds, tmp_path)
    grey = (truth.astype(float) - 399.5) / 1799 * 255 + 127.5
    assert np.array_equal(windowed(one), np.rint(np.clip(grey, 0, 255)))
    assert np.array_equal(hounsfield(one), image)  # as it is stored


def test_a_public_file_whose_columns_run_to_the_front_is_turned_over():
    (one,) = read_header(public("explicit_VR-UN.dcm"))
    assert one.orientation == (1, 0, 0, 0, -1, 0)
    grey = np.rint(np.clip((hounsfield(one) - 399.5) / 1799 * 255 + 127.5, 0, 255))
    assert np.array_equal(windowed(one), grey[::-1])


def test_monochrome1_is_another_display_and_not_other_values(tmp_path):
    one = slice_of(dataset(PhotometricInterpretation="MONOCHROME1"), tmp_path)
    (plain,) = read_header(public("CT_small.dcm"))
    assert np.array_equal(hounsfield(one), hounsfield(plain))
    assert np.array_equal(windowed(one), windowed(plain))


@pytest.mark.parametrize(
    ("padding", "limit"), [((-2000, "SS"), None), ((63536, "US"), None), ((-2000, "SS"), -1990)]
)
def test_padding_counts_as_air_however_it_is_written(padding, limit, tmp_path):
    ds = dataset("693_UNCR.dcm", PixelPaddingValue=...)
    ds.add_new("PixelPaddingValue", padding[1], padding[0])
    if limit is not None:
        ds.add_new("PixelPaddingRangeLimit", "SS", limit)
    values, units = ds.pixel_array, hounsfield(slice_of(ds, tmp_path))
    assert (values == -2000).sum() > 10_000
    assert set(units[values == -2000]) == {AIR}
    assert units.min() == -1024


def test_frames_of_an_enhanced_ct_are_those_of_highdicom(tmp_path):
    """The public file is a perfusion map; said to be anatomy in HU, its frames are read."""
    import highdicom

    ds = dataset("eCT_Supplemental.dcm", ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    (shared,) = ds.SharedFunctionalGroupsSequence
    shared.CTImageFrameTypeSequence[0].FrameType = ds.ImageType
    shared.PixelValueTransformationSequence[0].RescaleType = "HU"
    path = tmp_path / "a.dcm"
    path.write_bytes(saved(ds))
    slices = read_header(path)
    image = highdicom.imread(path)
    options = {"apply_modality_transform": True, "apply_real_world_transform": False}
    assert [one.position[2] for one in slices] == [-159, -149]
    for one in slices:
        theirs = image.get_frame(one.frame + 1, **options)
        assert np.array_equal(hounsfield(one), theirs)
        assert one.orientation[0] == -1  # rows run to the right: mirrored in the picture
        grey = np.rint(np.clip((theirs - 399.5) / 1799 * 255 + 127.5, 0, 255))
        assert np.array_equal(windowed(one), grey[:, ::-1])
    with pytest.raises(DicomError, match="2 frames in one file, and one label"):
        decode(path.read_bytes(), DataConfig())


def test_elements_are_read_of_any_file_and_a_note_is_none(tmp_path):
    ds = read_elements(public("CT_small.dcm"), ("PatientID", "Rows", "NumberOfFrames"))
    assert ds.PatientID == "1CT1"
    assert ds.Rows == 128
    assert "NumberOfFrames" not in ds
    assert "PixelData" not in ds
    with pytest.raises(DicomError, match="cannot be read"):
        read_elements(tmp_path / "none", ("PatientID",))
    (tmp_path / "note").write_bytes(b"a note" * 100)
    with pytest.raises(DicomError, match="not a DICOM file"):
        read_elements(tmp_path / "note", ("PatientID",))


def test_the_window_of_the_configuration_is_used():
    data = content("CT_small.dcm")
    narrow = decode(data, DataConfig(window_centre=50, window_width=400))
    (one,) = read_header(public("CT_small.dcm"))
    assert np.array_equal(narrow, windowed(one, centre=50, width=400))
    assert not np.array_equal(narrow, decode(data, DataConfig()))


def test_without_pydicom_one_sentence_says_how_to_get_it(monkeypatch):
    dicom._pydicom.cache_clear()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DicomError, match=r'need pydicom, .* pip install "msa_flax\[dicom\]"'):
        read_header(public("CT_small.dcm"))


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(DicomError, match="cannot be read: No such file"):
        read_header(tmp_path / "none.dcm")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.integers(132, 1800), st.integers(0, 7))
@example(b"", 662, 0)  # the modality swallows the elements after it
def test_changed_bytes_of_a_header_are_read_or_refused_in_one_sentence(new, at, bit):
    data = bytearray(content("CT_small.dcm"))
    data[at : at + len(new)] = new or bytes([data[at] ^ 1 << bit])
    reason = ""
    try:
        assert decode(bytes(data), DataConfig()).dtype == np.uint8
    except DicomError as error:
        reason = str(error)
    assert "\n" not in reason


def test_a_pseudonym_is_stable_and_needs_the_salt():
    one = dicom.pseudonym("patient 1", "salt")
    assert one == dicom.pseudonym("patient 1", "salt")
    assert len(one) == 16
    assert set(one) <= set("0123456789abcdef")
    others = {dicom.pseudonym("patient 2", "salt"), dicom.pseudonym("patient 1", "other"), one}
    assert len(others) == 3
    assert len(dicom.pseudonym("\udcff\0" * 500, "")) == 16
