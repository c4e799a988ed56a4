"""The picture of an archive's page, taken of a real one."""

import cv2
import numpy as np
import pytest
from archive_page import main
from command_line import call
from dicom_files import write_series
from dicom_results import ABOUT
from peers import Orthanc, missing, send
from toy_model import write_toy_model

from msa_flax.data.phantom import draw_patient
from msa_flax.exporting import portable
from msa_flax.results.predictions import predict_into


@pytest.fixture
def archive(tmp_path):
    """An archive; the test skips where Orthanc, Chromium or Playwright is not installed."""
    pytest.importorskip("playwright.sync_api", reason='pip install -e ".[browser]"')
    if gone := missing("Orthanc", "storescp", "storescu", "chromium"):
        pytest.skip(gone)
    with Orthanc(tmp_path / "orthanc") as started:
        yield started


def test_it_shows_the_study_and_a_preview_beside_it(archive, tmp_path, capsys):
    page = tmp_path / "page.png"
    given = ["--url", archive.url, "--out", str(page)]
    assert call(main, given) == 2
    assert "has no preview of msa_flax" in capsys.readouterr().err
    images = [one.image for one in draw_patient(0, 900)][:3]
    write_series(tmp_path / "ct", images, **ABOUT)
    model = portable.read(write_toy_model(tmp_path / "toy"))
    predict_into(model, [str(tmp_path / "ct")], tmp_path / "out", dicom_out=tmp_path / "results")
    for folder in ("ct", "results"):
        send(tmp_path / folder, archive.port)
    assert call(main, [*given, "--patient", "another"]) == 2
    assert main([*given, "--patient", "P1"]) == 0
    picture = cv2.imread(str(page), cv2.IMREAD_GRAYSCALE)
    series = archive.ask("/series?expand")
    (previews,) = [one["Instances"] for one in series if one["MainDicomTags"]["Modality"] == "OT"]
    shown = []
    for one in previews:
        data = np.frombuffer(archive.read(f"/instances/{one}/preview"), np.uint8)
        right = picture[:, 860:]  # beside the page, which is as wide
        right = cv2.resize(right, (512, 602), interpolation=cv2.INTER_AREA)
        same = cv2.resize(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), (512, 602))
        shown.append(np.corrcoef(right.ravel(), same.ravel())[0, 1])
    assert max(shown) > 0.8  # it has fewer colours and was scaled; of another preview it is 0.4
