"""The networks. Every model is a backbone, optional attention, and a head.

:func:`create_model` builds the classifier that a configuration describes. A new backbone takes:

1. a file in this folder, which opens with the table of its stages; its first convolution has
   ``channels=COLOURS``, because a grey image comes as one channel that stands for three equal ones;
2. a line in each dictionary below, and in ``NATIVE_SCALING`` of :mod:`msa_flax.models.inputs`;
3. where Keras has the network: a file in ``weights/rules/`` that says which Keras tensor fills
   which parameter, a line in its ``KERAS_FAMILIES``, and a line in ``PUBLISHED`` of
   :mod:`msa_flax.weights.published` if Keras publishes weights for it;
4. a test in ``tests/parity/`` or ``tests/models/`` that compares its numbers with those of another
   implementation.

``tests/test_architecture.py`` says which line is missing.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from msa_flax.files import UserError
from msa_flax.models.attention import MultiScaleSpatialAttention, SpatialAttention
from msa_flax.models.classifier import Classifier, Head
from msa_flax.models.convnext_tiny import ConvNeXtTiny
from msa_flax.models.efficientnet_b0 import EfficientNetB0
from msa_flax.models.fold import fold_batch_norm
from msa_flax.models.googlenet import GoogLeNet
from msa_flax.models.inputs import NATIVE_SCALING, scale_images, scaler
from msa_flax.models.lenet_alexnet import LeNetAlexNet
from msa_flax.models.mobilenet_v1 import MobileNetV1
from msa_flax.models.mobilenet_v2 import MobileNetV2
from msa_flax.models.resnet50 import ResNet50

# name in a configuration -> constructor
MODELS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "resnet50": ResNet50,
    "efficientnet_b0": EfficientNetB0,
    "convnext_tiny": ConvNeXtTiny,
    "googlenet": GoogLeNet,
    "lenet_alexnet": LeNetAlexNet,
}

WITH_BATCH_NORM = ("mobilenet_v1", "mobilenet_v2", "resnet50", "efficientnet_b0")
WITH_ALPHA = ("mobilenet_v1", "mobilenet_v2")  # the others exist in one width only

# Numbers in the network without top at alpha 1, running statistics included, as Keras counts them.
PARAM_COUNTS = {
    "mobilenet_v1": 3_228_864,
    "mobilenet_v2": 2_257_984,
    "resnet50": 23_587_712,
    "efficientnet_b0": 4_049_571,
    "convnext_tiny": 27_820_128,
    "googlenet": 5_973_552,
    "lenet_alexnet": 3_797_936,
}

# Images that a CPU predicts at a time, where more than usual are faster: large kernels are then
# read less often, though the activations of many images leave the cache.
AT_ONCE = dict.fromkeys(("resnet50", "googlenet", "lenet_alexnet"), 8)

# What the compiler is told where a program runs once: compiling takes half the time.
QUICK_COMPILATION = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

# Height and width in pixels of the smallest image. It is the total stride, 32, where ConvNeXt gives
# a map of 1 x 1 (the others have padding and could do with less). AlexNet's pooling has no padding
# and needs twice as much.
MINIMUM_SIZE = dict.fromkeys(MODELS, 32) | {"lenet_alexnet": 64}


class ModelError(UserError):
    """The configuration asks for a model that does not exist; the message names the choices."""


def create_backbone(config: Any) -> nn.Module:
    """Builds the backbone that ``config``, a ``ModelConfig``, names.

    Raises:
        ModelError: an unknown backbone, or a width or a BatchNorm that it does not have.
    """
    name, alpha, momentum = config.backbone, config.alpha, config.batch_norm_momentum
    if name not in MODELS:
        raise ModelError(
            f"model.backbone: expected one of {', '.join(sorted(MODELS))}; got {name!r}"
        )
    if momentum and name not in WITH_BATCH_NORM:
        raise ModelError(
            f"model.batch_norm_momentum: {name} has no BatchNorm, got {momentum:g}; leave it at 0 "
            f"or take one of {', '.join(WITH_BATCH_NORM)}"
        )
    chosen = {"momentum": momentum} if momentum else {}
    if name in WITH_ALPHA:
        return MODELS[name](alpha=alpha, **chosen)
    if alpha != 1:
        raise ModelError(
            f"model.alpha: {name} has one width, got {alpha:g}; leave it at 1 or take one of "
            f"{', '.join(WITH_ALPHA)}"
        )
    return MODELS[name](**chosen)


def check_network(config: Any) -> None:
    """Refuses a network that does not exist, before any work is done.

    Args:
        config: a ``Config``.

    Raises:
        ModelError: an unknown backbone, a width that it does not have, or images that are too small
            for it; then the message names the backbones that this size is enough for.
    """
    create_backbone(config.model)
    backbone, size = config.model.backbone, config.data.image_size
    if size < MINIMUM_SIZE[backbone]:
        others = ", ".join(name for name, least in MINIMUM_SIZE.items() if least <= size)
        raise ModelError(
            f"data.image_size: {backbone} needs {MINIMUM_SIZE[backbone]} pixels or more, got "
            f"{size}" + (f"; {size} is enough for {others}" if others else "")
        )


def create_model(config: Any) -> Classifier:
    """Builds the classifier that ``config``, a ``ModelConfig``, describes; without variables."""
    attention: nn.Module | None = None
    if config.attention == "msa":
        attention = MultiScaleSpatialAttention(tuple(config.kernel_sizes), config.refine)
    elif config.attention == "cbam":
        attention = SpatialAttention()
    head = Head(config.head, config.dropout)
    at_once = AT_ONCE.get(config.backbone, Classifier.at_once)
    return Classifier(create_backbone(config), attention, head, at_once)


def backbone_name(model: Classifier) -> str:
    """Returns the name of a classifier's backbone: a key of ``MODELS``, or else its class name."""
    kind = type(model.backbone)
    return next((name for name, backbone in MODELS.items() if backbone is kind), kind.__name__)


def initialise(model: nn.Module, *, seed: int) -> dict[str, Any]:
    """Returns the initial variables of a model, which depend on the seed alone.

    ``batch_stats`` is always there, empty for a network without running averages.
    """
    init = jax.jit(functools.partial(_untrained, model), compiler_options=QUICK_COMPILATION)
    variables: dict[str, Any] = init(jax.random.key(seed))
    return variables


def shapes(model: nn.Module) -> dict[str, Any]:
    """Returns shapes and types of a model's variables, as :func:`initialise` has them."""
    found: dict[str, Any] = jax.eval_shape(functools.partial(_untrained, model), jax.random.key(0))
    return found


def _untrained(model: nn.Module, key: jax.Array) -> dict[str, Any]:
    size = max(MINIMUM_SIZE.values())  # any size that a network takes gives the same variables
    return {"batch_stats": {}, **model.init(key, jnp.zeros((1, size, size, 3)), train=False)}


__all__ = [
    "MINIMUM_SIZE",
    "MODELS",
    "NATIVE_SCALING",
    "PARAM_COUNTS",
    "WITH_ALPHA",
    "Classifier",
    "Head",
    "ModelError",
    "MultiScaleSpatialAttention",
    "backbone_name",
    "check_network",
    "create_model",
    "fold_batch_norm",
    "initialise",
    "scale_images",
    "scaler",
    "shapes",
]
