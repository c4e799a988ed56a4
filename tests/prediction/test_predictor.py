"""What is said of images comes back as the configuration that it was said of."""

import dataclasses

from msa_flax.config import DataConfig
from msa_flax.prediction.predictor import contract, data_of, decision
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


def test_a_contract_has_everything_that_a_prediction_reads():
    assert data_of(contract(OTHER)) == OTHER
    assert data_of(contract(DataConfig())) == DataConfig()


def test_without_an_operating_point_the_configured_threshold_decides():
    scorer = Scorer(
        describe=None, data=OTHER, batch_size=1, configured=0.3, calibration=None, typicality=None
    )
    said = decision(scorer)
    assert (said["threshold"], said["sensitivity"]) == (0.3, None)
    assert "eval.threshold" in said["chosen_by"]
    assert decision(dataclasses.replace(scorer, configured=0.4))["threshold"] == 0.4
