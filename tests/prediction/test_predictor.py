"""What is said of images comes back as the configuration that it was said of."""

import dataclasses

import cv2
import numpy as np

from msa_flax.config import DataConfig
from msa_flax.prediction.inputs import Slice
from msa_flax.prediction.predictor import Predictor, contract, data_of, decision
from msa_flax.prediction.score import Scorer

OTHER = DataConfig(
    classes=("no", "yes"),
    image_size=96,
    preprocess="native",
    equalize="clahe",
    window_centre=50.0,
    window_width=350.0,
    max_tilt=5.0,
)


SCORER = Scorer(
    describe=None, data=OTHER, batch_size=1, configured=0.3, calibration=None, typicality=None
)


def test_a_slice_is_looked_at_as_the_network_sees_it_and_shown_as_it_is(tmp_path):
    images = [np.full((40, 50), value, np.uint8) for value in (10, 200)]
    seen = []
    model = Predictor(
        scorer=SCORER,
        maps=lambda inputs: seen.append(inputs) or inputs.mean((1, 2), keepdims=True),
        fingerprint="",
        stamps=(),
        about={},
    )
    slices = [Slice(path="", file=tmp_path / f"{i}.png", series="") for i in range(2)]
    for one, image in zip(slices, images, strict=True):
        cv2.imwrite(str(one.file), image)
    looked = model.look(slices)
    assert seen[0].shape == (2, 96, 96)
    assert all(np.array_equal(one[0], image) for one, image in zip(looked, images, strict=True))
    assert looked[0][1] < looked[1][1]


def test_a_contract_has_everything_that_a_prediction_reads():
    assert data_of(contract(OTHER)) == OTHER
    assert data_of(contract(DataConfig())) == DataConfig()


def test_without_an_operating_point_the_configured_threshold_decides():
    said = decision(SCORER)
    assert (said["threshold"], said["sensitivity"]) == (0.3, None)
    assert "eval.threshold" in said["chosen_by"]
    assert decision(dataclasses.replace(SCORER, configured=0.4))["threshold"] == 0.4
