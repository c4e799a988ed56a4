import dataclasses

import numpy as np
import pytest
from image_files import encoded
from made_up_model import CALIBRATION, POINT

from msa_flax.config import DataConfig
from msa_flax.prediction.inputs import find_inputs
from msa_flax.prediction.score import NOT_COMPARED, UNLIKE, Scorer, predict_files, score

DATA = DataConfig(image_size=32, classes=("intact", "broken"))


class OnlyDark:
    """Images that are brighter than a grey value are unlike the others."""

    limit = 200.0

    def distance(self, pooled, looks):
        return pooled[:, 0]


def describe(images):
    """The brighter an image, the larger its logit: 0 at grey 100."""
    grey = images.mean(axis=(1, 2), dtype=np.float32)
    return (grey - 100) / 20, grey[:, None]


SCORER = Scorer(
    describe=describe,
    data=DATA,
    batch_size=4,
    configured=0.5,
    calibration=None,
    typicality=OnlyDark(),
)


@pytest.fixture
def folder(tmp_path):
    """Ten slices of rising grey, of which the fourth is damaged."""
    for i in range(10):
        data = encoded(np.full((40, 50), 60 + 20 * i, np.uint8))
        (tmp_path / f"{i}.png").write_bytes(data[:-15] if i == 3 else data)
    return tmp_path


def test_rows_are_decided_by_the_names_of_the_run_and_flagged_ones_are_not(folder):
    rows = predict_files(SCORER, [folder])
    assert [row["decision"] for row in rows] == ["intact"] * 2 + ["broken"] * 5 + [""] * 2
    assert [row["flags"] for row in rows] == [""] * 7 + [UNLIKE] * 2
    assert rows[1]["probability"] == pytest.approx(1 / (1 + np.exp(1)))
    assert rows[0]["calibrated"] is None
    assert rows[0]["series"] == str(folder)


def test_the_stored_operating_point_and_temperature_are_used(folder):
    rows = predict_files(dataclasses.replace(SCORER, calibration=CALIBRATION), [folder])
    assert [row["decision"] for row in rows[:2]] == ["intact", "broken"]
    assert rows[1]["calibrated"] == pytest.approx(1 / (1 + np.exp(0.5)))


def test_a_probability_at_the_threshold_is_positive():
    at = float(np.float32(0.3))  # what a stored threshold is
    point = dataclasses.replace(POINT, threshold=at)
    scorer = dataclasses.replace(
        SCORER, calibration=dataclasses.replace(CALIBRATION, operating_point=point)
    )
    assert scorer.decide(at, []) == "broken"
    assert scorer.decide(float(np.nextafter(np.float32(at), np.float32(0))), []) == "intact"


def test_nothing_is_decided_where_the_training_images_are_unknown(folder):
    rows = predict_files(dataclasses.replace(SCORER, typicality=None), [folder])
    assert {(row["decision"], row["flags"]) for row in rows} == {("", NOT_COMPARED)}


def test_batches_hold_the_same_slices_wherever_one_begins_anew(folder):
    slices = find_inputs([str(folder)], DATA).slices
    batches = list(score(SCORER, slices))
    assert [(len(b.rows), len(b.refused), b.taken) for b in batches] == [
        (4, 1, 5),
        (4, 0, 4),
        (1, 0, 1),
    ]
    assert list(score(SCORER, slices[5:])) == batches[1:]
    assert batches[0].refused == [(str(folder / "3.png"), "truncated")]


def test_what_is_left_out_is_said(folder, caplog):
    predict_files(SCORER, [folder / "3.png", folder / "4.png"])
    assert f"left out: {folder / '3.png'}: truncated" in caplog.text


def test_reading_is_never_far_ahead(folder):
    given = []

    def slices():
        for one in find_inputs([str(folder)], DATA).slices * 40:
            given.append(one)
            yield one

    batches = score(SCORER, slices())
    next(batches)
    assert len(given) <= 6 * SCORER.batch_size
    batches.close()
