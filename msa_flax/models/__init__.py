"""The networks: every model is backbone + optional attention + head.

``MODELS`` maps a name to the backbone's constructor; :func:`create_model` builds the classifier
that a configuration describes.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from msa_flax.models.attention import MultiScaleSpatialAttention, SpatialAttention
from msa_flax.models.classifier import Classifier, Head, ImageNetClassifier
from msa_flax.models.fold import fold_batch_norm
from msa_flax.models.inputs import NATIVE_SCALING, scale_images
from msa_flax.models.mobilenet_v1 import MobileNetV1
from msa_flax.models.mobilenet_v2 import MobileNetV2

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
}

WITH_ALPHA = ("mobilenet_v1", "mobilenet_v2")  # the others have one width

# Parameters (trainable and running statistics) without top at alpha 1, as Keras counts them.
PARAM_COUNTS = {
    "mobilenet_v1": 3_228_864,
    "mobilenet_v2": 2_257_984,
}

# Pixels a side of the smallest image that still gives a feature map of 1 x 1 or more.
MINIMUM_SIZE = dict.fromkeys(MODELS, 32)


class ModelError(ValueError):
    """There is no such model; the message names the choices."""

    exit_code = 2


def create_backbone(config: Any) -> nn.Module:
    """Builds the backbone that ``config`` (a ``ModelConfig``) names.

    Raises:
        ModelError: unknown backbone, or a width that it does not have; names the choices.
    """
    name, alpha = config.backbone, config.alpha
    if name not in MODELS:
        raise ModelError(
            f"model.backbone: expected one of {', '.join(sorted(MODELS))}; got {name!r}"
        )
    if name in WITH_ALPHA:
        return MODELS[name](alpha=alpha)
    if alpha != 1:
        raise ModelError(
            f"model.alpha: {name} has one width, got {alpha:g}; leave it at 1 or take one of "
            f"{', '.join(WITH_ALPHA)}"
        )
    return MODELS[name]()


def check_size(backbone: str, size: int) -> None:
    """Refuses images that are too small for a backbone.

    Raises:
        ModelError: names the smallest size, and the backbones that take this one.
    """
    if size < MINIMUM_SIZE[backbone]:
        others = ", ".join(name for name, least in MINIMUM_SIZE.items() if least <= size)
        raise ModelError(
            f"data.image_size: {backbone} needs {MINIMUM_SIZE[backbone]} pixels or more, got "
            f"{size}" + (f"; {size} is enough for {others}" if others else "")
        )


def create_model(config: Any) -> Classifier:
    """Builds the classifier that ``config`` (a ``ModelConfig``) describes, without variables."""
    attention: nn.Module | None = None
    if config.attention == "msa":
        attention = MultiScaleSpatialAttention(tuple(config.kernel_sizes), config.refine)
    elif config.attention == "cbam":
        attention = SpatialAttention()
    return Classifier(create_backbone(config), attention, Head(config.head, config.dropout))


__all__ = [
    "MINIMUM_SIZE",
    "MODELS",
    "NATIVE_SCALING",
    "PARAM_COUNTS",
    "Classifier",
    "Head",
    "ImageNetClassifier",
    "MobileNetV1",
    "MobileNetV2",
    "ModelError",
    "MultiScaleSpatialAttention",
    "SpatialAttention",
    "check_size",
    "create_backbone",
    "create_model",
    "fold_batch_norm",
    "scale_images",
]
