"""Feature maps of a run's images by its backbone, where that is frozen or only looked at."""

import functools

import numpy as np

from msa_flax.data.examples import Examples
from msa_flax.models import scaler
from msa_flax.run import Run
from msa_flax.training.features import cached_features, features_file
from msa_flax.training.steps import make_predict_step
from msa_flax.training.xla import compile_predict_step


def frozen_features(run: Run, examples: Examples) -> np.ndarray:
    """Returns the feature maps of n images by the backbone, computed once for all runs.

    They are float16 [n, fh, fw, c] and are read from disk as needed.
    """
    step = make_predict_step(run.model, scaler(run.config), method="features")
    # The fingerprint knows size and equalisation of the images; what is left is the scaling.
    inputs = f"{run.config.data.preprocess} {examples.fingerprint}"
    return cached_features(
        features_file(run.variables, f"{run.config.model.backbone} {inputs}"),
        functools.partial(compile_predict_step(step), run.variables),
        examples.images,
        batch_size=run.config.eval.batch_size,
    )
