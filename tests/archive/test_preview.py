"""Pictures of slices as secondary captures."""

import io

import numpy as np
import pydicom
from dicom_files import ct_slice
from dicom_results import ABOUT, errors_of, origin_of

from msa_flax.archive.preview import burn_in, preview

WORDS = ["Research use only, not a medical device.", "Grad-CAM"]


def colours(height=100, width=120):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def preview_of(picture):
    ds = ct_slice(np.zeros((8, 8), np.uint8), patient="P-1", **ABOUT)
    origin = origin_of(ds)
    return ds, preview(origin, picture, WORDS, of=origin.instances[1], number=2)


def test_it_holds_the_picture_the_words_and_where_both_are_from():
    picture = colours()
    ds, (name, data) = preview_of(picture)
    found = pydicom.dcmread(io.BytesIO(data))
    assert name == f"{found.SOPInstanceUID}.dcm"
    pixels = found.pixel_array  # each pixel of 100 x 120 as 6 x 6, at least 512 a side
    assert (pixels[:600:6, ::6] == picture).all()
    assert (pixels[5:600:6, 5::6] == picture).all()
    assert pixels[600:].any()
    assert found.ImageComments == "; ".join(WORDS)
    assert (found.PatientID, found.StudyInstanceUID) == ("P-1", ds.StudyInstanceUID)
    assert found.SeriesInstanceUID != ds.SeriesInstanceUID
    (reference,) = found.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == "1.2.3.1"
    assert found.FrameOfReferenceUID == ABOUT["FrameOfReferenceUID"]
    assert found.BurnedInAnnotation == "NO"


def test_a_large_picture_keeps_its_pixels_and_words_fit_into_a_narrow_one():
    picture = colours(600, 512)
    found = pydicom.dcmread(io.BytesIO(preview_of(picture)[1][1]))
    assert (found.pixel_array[:600] == picture).all()
    long = burn_in(np.zeros((50, 200, 3), np.uint8), ["word " * 40])
    assert long.shape[1] == 200
    assert long[50:, :196].any()
    assert not long[:, 196:].any()


def test_a_validator_finds_no_error(tmp_path):
    path = tmp_path / "preview.dcm"
    path.write_bytes(preview_of(colours())[1][1])
    assert errors_of(path) == []


def test_the_same_input_gives_the_same_bytes():
    assert preview_of(colours())[1] == preview_of(colours())[1]
