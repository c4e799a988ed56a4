"""A predictor without a network: its probability is the mean grey value."""

import dataclasses

import numpy as np

from msa_flax.config import DataConfig
from msa_flax.evaluation.calibration import Calibration
from msa_flax.evaluation.calibrators import Temperature
from msa_flax.evaluation.operating_point import OperatingPoint
from msa_flax.prediction.predictor import PHANTOM, Predictor
from msa_flax.prediction.score import Scorer
from msa_flax.prediction.typicality import Typicality

POINT = OperatingPoint(
    threshold=0.25,
    sensitivity=0.9,
    confidence=0.95,
    counted="groups",
    n=40,
    missed=1,
    guaranteed=0.9,
    expected=0.95,
)
CALIBRATION = Calibration(
    checkpoint="best",
    step=3,
    data_fingerprint="",
    fractures=np.zeros(1, np.float32),
    normal=np.zeros(1, np.float32),
    groups={"all": 40},
    temperature=Temperature(value=2.0),
    isotonic=None,
    reason="",
    operating_point=POINT,
)


def describe(images):
    """Logits from -3 to 3 that differ between slices, and features that are all alike."""
    logits = 6 * (images.reshape(len(images), -1).mean(1) / 255 - 0.5)
    return logits.astype(np.float32), np.zeros((len(images), 2), np.float32)


def model_of(**more):
    alike = Typicality(
        belongs_to="",
        images=9,
        groups=9,
        centre=np.zeros(82, np.float32),
        axes=np.zeros((82, 1), np.float32),
        limit=1.0,
    )
    scorer = Scorer(
        describe=describe,
        data=DataConfig(image_size=32),
        batch_size=4,
        configured=0.5,
        calibration=CALIBRATION,
        typicality=alike,
    )
    return Predictor(
        scorer=dataclasses.replace(scorer, **more),
        maps=lambda images: images.astype(np.float32),
        fingerprint="ab" * 32,
        stamps=[PHANTOM],
        about={
            "name": "one",
            "backbone": "lenet_alexnet",
            "checkpoint": "best",
            "step": 3,
            "trained_on": {"source": "a synthetic phantom", "images": 9, "groups": 9},
        },
    )
