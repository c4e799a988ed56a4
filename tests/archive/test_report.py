"""Structured reports, read by highdicom, dcmtk and dicom3tools."""

import io
import warnings

import numpy as np
import pydicom
import pytest
from dicom_files import ct_slice
from dicom_results import ABOUT, DEVICE, dump_of, errors_of, source_of

from msa_flax.archive.report import Certainty, Score, report_nothing, report_score

HIGH, LOW = Certainty(probability=0.873456789, calibrated=0.61), Certainty(probability=0.1)


def header(**more):
    given = {"patient": "P-1", "name": "Quill^Zeb"} | ABOUT | more
    return ct_slice(np.zeros((8, 8), np.uint8), **given)


def score(source, **more):
    top = [(source.instances[1], HIGH), (source.instances[2], LOW)]
    given = {"finding": "fracture", "positive": True, "certainty": HIGH, "top": top}
    return Score(**given | {"calibration": "temperature 1.5"} | more)


def read(data):
    from highdicom.sr import srread

    return srread(io.BytesIO(data))


def values(group):
    return [one.value for one in group.get_measurements()]


def comments(report):
    groups = report.content.get_image_measurement_groups()
    return [
        item.TextValue
        for group in groups
        for item in group[0].ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Comment"
    ]


def test_a_score_is_read_back_as_it_was_given():
    source = source_of(header())
    name, data = report_score(source, DEVICE, score(source), ["3 of 3 images scored"])
    report = read(data)
    assert name == f"{report.SOPInstanceUID}.dcm"
    assert report.SOPClassUID.name == "Comprehensive 3D SR Storage"
    series, first, second = report.content.get_image_measurement_groups()
    assert values(series) == values(first) == [87.3456789, 61.0]
    assert values(second) == [10.0]
    assert {one.unit.meaning for one in series.get_measurements()} == {"Percent"}
    assert series.finding_type.value == "72704001"
    assert [one.value.meaning for one in series.get_qualitative_evaluations()] == [
        "Succeeded",
        "Positive",
    ]
    assert [site.topographical_modifier for site in series.finding_sites] == [None]  # no level
    images = [one.source_images[0].ReferencedSOPSequence[0] for one in (first, second)]
    assert [one.ReferencedSOPInstanceUID for one in images] == ["1.2.3.1", "1.2.3.2"]
    assert {one[2] for one in report.get_evidence()} == {"1.2.3.0", "1.2.3.1", "1.2.3.2"}
    assert comments(report)[:3] == [
        "Research use only, not a medical device.",
        "trained on a synthetic phantom",
        "3 of 3 images scored",
    ]


def test_it_says_by_which_model_in_which_version(tmp_path):
    source = source_of(header())
    data = report_score(source, DEVICE, score(source))[1]
    (tmp_path / "report.dcm").write_bytes(data)
    ds = read(data)
    assert (ds.DeviceSerialNumber, ds.SoftwareVersions) == ("ab" * 32, "0.1.0")
    said = dump_of(tmp_path / "report.dcm")
    for text in (
        f'Device Observer UID")="{DEVICE.uid}"',
        f'Device Observer Serial Number")="{"ab" * 32}"',
        'Device Observer Model Name")="small (lenet_alexnet), version 0.1.0"',
        'Algorithm Parameters")="threshold 0.25"',
        'Algorithm Parameters")="probability after temperature 1.5"',
        'Finding Site")=(122494005,SCT,"Cervical spine")',
    ):
        assert text in said


def test_a_series_below_the_threshold_is_negative_and_a_class_without_a_code_keeps_its_name():
    source = source_of(header())
    given = score(source, positive=False, finding="Brüche")
    series = read(report_score(source, DEVICE, given)[1]).content.get_image_measurement_groups()[0]
    assert series.finding_type.meaning == "Bruche"
    assert series.finding_type.scheme_designator == "99MSAFLAX"
    assert series.get_qualitative_evaluations()[1].value.meaning == "Negative"


def test_what_is_not_evaluated_has_reasons_and_no_score(tmp_path):
    source = source_of(header())
    data = report_nothing(source, DEVICE, ["slices are missing", "tilted"])[1]
    (group,) = read(data).content.get_image_measurement_groups()
    assert group.get_measurements() == []
    assert [one.value.meaning for one in group.get_qualitative_evaluations()] == ["Failed"]
    assert comments(read(data)) == [
        "not evaluated: slices are missing",
        "not evaluated: tilted",
        "Research use only, not a medical device.",
        "trained on a synthetic phantom",
    ]
    (tmp_path / "report.dcm").write_bytes(data)
    assert "Certainty" not in dump_of(tmp_path / "report.dcm")


@pytest.mark.parametrize("scored", [True, False])
def test_a_validator_finds_no_error(scored, tmp_path):
    source = source_of(header())
    data = report_nothing(source, DEVICE, ["why"])[1]
    if scored:
        data = report_score(source, DEVICE, score(source))[1]
    (tmp_path / "report.dcm").write_bytes(data)
    assert errors_of(tmp_path / "report.dcm") == []


def test_the_patient_is_written_as_the_images_have_it():
    # Values that break the standard are common, and an archive compares what it has.
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        ds = header(SpecificCharacterSet="ISO_IR 100", PatientSex="unknown sex", PatientID="ä" * 70)
        ds.PatientName = "Müller^Jörg"
        del ds.AccessionNumber
    report = pydicom.dcmread(io.BytesIO(report_nothing(source_of(ds), DEVICE, ["why"])[1]))
    raw = report.get_item("PatientName").value, report.get_item("PatientSex").value
    assert raw == ("Müller^Jörg ".encode("latin-1"), b"unknown sex ")
    assert report.get_item("PatientID").value == b"\xe4" * 70
    assert report.StudyInstanceUID == ds.StudyInstanceUID
    assert report.AccessionNumber == ""  # it must be there, and is not known (C.7.2.1)


def test_the_same_input_gives_the_same_bytes():
    source = source_of(header())
    assert report_score(source, DEVICE, score(source)) == report_score(
        source, DEVICE, score(source)
    )
