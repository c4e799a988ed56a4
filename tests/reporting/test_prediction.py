import base64
import html
import json
import re

import cv2
import numpy as np
import pytest
from prediction_pages import EVIL, about, page_of_two, series_row, shown, slice_row

from msa_flax.reporting.prediction import render_prediction, show_series


@pytest.fixture(scope="module")
def page():
    return page_of_two()


def test_pictures_have_the_resolution_of_the_image():
    for picture in shown().top[0].pictures:
        data = np.frombuffer(base64.b64decode(picture.uri.partition(",")[2]), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_UNCHANGED).shape[:2] == (40, 60)


def test_the_page_says_what_was_decided_by_what_and_what_the_model_was_trained_on(page):
    text = html.unescape(re.sub(r"<[^>]+>", " ", page.partition('<script type="appl')[0]))
    for words in (
        *("a synthetic phantom: 100 images of 12 groups", "says nothing about patients"),
        *("Research use only, not a medical device", "0.25, the stored operating point"),
        *("salted pseudonyms", "not decided", "patient", "truncated", "the maximum"),
    ):
        assert words in text
    assert page.count("data:image/jpeg;base64,") == 4
    assert re.findall(r"Flag</strong> <span>(\w+)", page) == ["unlike", "gap"]


def test_the_curve_runs_along_the_position_and_marks_what_is_flagged(page):
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    threshold, curve, flagged = data["charts"]["series-1"]["data"]
    assert curve["x"] == [2.5 * i for i in range(9)]
    assert (threshold["y"], flagged["x"]) == ([0.25, 0.25], [7.5])
    assert flagged["mode"] == "markers"


def test_names_cannot_become_elements(page):
    assert EVIL not in page
    assert page.count("</script>") == 3


def test_of_many_series_and_files_the_page_says_how_many_there_are():
    page = render_prediction(
        about(series=5000, refused=300),
        [series_row(str(i)) for i in range(200)],
        [shown()],
        [(f"{i}.png", "truncated") for i in range(300)],
    )
    assert "The table shows 200 of 5000; series.csv has all." in page
    assert "The table shows 100 of 300 files; refused.csv has all." in page


def test_without_positions_the_slices_are_counted():
    slices = [slice_row(i) | {"position_mm": None} for i in range(3)]
    chart = show_series(1, series_row("s"), slices, [], 0.5).chart
    assert chart.figure["data"][1]["x"] == [1, 2, 3]
    assert chart.head[0] == "slice"
