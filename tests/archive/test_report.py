"""Structured reports, read by highdicom, dcmtk and dicom3tools."""

import io

import numpy as np
import pytest
from dicom_files import ct_slice
from dicom_results import ABOUT, dump_of, errors_of, origin_of

from msa_flax.archive.report import report_nothing, report_score

HIGH, LOW = (0.873456789, 0.61), (0.1, None)


def header(**more):
    given = {"patient": "P-1", "name": "Quill^Zeb"} | ABOUT | more
    return ct_slice(np.zeros((8, 8), np.uint8), **given)


def scored(**more):
    origin = origin_of(header())
    top = [(origin.instances[1], HIGH), (origin.instances[2], LOW)]
    given = {"finding": "fracture", "positive": True, "certainty": HIGH, "top": top}
    return report_score(origin, **given | more)


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
    name, data = scored(notes=["3 of 3 images scored"])
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
        "Research use only",
        "threshold 0.25",
        "3 of 3 images scored",
    ]


def test_it_says_by_which_model_in_which_version(tmp_path):
    data = scored()[1]
    (tmp_path / "report.dcm").write_bytes(data)
    ds = read(data)
    assert (ds.DeviceSerialNumber, ds.SoftwareVersions) == ("ab" * 32, "0.1.0")
    said = dump_of(tmp_path / "report.dcm")
    for text in (
        f'Device Observer UID")="{origin_of(header()).device_uid}"',
        f'Device Observer Serial Number")="{"ab" * 32}"',
        'Device Observer Model Name")="small (lenet_alexnet), version 0.1.0"',
        'Comment")="threshold 0.25"',
        'Algorithm Parameters")="calibrated probability"',
        'Finding Site")=(122494005,SCT,"Cervical spine")',
    ):
        assert text in said


def test_a_series_below_the_threshold_is_negative_and_a_class_without_a_code_keeps_its_name():
    data = scored(positive=False, finding="Brüche")[1]
    series = read(data).content.get_image_measurement_groups()[0]
    assert series.finding_type.meaning == "Bruche"
    assert series.finding_type.scheme_designator == "99MSAFLAX"
    assert series.get_qualitative_evaluations()[1].value.meaning == "Negative"


def test_what_is_not_evaluated_has_reasons_and_no_score(tmp_path):
    data = report_nothing(origin_of(header()), ["slices are missing", "tilted"])[1]
    (group,) = read(data).content.get_image_measurement_groups()
    assert group.get_measurements() == []
    assert [one.value.meaning for one in group.get_qualitative_evaluations()] == ["Failed"]
    assert comments(read(data)) == [
        "not evaluated: slices are missing",
        "not evaluated: tilted",
        "Research use only",
        "threshold 0.25",
    ]
    (tmp_path / "report.dcm").write_bytes(data)
    assert "Certainty" not in dump_of(tmp_path / "report.dcm")


@pytest.mark.parametrize("kind", ["score", "nothing"])
def test_a_validator_finds_no_error(kind, tmp_path):
    data = scored() if kind == "score" else report_nothing(origin_of(header()), ["why"])
    (tmp_path / "report.dcm").write_bytes(data[1])
    assert errors_of(tmp_path / "report.dcm") == []


def test_the_same_input_gives_the_same_bytes():
    assert scored() == scored()
