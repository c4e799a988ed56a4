"""What the tables of the backbones consist of: rules, and changes of layout.

A rule is a regular expression for our path (``params/backbone/conv1/kernel``), the Keras name that
belongs to it, and how the layout changes. The tables hold no shapes: these come from the variables
that are filled.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from msa_flax.weights.keras_file import WeightsError


class Layout(NamedTuple):
    """A change of layout in both directions; the two functions are inverses."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_keras: Callable[[np.ndarray], np.ndarray]


class Rule(NamedTuple):
    """One line of a table."""

    pattern: str  # regular expression that matches our whole path
    keras: str  # Keras name; \1 is the first group of the pattern
    layout: Layout


Rules = tuple[Rule, ...]
Layers = tuple[tuple[str, str], ...]  # (class, name) of each


class Family(NamedTuple):
    """The table of one backbone."""

    rules: Rules
    # The layers that have variables, in the order of Keras' model.layers: names for the files that
    # hold none. The classification top comes last, because a model may lack it.
    layers: Layers
    top: tuple[str, ...]  # layers of the classification top, which a classifier here replaces
    # (regular expression, name) of tensors whose name differs from file to file; \1 is the first
    # group
    renames: tuple[tuple[str, str], ...] = ()

    def canonical(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the tensors of a file under the names that the rules know.

        Args:
            arrays: Keras name to array, from :func:`msa_flax.weights.keras_file.read`.

        Raises:
            WeightsError: two tensors of the file have one such name.
        """
        sources: dict[str, str] = {}
        for name in arrays:
            known = self._rename(name)
            if known in sources:
                raise WeightsError(
                    f"expected one tensor that can be {known}, found {sources[known]} and {name}; "
                    "save the backbone by itself"
                )
            sources[known] = name
        return {known: arrays[name] for known, name in sources.items()}

    def _rename(self, name: str) -> str:
        for pattern, known in self.renames:
            match = re.fullmatch(pattern, name)
            if match:
                return match.expand(known)
        return name


SAME = Layout(lambda x: x, lambda x: x)
# Keras: (h, w, C, multiplier 1). Ours: HWIO with C feature groups, so one input channel each.
DEPTHWISE = Layout(lambda x: np.swapaxes(x, 2, 3), lambda x: np.swapaxes(x, 2, 3))


def batch_norm(layer: str) -> Rules:
    """Returns the four rules of the BatchNorm layers whose names match a regular expression."""
    return (
        Rule(rf"params/backbone/({layer})/scale", r"\1/gamma", SAME),
        Rule(rf"params/backbone/({layer})/bias", r"\1/beta", SAME),
        Rule(rf"batch_stats/backbone/({layer})/mean", r"\1/moving_mean", SAME),
        Rule(rf"batch_stats/backbone/({layer})/var", r"\1/moving_variance", SAME),
    )


def conv_bn(conv: str, norm: str, kind: str = "Conv2D") -> Layers:
    """Returns a convolution of a class and the BatchNorm after it, for ``Family.layers``."""
    return (kind, conv), ("BatchNormalization", norm)


def find(rules: Rules, path: str) -> tuple[str, Layout] | None:
    """Returns the Keras name and the layout of one of our paths, or None if no rule fits."""
    for pattern, keras, layout in rules:
        match = re.fullmatch(pattern, path)
        if match:
            return match.expand(keras), layout
    return None
