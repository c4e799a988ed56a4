"""Programs of others take the results, show them, and give back what they were given."""

import io

import pydicom
import pytest
from dicom_files import write_series
from dicom_results import ABOUT, dump_of, errors_of
from peers import Orthanc, Storescp, missing, send
from toy_model import write_toy_model

from msa_flax.data.phantom import draw_patient
from msa_flax.exporting import portable
from msa_flax.results.predictions import predict_into

STUDY = str(pydicom.uid.generate_uid(entropy_srcs=["study", "1"]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Six slices of a made-up patient, and what a toy model says of them, as DICOM files."""
    if gone := missing("Orthanc", "storescp", "storescu"):
        pytest.skip(gone)
    root = tmp_path_factory.mktemp("peers")
    images = [one.image for one in draw_patient(0, 900)][:6]
    write_series(root / "ct", images, study="1", patient="ZX-1", name="Quill^Zeb", **ABOUT)
    model = portable.read(write_toy_model(root / "toy"))
    predict_into(model, [str(root / "ct")], root / "out", dicom_out=root / "results")
    return root / "ct", root / "results"


@pytest.fixture(scope="module")
def archive(folders, tmp_path_factory):
    """An archive that has the images and the results."""
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as started:
        for folder in folders:
            send(folder, started.port)
        yield started


def contents(archive):
    """What an archive has of the study: data sets by their UID."""
    read = [pydicom.dcmread(io.BytesIO(data)) for data in archive.files(STUDY)]
    return {ds.SOPInstanceUID: ds for ds in read}


def written(folder):
    read = [pydicom.dcmread(path) for path in folder.rglob("*.dcm")]
    return {ds.SOPInstanceUID: ds for ds in read}


def test_the_archive_gives_back_the_results_and_the_unchanged_images(folders, archive):
    images, results = map(written, folders)
    assert [len(images), len(results)] == [6, 4]
    assert contents(archive) == images | results  # every element, the pixels too


def test_what_is_sent_twice_is_not_there_twice(folders, archive):
    before = archive.ask("/statistics")
    for folder in folders:
        send(folder, archive.port)
    assert archive.ask("/statistics") == before
    assert before["CountInstances"] == 10


def test_others_read_what_the_archive_gives_back(archive, tmp_path):
    path = tmp_path / "given.dcm"
    kinds = []
    for data in archive.files(STUDY):
        path.write_bytes(data)
        kinds.append(pydicom.dcmread(path).Modality)
        if kinds[-1] != "CT":
            assert errors_of(path) == []
        if kinds[-1] == "SR":
            assert "Research use only, not a medical device" in dump_of(path)
    assert sorted(kinds) == ["CT"] * 6 + ["OT"] * 3 + ["SR"]


def test_a_receiver_gets_the_elements_as_they_are(folders, tmp_path):
    with Storescp(tmp_path) as receiver:
        for folder in folders:
            send(folder, receiver.port)
    expected = {uid: ds for folder in folders for uid, ds in written(folder).items()}
    got = [pydicom.dcmread(path) for path in receiver.received.iterdir()]
    assert {ds.SOPInstanceUID: ds for ds in got} == expected
