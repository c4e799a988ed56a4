import numpy as np
import pytest
from dicom_files import ct_slice, write, write_series
from image_files import encoded, picture
from pydicom.data import get_testdata_file

from msa_flax.config import DataConfig
from msa_flax.data.phantom import draw_patient
from msa_flax.prediction.inputs import find_inputs, prepare_slice, read_slice

DATA = DataConfig(image_size=32)


@pytest.fixture(scope="module")
def images():
    return [one.image for one in draw_patient(0, 5)]


def test_a_series_is_sorted_by_its_geometry_wherever_its_files_lie(images, tmp_path):
    write_series(tmp_path / "a", images, patient="Secret 17")
    (tmp_path / "b").mkdir()
    (tmp_path / "a/8.dcm").rename(tmp_path / "b/first")
    found = find_inputs([str(tmp_path)], DATA)
    assert found.refused == []
    assert [one.position_mm for one in found.slices] == list(range(0, 16, 2))
    assert found.slices[0].path == str(tmp_path / "b/first")
    for one, image in zip(found.slices, images, strict=True):
        # What is stored are whole HU, of which one grey value has seven.
        assert np.array_equal(read_slice(one, DATA), image)
    assert prepare_slice(found.slices[0], DATA).shape == (32, 32)
    assert found.flags == {(found.slices[0].study, found.slices[0].series): []}


def test_identifiers_are_pseudonyms_unless_they_are_asked_for(images, tmp_path):
    write_series(tmp_path, images[:2], patient="Secret 17")
    for identifiers in (False, True):
        (first, second) = find_inputs([str(tmp_path)], DATA, identifiers=identifiers).slices
        assert (first.patient, first.series) == (second.patient, second.series)
        assert (first.patient == "Secret 17") == identifiers
        assert first.series.startswith("1.2.826") == identifiers
    again = find_inputs([str(tmp_path)], DATA).slices
    assert again == find_inputs([str(tmp_path)], DATA).slices


def test_a_file_with_frames_of_another_kind_is_refused_once():
    path = get_testdata_file("emri_small.dcm", download=False)
    found = find_inputs([path], DATA)
    assert [path for path, _ in found.refused] == [path]


def test_a_mixture_is_told_apart_and_what_is_odd_is_said(images, tmp_path):
    write_series(tmp_path / "ct", images, series="1")
    (tmp_path / "ct/4.dcm").unlink()  # leaves a gap
    write(
        tmp_path / "localizer.dcm",
        ct_slice(images[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    )
    write(tmp_path / "mr.dcm", ct_slice(images[0], Modality="MR"))
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "slice.png").write_bytes(encoded(picture()))
    damaged = (tmp_path / "ct/1.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(damaged[:200])
    found = find_inputs([str(tmp_path)], DATA)
    assert [one.path.rpartition("/")[2] for one in found.slices if not one.header] == ["slice.png"]
    assert len(found.slices) == 8
    refused = {path.rpartition("/")[2]: reason for path, reason in found.refused}
    assert set(refused) == {"localizer.dcm", "mr.dcm", "notes.txt", "cut.dcm"}
    assert "LOCALIZER" in refused["localizer.dcm"]
    assert list(found.flags.values()) == [["slices are missing between others"]]


def test_damaged_pixels_are_refused_when_they_are_read(images, tmp_path):
    write_series(tmp_path, images[:1])
    path = tmp_path / "1.dcm"
    path.write_bytes(path.read_bytes()[:-100])
    found = find_inputs([str(tmp_path)], DATA)
    reasons = [reason for _, reason in found.refused]
    reasons += [r for one in found.slices if isinstance(r := prepare_slice(one, DATA), str)]
    assert len(reasons) == 1
