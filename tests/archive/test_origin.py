"""UIDs, dates and patients of DICOM results."""

import datetime
import io
import warnings

import numpy as np
import pydicom
import pytest
from dicom_files import ct_slice
from dicom_results import ABOUT, origin_of
from pydicom.data import get_charset_files

from msa_flax.archive.origin import plain
from msa_flax.archive.report import report_nothing


def header(**more):
    return ct_slice(np.zeros((8, 8), np.uint8), **{"study": "1", **ABOUT, **more})


def written(ds):
    return pydicom.dcmread(io.BytesIO(report_nothing(origin_of(ds), ["why"])[1]))


def test_a_uid_follows_from_images_model_settings_and_role():
    origin = origin_of(header())
    uid = origin.uid("report")
    assert uid == origin_of(header(patient="with another name now")).uid("report")
    assert uid == origin_of(header(), instances=origin.instances[::-1]).uid("report")
    assert len(uid) <= 64  # PS3.5, 9.1
    others = [
        origin.uid("preview"),
        origin_of(header(), 4).uid("report"),
        origin_of(header(study="2")).uid("report"),
        origin_of(header(), series_uid="1.2").uid("report"),
        origin_of(header(), fingerprint="cd" * 32).uid("report"),
        origin_of(header(), settings="others").uid("report"),
    ]
    assert len({uid, *others}) == 7


def test_a_model_has_one_uid_whatever_it_is_applied_to():
    uid = origin_of(header()).device_uid
    assert uid == origin_of(header(study="2"), settings="others").device_uid
    assert uid != origin_of(header(), fingerprint="cd" * 32).device_uid


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, ("20200102", "101112")),
        ({"StudyTime": ""}, ("20200102", "000000")),
        ({"StudyDate": "", "StudyTime": ""}, ("19000101", "000000")),
    ],
)
def test_dates_are_those_of_the_study_and_never_of_today(elements, expected):
    ds = written(header(**elements))
    assert (ds.ContentDate, ds.ContentTime) == expected
    today = datetime.datetime.now().strftime("%Y%m%d")
    assert today not in str(ds)


def test_the_patient_is_written_as_the_images_have_it():
    # Values that break the standard are common, and an archive compares what it has.
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        ds = header(SpecificCharacterSet="ISO_IR 100", PatientSex="unknown sex", PatientID="ä" * 70)
        ds.PatientName = "Müller^Jörg"
        del ds.AccessionNumber
        report = written(ds)
    raw = report.get_item("PatientName").value, report.get_item("PatientSex").value
    assert raw == ("Müller^Jörg ".encode("latin-1"), b"unknown sex ")
    assert report.get_item("PatientID").value == b"\xe4" * 70
    assert report.StudyInstanceUID == ds.StudyInstanceUID
    assert report.AccessionNumber == ""  # it must be there, and is not known (C.7.2.1)


@pytest.mark.parametrize("name", ["chrH32.dcm", "chrI2.dcm", "chrRuss.dcm", "chrX2.dcm"])
def test_a_name_in_any_script_stays_as_it_is(name):
    (path,) = get_charset_files(name)
    theirs, ds = pydicom.dcmread(path), header()
    for keyword in ("SpecificCharacterSet", "PatientName"):
        ds.add(theirs[keyword])
    ours = written(ds)
    assert ours.SpecificCharacterSet == theirs.SpecificCharacterSet
    assert str(ours.PatientName).rstrip("=") == str(theirs.PatientName).rstrip("=")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Brüche", "Bruche"), ("a\\b\nc", "a/b c"), ("骨折 1", "?? 1"), ("plain", "plain")],
)
def test_own_text_has_characters_that_every_character_set_has(text, expected):
    assert plain(text) == expected
