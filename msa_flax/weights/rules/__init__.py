"""Which Keras tensor fills which leaf of our variable tree: a file a backbone."""

from msa_flax.weights.rules import mobilenet_v1, mobilenet_v2
from msa_flax.weights.rules.table import Family, Layout, Rule, Rules, find

KERAS_FAMILIES: dict[str, Family] = {
    "mobilenet_v1": mobilenet_v1.FAMILY,
    "mobilenet_v2": mobilenet_v2.FAMILY,
}

__all__ = ["KERAS_FAMILIES", "Family", "Layout", "Rule", "Rules", "find"]
