"""The variables that training starts from: random ones, or a backbone from a Keras file."""

import dataclasses
from pathlib import Path
from typing import Any

from msa_flax import weights
from msa_flax.config import Config
from msa_flax.models import Classifier, backbone_name, initialise
from msa_flax.weights import WeightsReport

Variables = dict[str, Any]


def load_keras(
    model: Classifier, path: str | Path, *, seed: int = 0
) -> tuple[Variables, WeightsReport]:
    """Returns the variables of a model with its backbone taken from a Keras file.

    Attention and head keep their initial values; a classification top in the file is left out.

    Args:
        model: from :func:`msa_flax.create_model`; it says itself which backbone it has.
        path: a ``.h5``, ``.weights.h5`` or ``.keras`` file of the same backbone.
        seed: of the initial values.

    Raises:
        WeightsError: Keras has no such network, or the message names all tensors that are missing,
            unexpected or of another shape.
    """
    name = backbone_name(model)
    if name not in weights.KERAS_FAMILIES:
        raise weights.WeightsError(
            f"Keras has no {name}, and so no weights for it; expected one of "
            f"{', '.join(sorted(weights.KERAS_FAMILIES))}, or model.pretrained 'none'"
        )
    family = weights.KERAS_FAMILIES[name]
    return weights.load(
        initialise(model, seed=seed),
        family.canonical(weights.read(path, layers=family.layers)),
        family.rules,
        initial=("attention", "classifier"),
        ignore=family.top,
        source=Path(path).name,
    )


def initial_variables(model: Classifier, config: Config) -> tuple[Variables, WeightsReport | None]:
    """Returns the variables that training starts from, as ``model.pretrained`` says."""
    path, seed = config.model.pretrained, config.train.seed
    if path == "none":
        return initialise(model, seed=seed), None
    backbone, alpha = config.model.backbone, config.model.alpha
    if path == "imagenet":
        return load_keras(model, weights.imagenet_path(backbone, alpha=alpha), seed=seed)
    variables, report = load_keras(model, path, seed=seed)
    note = weights.not_as_published(Path(path), report, backbone, alpha=alpha)
    return variables, dataclasses.replace(report, note=note)
