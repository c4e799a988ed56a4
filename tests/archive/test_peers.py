"""From a sender by a receiver and the watch to an archive, all three of others."""

import io
import json
import subprocess

import pydicom
import pytest
from archive_guide import guide
from dicom_files import write_series
from dicom_results import ABOUT, dump_of, errors_of
from peers import Orthanc, Storescp, missing, send
from tls_proxy import behind_tls
from toy_model import write_toy_model

from msa_flax import cli, watch
from msa_flax.data.phantom import draw_patient


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    if gone := missing("Orthanc", "storescp", "storescu"):
        pytest.skip(gone)
    return write_toy_model(tmp_path_factory.mktemp("model") / "toy")


@pytest.fixture(scope="module")
def archive(model, tmp_path_factory):
    """An empty archive."""
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as started:
        yield started


@pytest.fixture
def received(request, tmp_path):
    """A study of a made-up patient as dcmtk's receiver has written it, and the study's UID."""
    images = [one.image for one in draw_patient(0, 900)][:6]
    name = request.node.name
    write_series(tmp_path / "ct", images, study=name, patient="ZX-1", name="Quill^Zeb", **ABOUT)
    with Storescp(tmp_path / "receiver") as receiver:
        send(tmp_path / "ct", receiver.port)
    uid = str(pydicom.uid.generate_uid(entropy_srcs=["study", name]))
    return receiver.received, uid


def watched(folder, model, out, *flags):
    """Lets the command do all that can be done now; returns its exit code."""
    given = ["--folder", folder, "--model", model, "--out", out, "--still", 0, "--once"]
    argv = ["watch", *map(str, given), *flags]
    return cli.call(watch.main, watch.define_flags, watch.__doc__, argv)


def written(*folders):
    """Data sets of DICOM files by their UID."""
    read = [pydicom.dcmread(path) for folder in folders for path in folder.rglob("*.dcm")]
    return {ds.SOPInstanceUID: ds for ds in read}


def contents(archive, study):
    """The same of what an archive has of a study."""
    read = [pydicom.dcmread(io.BytesIO(data)) for data in archive.files(study)]
    return {ds.SOPInstanceUID: ds for ds in read}


def by_store(archive):
    return f"--send=ARCHIVE@127.0.0.1:{archive.port}"


def by_stow(archive):
    return f"--stow={archive.url}/dicom-web"


@pytest.mark.parametrize("way", [by_store, by_stow])
def test_the_archive_has_the_results_once_beside_the_unchanged_images(
    way, model, archive, received, tmp_path
):
    folder, study = received
    send(folder, archive.port)
    assert watched(folder, model, tmp_path / "out", way(archive)) == 0
    results = written(*(tmp_path / "out").glob("results/*/dicom"))
    assert contents(archive, study) == written(tmp_path / "ct") | results  # the pixels too
    assert sorted(ds.Modality for ds in results.values()) == ["OT", "OT", "OT", "SR"]
    before = archive.ask("/statistics")
    send(folder, archive.port)
    assert watched(folder, model, tmp_path / "another", way(archive)) == 0  # knows of no sending
    assert archive.ask("/statistics") == before


def test_others_find_no_error_in_what_the_archive_gives_back(model, archive, received, tmp_path):
    folder, study = received
    assert watched(folder, model, tmp_path / "out", by_store(archive)) == 0
    for number, data in enumerate(archive.files(study)):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(data)
        assert errors_of(path) == []
        if pydicom.dcmread(path).Modality == "SR":
            assert "Research use only, not a medical device" in dump_of(path)
    assert number == 3


# pynetdicom leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_archive_that_was_away_has_the_results_when_it_is_back(model, received, tmp_path):
    folder, study = received
    away = Orthanc(tmp_path / "orthanc")
    ways = by_store(away), by_stow(away)
    assert watched(folder, model, tmp_path / "out", *ways) == 1
    with away:
        assert watched(folder, model, tmp_path / "out", *ways) == 0
        results = contents(away, study)
        assert results == written(*(tmp_path / "out").glob("results/*/dicom"))
        away.kill()
        away.start()
        assert contents(away, study) == results
        assert watched(folder, model, tmp_path / "out", *ways) == 0
        assert contents(away, study) == results


@pytest.fixture
def secured(tmp_path, monkeypatch):
    """An archive with a self-made certificate, as the guide has it."""
    if gone := missing("openssl"):
        pytest.skip(gone)
    # What other programs are to trust must not replace what this one was told to.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    archive = Orthanc(tmp_path / "orthanc", json.loads(guide("tls.json")))
    command = ["bash", "-euc", guide("certificate")]
    subprocess.run(command, cwd=archive.folder, check=True, capture_output=True)
    with archive:
        yield archive


def store_over_tls(archive, url):
    return ["--tls", f"--send=ARCHIVE@localhost:{archive.port}"]


def stow_over_tls(archive, url):
    return [f"--stow={url}/dicom-web"]


@pytest.mark.parametrize("way", [store_over_tls, stow_over_tls])
def test_only_an_archive_that_is_trusted_gets_anything(way, model, received, secured, tmp_path):
    public, private = (secured.folder / name for name in ("certificate.pem", "key.pem"))
    with behind_tls(secured.url, public, private) as url:
        given = received[0], model, tmp_path / "out", *way(secured, url)
        assert watched(*given) == 1
        assert secured.ask("/instances") == []
        assert watched(*given, f"--tls_ca={public}") == 0
        assert len(secured.ask("/instances")) == 4
