"""The gallery shows what went worst, small, and says what it leaves out."""

import base64
import dataclasses
import shlex

import cv2
import numpy as np
import pytest
from prediction_tables import mostly_right
from saved_runs import write_run

from msa_flax.evaluation.predictions import WORST
from msa_flax.reporting import gallery
from msa_flax.reporting.page import render_page
from msa_flax.reporting.saved import read_run


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Every image explained; at this threshold many are missed and few are false alarms."""
    folder = tmp_path_factory.mktemp("gallery") / "w"
    return read_run(
        write_run(folder, mostly_right(240), threshold=0.7, explained=range(240), small=True),
        "test",
    )


def decoded(picture):
    kind, data = picture.uri.split(",")
    assert kind == "data:image/jpeg;base64"
    raw = base64.b64decode(data)
    assert raw[:2] == b"\xff\xd8"
    return cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)


def test_errors_come_first_and_the_surest_of_them(everything):
    cases = gallery.choose_cases(everything).cases
    order = list(dict.fromkeys(case.outcome for case in cases))
    assert order == ["fn", "fp", "tp", "tn"]
    for outcome, sign in (("fn", 1), ("fp", -1), ("tp", 1), ("tn", -1)):
        members = [sign * c.probability for c in cases if c.outcome == outcome]
        worst = members[:WORST]
        assert worst == sorted(worst)
        assert all(worst[-1] <= other for other in members[WORST:])


def test_no_more_are_shown_than_is_said(everything):
    found = gallery.choose_cases(everything)
    assert sum(found.total.values()) == 240
    assert found.command == ""  # all are explained
    for outcome, shown in found.shown.items():
        members = [case for case in found.cases if case.outcome == outcome]
        assert shown == len(members) == len({c.example_id for c in members})
        assert shown == min(found.total[outcome], WORST + gallery.RANDOM)
        assert sum(c.drawn for c in members) == max(0, shown - WORST)
    assert max(found.total[outcome] - shown for outcome, shown in found.shown.items()) > 0


def test_errors_are_shown_whether_they_were_explained_or_not(run):
    """Every third image of this run was explained."""
    found = gallery.choose_cases(run)
    ids = run.predictions.example_id
    explained = {str(ids[item.row]) for item in run.explained}
    for outcome in gallery.OUTCOMES:
        members = {case.example_id for case in found.cases if case.outcome == outcome}
        everything = set(ids[run.outcome == outcome].tolist())
        assert len(everything) < WORST or outcome not in gallery.ERRORS
        expected = everything if outcome in gallery.ERRORS else everything & explained
        assert members <= expected
        assert len(members) == min(len(expected), WORST + gallery.RANDOM)
    assert all((case.example_id in explained) == bool(case.pictures) for case in found.cases)
    bare = [case.example_id for case in found.cases if not case.pictures]
    *words, option, folder = shlex.split(found.command)[: -len(bare)]
    assert words == ["python", "-m", "msa_flax.explain", "--maps", "--workdir", str(run.workdir)]
    assert (option, folder) == ("--out", str(run.workdir / "eval/test/errors"))
    assert shlex.split(found.command)[-len(bare) :] == bare  # names of files with spaces


def test_the_command_keeps_the_errors_that_its_folder_holds_already(tmp_path):
    """It replaces the table of that folder."""
    folder = write_run(tmp_path / "w", explained=range(0, 120, 3), small=True)
    (folder / "eval/test/explanations").rename(folder / "eval/test/errors")
    run = read_run(folder, "test")
    found = gallery.choose_cases(run)
    errors = [case.example_id for case in found.cases if case.outcome in gallery.ERRORS]
    assert {bool(case.pictures) for case in found.cases if case.outcome in gallery.ERRORS} == {
        True,
        False,
    }
    assert shlex.split(found.command)[-len(errors) :] == errors


def test_the_same_run_gives_the_same_gallery(everything):
    assert gallery.choose_cases(everything).cases == gallery.choose_cases(everything).cases


def test_pictures_are_small_and_of_the_predicted_class(run):
    for case in gallery.choose_cases(run).cases:
        names = [picture.name for picture in case.pictures]
        if not case.pictures:
            continue
        maps = [f"{title}, {case.predicted}" for title in ("Grad-CAM", "HiResCAM")]
        assert names == ["image", *maps, "attention 3x3", "attention 5x5"]
        assert case.predicted == ("fracture" if case.probability >= 0.5 else "normal")
        assert all(picture.alt for picture in case.pictures)
        shapes = [decoded(picture).shape for picture in case.pictures]
        assert shapes == [(160, 160, 3)] * 2 + [(96, 96, 3)] * 3


def test_the_picture_is_the_saved_one(run):
    case = next(case for case in gallery.choose_cases(run).cases if case.pictures)
    (item,) = [e for e in run.explained if run.predictions.example_id[e.row] == case.example_id]
    saved = cv2.imread(str(item.folder / f"{item.stem}.gradcam-{case.predicted}.png"))
    small = cv2.resize(saved, (160, 160), interpolation=cv2.INTER_AREA).astype(float)
    # JPEG at quality 80 of noise, the worst it can be given; another image differs by 50
    assert np.abs(decoded(case.pictures[1]).astype(float) - small).mean() < 12


def test_pictures_that_are_missing_or_damaged_are_left_out(tmp_path):
    folder = write_run(tmp_path / "w", explained=[0, 1])
    images = sorted((folder / "eval/test/explanations").glob("*.image.png"))
    images[0].unlink()
    images[1].write_bytes(b"no picture")
    run = read_run(folder, "test")
    ids = {str(run.predictions.example_id[item.row]) for item in run.explained}
    cases = [case for case in gallery.choose_cases(run).cases if case.example_id in ids]
    assert [len(case.pictures) for case in cases] == [4, 4]


def test_the_outcomes_are_named_after_the_classes_of_the_run(run):
    config = {**run.config, "data": {**run.config["data"], "classes": ["正常", "骨折"]}}
    page = render_page(dataclasses.replace(run, config=config))
    assert "missed 骨折 (false negative)" in page
    assert "正常 image, predicted 正常 (true negative)" in page
    assert "missed fracture" not in page
