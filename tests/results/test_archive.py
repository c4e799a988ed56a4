"""The results of a prediction as DICOM objects, compared with its tables."""

import dataclasses
import io
import pathlib
import sys

import cv2
import pydicom
import pytest
from dicom_files import ct_slice, write, write_series
from dicom_results import ABOUT, errors_of
from made_up_model import CALIBRATION, POINT, model_of
from public_dicom import dataset, public

from msa_flax.archive.origin import ArchiveError
from msa_flax.data.phantom import draw_patient
from msa_flax.files import csv_rows
from msa_flax.prediction.inputs import PredictionError
from msa_flax.prediction.predictor import PHANTOM
from msa_flax.results.predictions import predict_into

MODEL = model_of()


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A whole series, one with a gap, a damaged slice, a localizer, a note and a PNG."""
    root = tmp_path_factory.mktemp("studies")
    images = [one.image for one in draw_patient(0, 900)][:6]
    about = {"patient": "ZX-1", "name": "Quill^Zeb", **ABOUT}
    write_series(root / "whole", images, study="1", **about)
    write_series(root / "gap", images, study="2", **about)
    (root / "gap/3.dcm").unlink()
    write_series(root / "damaged", images, study="3", **about)
    last = root / "damaged/1.dcm"
    last.write_bytes(last.read_bytes()[:-100])
    localizer = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "series": "0"}
    write(root / "whole/0.dcm", ct_slice(images[0], study="1", **about, **localizer))
    (root / "other").mkdir()
    cv2.imwrite(str(root / "other/0.png"), images[0])
    (root / "note.txt").write_text("not an image")
    return root


@pytest.fixture(scope="module")
def done(studies, tmp_path_factory):
    """The folders of the tables and of the DICOM results."""
    out, folder = (tmp_path_factory.mktemp(name) for name in ("out", "dicom"))
    predict_into(MODEL, [str(studies)], out, dicom_out=folder)
    return out, folder


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def study_uid(number):
    return pydicom.uid.generate_uid(entropy_srcs=["study", number])


def objects_of(folder, study):
    """The report of each series of a study that has a result, and the previews."""
    found = [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]
    found = [ds for ds in found if ds.StudyInstanceUID == study_uid(study)]
    reports = [ds for ds in found if ds.Modality == "SR"]
    return reports, [ds for ds in found if ds.Modality == "OT"]


def groups_of(report):
    from highdicom.sr import Comprehensive3DSR

    return Comprehensive3DSR.from_dataset(report).content.get_image_measurement_groups()


def table(path):
    head, *rows = csv_rows(path)
    return [dict(zip(head, row, strict=True)) for row in rows]


def percents(row):
    # Two digits fewer than a float has: nine are in the tables.
    return pytest.approx([100 * float(row[name]) for name in ("probability", "calibrated")], 1e-13)


def scored(report):
    return any(group.get_measurements() for group in groups_of(report))


def test_the_numbers_are_those_of_the_tables(done, studies):
    out, folder = done
    reports, previews = objects_of(folder, "1")
    (report,) = filter(scored, reports)
    series, *tops = groups_of(report)
    (row,) = [
        row for row in table(out / "series.csv") if str(studies / "whole") in row["top_slices"]
    ]
    assert [one.value for one in series.get_measurements()] == percents(row)
    assert row["decision"] == "fracture"
    assert series.get_qualitative_evaluations()[1].value.meaning == "Positive"
    slices = {row["path"]: row for row in table(out / "slices.csv")}
    paths = row["top_slices"].split(";")
    assert len(paths) == len(tops) == len(previews) == 3
    previews.sort(key=lambda ds: ds.InstanceNumber)
    for path, group, preview in zip(paths, tops, previews, strict=True):
        original = pydicom.dcmread(path)
        assert [one.value for one in group.get_measurements()] == percents(slices[path])
        image = group.source_images[0].ReferencedSOPSequence[0]
        assert image.ReferencedSOPInstanceUID == original.SOPInstanceUID
        source = preview.SourceImageSequence[0].ReferencedSOPInstanceUID
        assert source == original.SOPInstanceUID
        assert preview.FrameOfReferenceUID == original.FrameOfReferenceUID
        assert f"probability {float(slices[path]['probability']):.3f}" in preview.ImageComments


def test_a_report_says_how_the_model_decides_and_what_it_was_trained_on(done):
    reports, previews = objects_of(done[1], "1")
    for ds in (*reports, *previews):
        assert PHANTOM.encode() in bytes_of(ds)
        assert b"Research use only, not a medical device" in bytes_of(ds)
        assert ds.SeriesDescription.endswith("research use only")
        assert (ds.PatientID, ds.PatientName) == ("ZX-1", "Quill^Zeb")
        assert ds.DeviceSerialNumber == MODEL.fingerprint
    (report,) = filter(scored, reports)
    for said in (
        b"threshold: 0.25, chosen by: the stored operating point, sensitivity: 0.9, "
        b"confidence: 0.95, counted: groups",
        b"calibration: logits are divided by 2.0",
        b"trained on a synthetic phantom, images: 9, groups: 9",
        b"6 of 6 images scored",
    ):
        assert said in bytes_of(report)


def bytes_of(ds):
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds)
    return buffer.getvalue()


def test_what_is_flagged_or_refused_has_a_reason_and_no_score(done):
    for study, reason in {
        "2": b"not evaluated: slices are missing between others",
        "1": b"not evaluated: not a CT slice: its image type is LOCALIZER",
    }.items():
        reports, previews = objects_of(done[1], study)
        (report,) = [one for one in reports if not scored(one)]
        assert reason in bytes_of(report)
        assert b"Certainty" not in bytes_of(report)
        assert study != "2" or not previews


def test_a_scored_series_says_which_of_its_images_were_not_used(done):
    (report,), _ = objects_of(done[1], "3")
    assert scored(report)
    assert b"5 of 6 images scored" in bytes_of(report)
    assert b"1 of them cannot be used: " in bytes_of(report)
    assert len(report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence) == 1


def test_a_validator_finds_no_error(done):
    for path in done[1].rglob("*.dcm"):
        assert errors_of(path) == []


def test_the_images_are_left_as_they_are_and_the_same_again_adds_nothing(
    done, studies, tmp_path, caplog
):
    before, written = tree(studies), tree(done[1])
    caplog.set_level("INFO", "msa_flax")
    predict_into(MODEL, [str(studies)], done[0], dicom_out=done[1])
    assert "DICOM results of 4 series, 2 of them not evaluated" in caplog.text
    assert "images that name no DICOM series have none: 1" in caplog.text
    assert "ZX-1" not in caplog.text
    assert tree(done[1]) == written
    predict_into(
        MODEL, [str(studies)], tmp_path / "out", dicom_out=tmp_path / "d", identifiers=True
    )
    assert tree(tmp_path / "d") == written
    assert tree(studies) == before
    assert all(pathlib.Path(name).suffix == ".dcm" for name in written)


def test_a_model_that_says_the_same_in_another_order_gives_the_same_bytes(done, studies, tmp_path):
    about = {name: MODEL.about[name] for name in reversed(MODEL.about)}
    about["trained_on"] = dict(sorted(about["trained_on"].items()))  # as JSON has it
    other = dataclasses.replace(MODEL, about=about)
    predict_into(other, [str(studies)], tmp_path / "out", dicom_out=tmp_path / "dicom")
    assert tree(tmp_path / "dicom") == tree(done[1])


def test_another_threshold_is_another_result(done, studies, tmp_path):
    point = dataclasses.replace(POINT, threshold=0.9)
    other = model_of(calibration=dataclasses.replace(CALIBRATION, operating_point=point))
    predict_into(other, [str(studies / "whole")], tmp_path / "out", dicom_out=tmp_path / "dicom")
    assert not set(tree(tmp_path / "dicom")) & set(tree(done[1]))


def test_other_results_are_not_overwritten(studies, tmp_path):
    out, folder = tmp_path / "out", tmp_path / "dicom"
    predict_into(MODEL, [str(studies / "gap")], out, dicom_out=folder)
    (path,) = folder.rglob("*.dcm")
    path.write_bytes(b"mine")
    with pytest.raises(ArchiveError, match="nothing was overwritten"):
        predict_into(MODEL, [str(studies / "gap")], out, dicom_out=folder)
    assert path.read_bytes() == b"mine"


def test_where_every_image_is_refused_the_reports_say_so(studies, tmp_path):
    with pytest.raises(PredictionError, match="none of 1 files can be predicted"):
        predict_into(
            MODEL, [str(studies / "whole/0.dcm")], tmp_path / "out", dicom_out=tmp_path / "dicom"
        )
    (report,), _ = objects_of(tmp_path / "dicom", "1")
    assert not scored(report)


def test_frames_of_one_file_are_named_by_their_number(tmp_path):
    # The public file is a perfusion map, said to be anatomy in HU.
    ds = dataset("eCT_Supplemental.dcm")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    (shared,) = ds.SharedFunctionalGroupsSequence
    shared.CTImageFrameTypeSequence[0].FrameType = ds.ImageType
    shared.PixelValueTransformationSequence[0].RescaleType = "HU"
    ds.save_as(tmp_path / "in.dcm")
    folder = tmp_path / "dicom"
    predict_into(MODEL, [str(tmp_path / "in.dcm")], tmp_path / "out", dicom_out=folder)
    found = [pydicom.dcmread(path) for path in folder.rglob("*.dcm")]
    assert [error for path in folder.rglob("*.dcm") for error in errors_of(path)] == []
    (report,) = [one for one in found if one.Modality == "SR"]
    rows = table(tmp_path / "out/slices.csv")
    rows.sort(key=lambda row: -float(row["probability"]))
    frames = [int(row["path"].rpartition("#")[2]) for row in rows]
    named = [one.source_images[0].ReferencedSOPSequence[0] for one in groups_of(report)[1:]]
    assert sorted(one.ReferencedFrameNumber for one in named) == [1, 2]
    assert [one.ReferencedFrameNumber for one in named] == frames
    previews = sorted(
        (one for one in found if one.Modality == "OT"), key=lambda one: one.InstanceNumber
    )
    assert [one.SourceImageSequence[0].ReferencedFrameNumber for one in previews] == frames


def test_what_breaks_the_standard_in_an_image_is_handed_on_as_it_is(tmp_path):
    path = pathlib.Path(public("bad_sequence.dcm"))  # its UIDs are no UIDs
    predict_into(MODEL, [str(path)], tmp_path / "out", dicom_out=tmp_path / "dicom")
    found = [one.read_bytes() for one in (tmp_path / "dicom").rglob("*.dcm")]
    assert len(found) == 2
    with pydicom.config.disable_value_validation():
        uid = pydicom.dcmread(path).StudyInstanceUID
    assert not uid.is_valid
    assert all(uid.encode() in data for data in found)


def test_what_cannot_be_done_is_said_before_anything_is_scored(studies, tmp_path, monkeypatch):
    given = {"model": MODEL, "paths": [str(studies)], "out": tmp_path / "out"}
    with pytest.raises(PredictionError, match="expected a folder outside of"):
        predict_into(**given, dicom_out=tmp_path / "out/dicom")
    monkeypatch.delitem(sys.modules, "msa_flax.results.archive", raising=False)
    monkeypatch.setitem(sys.modules, "msa_flax.archive.report", None)  # as if not importable
    with pytest.raises(PredictionError, match=r'not installed; pip install "msa_flax\[dicom\]"$'):
        predict_into(**given, dicom_out=tmp_path / "dicom")
    assert not list(tmp_path.iterdir())
