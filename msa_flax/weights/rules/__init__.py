"""Which Keras tensor fills which leaf of our variables: one file per backbone."""

from msa_flax.weights.rules import (
    convnext_tiny,
    efficientnet_b0,
    mobilenet_v1,
    mobilenet_v2,
    resnet50,
)
from msa_flax.weights.rules.table import Family, Layout, Rule, Rules, find

KERAS_FAMILIES: dict[str, Family] = {
    "mobilenet_v1": mobilenet_v1.FAMILY,
    "mobilenet_v2": mobilenet_v2.FAMILY,
    "resnet50": resnet50.FAMILY,
    "efficientnet_b0": efficientnet_b0.FAMILY,
    "convnext_tiny": convnext_tiny.FAMILY,
}

__all__ = ["KERAS_FAMILIES", "Family", "Layout", "Rule", "Rules", "find"]
