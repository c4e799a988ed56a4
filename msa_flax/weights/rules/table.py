"""What a table is made of: rules, changes of layout, and the search for a path's rule.

A rule is a regular expression on our path (``params/backbone/conv1/kernel``), the Keras name it
stands for, and how the layout changes. Tables hold no shapes: the tree that is filled has them.
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
    keras: str  # Keras name; \1 is the pattern's first group
    layout: Layout


Rules = tuple[Rule, ...]


class Family(NamedTuple):
    """The table of one backbone."""

    rules: Rules
    # (class, name) of the layers with variables in the order of Keras' model.layers, for files that
    # hold no layer names (keras_file.read's argument ``layers``); the top, absent from models
    # without one, comes last.
    layers: tuple[tuple[str, str], ...]
    top: tuple[str, ...]  # layers of the classification top, which a classifier here replaces
    # (regular expression, name) of tensors that files name differently: \1 is the first group
    renames: tuple[tuple[str, str], ...] = ()

    def canonical(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns a file's tensors under the names that the rules know.

        Args:
            arrays: Keras name to array, from :func:`msa_flax.weights.keras_file.read`.

        Raises:
            WeightsError: two tensors of the file stand for one name.
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
# A 1x1 convolution of a 1x1 map is a dense layer: (1, 1, in, out) and (in, out).
DENSE_AS_CONV = Layout(lambda x: x[0, 0], lambda x: x[None, None])


def batch_norm(layer: str) -> Rules:
    """Returns the four rules of the BatchNorm layers whose name matches a regular expression."""
    return (
        Rule(rf"params/backbone/({layer})/scale", r"\1/gamma", SAME),
        Rule(rf"params/backbone/({layer})/bias", r"\1/beta", SAME),
        Rule(rf"batch_stats/backbone/({layer})/mean", r"\1/moving_mean", SAME),
        Rule(rf"batch_stats/backbone/({layer})/var", r"\1/moving_variance", SAME),
    )


def find(rules: Rules, path: str) -> tuple[str, Layout] | None:
    """Returns the Keras name and layout change of one of our paths, or None without a rule."""
    for pattern, keras, layout in rules:
        match = re.fullmatch(pattern, path)
        if match:
            return match.expand(keras), layout
    return None
