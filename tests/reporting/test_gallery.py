"""The gallery shows what went worst, small, and says what it leaves out."""

import base64

import cv2
import numpy as np
import pytest

from msa_flax.reporting import gallery, read
from msa_flax.saliency.methods import METHODS


@pytest.fixture(scope="module")
def everything(write, table, tmp_path_factory):
    """Every image explained; at this threshold many are missed and few are false alarms."""
    folder = tmp_path_factory.mktemp("gallery") / "w"
    return read(write(folder, table(240), threshold=0.7, explained=range(240)), "test")


def decoded(picture):
    kind, data = picture.uri.split(",")
    assert kind == "data:image/jpeg;base64"
    raw = base64.b64decode(data)
    assert raw[:2] == b"\xff\xd8"
    return cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)


def test_errors_come_first_and_the_surest_of_them(everything):
    cases = gallery.gallery(everything).cases
    order = list(dict.fromkeys(case.outcome for case in cases))
    assert order == ["fn", "fp", "tp", "tn"]
    for outcome, sign in (("fn", 1), ("fp", -1), ("tp", 1), ("tn", -1)):
        members = [sign * c.probability for c in cases if c.outcome == outcome]
        worst = members[: gallery.WORST]
        assert worst == sorted(worst)
        assert all(worst[-1] <= other for other in members[gallery.WORST :])


def test_no_more_are_shown_than_is_said(everything):
    found = gallery.gallery(everything)
    assert set(found.total.values()) == set(found.explained.values())  # all are explained
    assert sum(found.total.values()) == 240
    for outcome, shown in found.shown.items():
        members = [case for case in found.cases if case.outcome == outcome]
        assert shown == len(members) == len({c.example_id for c in members})
        assert shown == min(found.total[outcome], gallery.WORST + gallery.RANDOM)
        assert found.left_out[outcome] == found.total[outcome] - shown
        assert sum(c.why == gallery.RANDOMLY for c in members) == max(0, shown - gallery.WORST)
    assert max(found.left_out.values()) > 0


def test_the_same_run_gives_the_same_gallery(everything):
    assert gallery.gallery(everything).cases == gallery.gallery(everything).cases


def test_pictures_are_small_and_of_the_class_that_was_called(run):
    for case in gallery.gallery(run).cases:
        names = [picture.name for picture in case.pictures]
        maps = [f"{title}, {case.called}" for title in ("Grad-CAM", "HiResCAM")]
        assert names == ["image", *maps, "attention 3x3", "attention 5x5"]
        assert case.called == ("fracture" if case.probability >= 0.5 else "normal")
        assert all(picture.alt for picture in case.pictures)
        shapes = [decoded(picture).shape for picture in case.pictures]
        assert shapes == [(160, 160, 3)] * 2 + [(96, 96, 3)] * 3


def test_methods_have_the_titles_that_the_methods_have():
    assert {name: method.title for name, method in METHODS.items()} == gallery.TITLES


def test_the_picture_is_the_saved_one(run):
    case = gallery.gallery(run).cases[0]
    (stem,) = [
        e.stem for e in run.explained if run.predictions.example_id[e.row] == case.example_id
    ]
    saved = cv2.imread(str(run.explanations / f"{stem}.gradcam-{case.called}.png"))
    small = cv2.resize(saved, (160, 160), interpolation=cv2.INTER_AREA).astype(float)
    # JPEG at quality 80 of noise, the worst it can be given; another image differs by 50
    assert np.abs(decoded(case.pictures[1]).astype(float) - small).mean() < 12


def test_pictures_that_are_missing_or_damaged_are_left_out_and_counted(write, tmp_path):
    folder = write(tmp_path / "w", explained=[0, 1])
    images = sorted((folder / "eval/test/explanations").glob("*.image.png"))
    images[0].unlink()
    images[1].write_bytes(b"no picture")
    found = gallery.gallery(read(folder, "test"))
    assert found.without_image == 2
    assert all(len(case.pictures) == 4 for case in found.cases)
