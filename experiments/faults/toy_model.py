"""A portable model of one number, for trials of everything around a model.

How sure it is of a slice follows from the slice's brightness, and no slice is unlike another.
"""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from msa_flax.config import DataConfig
from msa_flax.exporting import package, portable
from msa_flax.prediction.predictor import PHANTOM, Predictor
from msa_flax.prediction.score import Scorer
from msa_flax.prediction.typicality import Typicality


def write_toy_model(path: Path) -> Path:
    """Writes the model into a new folder, and returns the folder."""
    alike = Typicality(
        belongs_to="",
        images=1,
        groups=1,
        centre=np.zeros(81, np.float32),  # one feature, and 80 numbers of the grey values
        axes=np.zeros((81, 1), np.float32),
        limit=1.0,
    )
    unused: Any = None  # the packed programs are called
    scorer = Scorer(
        describe=unused,
        data=DataConfig(image_size=32),
        batch_size=4,
        configured=0.5,
        calibration=None,
        typicality=alike,
    )
    trained_on = {"source": "a synthetic phantom", "images": 1, "groups": 1}
    about = {"name": "toy", "backbone": "none", "checkpoint": "best", "step": 1}
    predictor = Predictor(
        scorer=scorer,
        maps=unused,
        fingerprint="70" * 32,
        stamps=[PHANTOM],
        about=about | {"trained_on": trained_on},
    )
    programs: Any = {
        "describe": _describe,
        "maps": _maps,
        "variables": {"w": np.array([6], np.float32)},
    }
    contents = portable.pack(
        predictor, **programs, at_once=4, card="# A toy\n", about={"metrics": {}}
    )
    package.write(path, contents, zipped=False)
    return path


def _describe(variables: Any, images: Any) -> tuple[Any, Any]:
    bright = jnp.float32(images).mean((1, 2)) / 255
    return variables["w"][0] * (bright - 0.5), bright[:, None] * 0


def _maps(variables: Any, images: Any) -> Any:
    return jnp.float32(images)[:, ::8, ::8] * variables["w"][0]
