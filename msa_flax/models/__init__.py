"""The networks: every model is backbone + optional attention + head.

``MODELS`` maps a name to the backbone's constructor; :func:`create_model` builds the classifier
that a configuration describes.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from msa_flax.models.attention import MultiScaleSpatialAttention
from msa_flax.models.classifier import Classifier, Head, ImageNetClassifier
from msa_flax.models.fold import fold_batch_norm
from msa_flax.models.inputs import NATIVE_SCALING, scale_images
from msa_flax.models.mobilenet_v1 import MobileNetV1

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v1": lambda config: MobileNetV1(alpha=config.alpha),
}

# Parameters (trainable and running statistics) without top at alpha 1, as Keras counts them.
PARAM_COUNTS = {"mobilenet_v1": 3_228_864}


def create_backbone(config: Any) -> nn.Module:
    """Builds the backbone that ``config`` (a ``ModelConfig``) names.

    Raises:
        ValueError: unknown backbone; the message names the known ones.
    """
    if config.backbone not in MODELS:
        raise ValueError(
            f"model.backbone: expected one of {', '.join(sorted(MODELS))}; got {config.backbone!r}"
        )
    return MODELS[config.backbone](config)


def create_model(config: Any) -> Classifier:
    """Builds the classifier that ``config`` (a ``ModelConfig``) describes, without variables."""
    attention = None
    if config.attention == "msa":
        attention = MultiScaleSpatialAttention(tuple(config.kernel_sizes), config.refine)
    return Classifier(create_backbone(config), attention, Head(config.head, config.dropout))


__all__ = [
    "MODELS",
    "NATIVE_SCALING",
    "PARAM_COUNTS",
    "Classifier",
    "Head",
    "ImageNetClassifier",
    "MobileNetV1",
    "MultiScaleSpatialAttention",
    "create_backbone",
    "create_model",
    "fold_batch_norm",
    "scale_images",
]
