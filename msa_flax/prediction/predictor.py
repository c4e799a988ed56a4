"""A model that predicts new images, wherever it comes from: a run, or a portable model."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data.images import preprocess
from msa_flax.prediction.inputs import Slice, read_slice
from msa_flax.prediction.score import Scorer

PHANTOM = "trained on a synthetic phantom: says nothing about patients"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """What a prediction of new images needs of a model.

    Attributes:
        scorer: the network with everything that it decides by.
        maps: images uint8 [n, s, s] to the Grad-CAM of the positive class, float32 [n, h, w].
        fingerprint: SHA-256 of the network.
        stamps: what must be said beside every result.
        about: name, backbone, checkpoint, step, and what it was trained on, as in run.json.
    """

    scorer: Scorer
    maps: Callable[[np.ndarray], np.ndarray]
    fingerprint: str
    stamps: Sequence[str]
    about: Mapping[str, Any]

    def look(self, slices: Sequence[Slice]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the pixels of slices at their own resolution, uint8 [h, w], and their maps."""
        data = self.scorer.data
        size, equalize = data.image_size, data.equalize
        images = [read_slice(one, data) for one in slices]
        inputs = [preprocess(image, size=size, equalize=equalize) for image in images]
        return list(zip(images, self.maps(np.stack(inputs)), strict=True))


def contract(data: DataConfig) -> dict[str, Any]:
    """Returns what is done with an image before the network sees it."""
    return {
        "classes": list(data.classes),
        "image_size": data.image_size,
        "preprocess": data.preprocess,
        "equalize": data.equalize,
        "window": {"centre": data.window_centre, "width": data.window_width, "unit": "HU"},
        "max_tilt": data.max_tilt,
    }


def decision(scorer: Scorer) -> dict[str, Any]:
    """Returns the threshold of a scorer, and what it was chosen by."""
    point = scorer.operating_point
    return {
        "threshold": scorer.threshold,
        "chosen_by": "the stored operating point" if point else "eval.threshold of the run",
        "sensitivity": point.sensitivity if point else None,
        "confidence": point.confidence if point else None,
        "counted": point.counted if point else None,
    }


def data_of(values: Mapping[str, Any]) -> DataConfig:
    """Returns the part of a configuration that a contract says."""
    window, (negative, positive) = values["window"], values["classes"]
    same = {name: values[name] for name in ("image_size", "preprocess", "equalize", "max_tilt")}
    return DataConfig(
        classes=(negative, positive),
        window_centre=window["centre"],
        window_width=window["width"],
        **same,
    )
