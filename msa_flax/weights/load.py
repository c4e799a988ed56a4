"""Fills the variables of a model from named tensors: total, strict and pure.

Nothing is skipped silently. Every leaf of the tree is filled, or listed as kept; every tensor is
used, or listed as ignored. Everything that does not fit is reported together.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from msa_flax.files import flatten
from msa_flax.weights.keras_file import WeightsError, tensors_hash
from msa_flax.weights.rules import Layout, Rules, find

COLLECTIONS = ("params", "batch_stats")  # what a weights file fills; others pass through

Variables = dict[str, Any]  # nested dictionaries of arrays


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WeightsReport:
    """What was loaded; it belongs in the log of the run."""

    tensors: int  # how many were loaded
    parameters: int  # numbers in the loaded tensors, statistics of BatchNorm included
    hash: str  # tensors_hash of all tensors that were given, ignored ones included
    loaded_hash: str  # of those that were loaded
    kept_initial: tuple[str, ...]  # our paths that keep their initial value
    ignored: tuple[str, ...]  # Keras names that stay unused on request
    source: str  # where the tensors came from, for people
    note: str = ""  # that they are not those of the published file that they look like

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain values, tuples as lists, as in JSON."""
        values = dataclasses.asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def load(
    variables: Variables,
    arrays: Mapping[str, np.ndarray],
    rules: Rules,
    *,
    initial: tuple[str, ...] = (),
    ignore: tuple[str, ...] = (),
    source: str = "",
) -> tuple[Variables, WeightsReport]:
    """Returns a copy of the variables, filled from the arrays.

    Args:
        variables: those of the model: their paths and shapes, and the values of what is kept.
        arrays: Keras name to array, from :func:`msa_flax.weights.keras_file.read`.
        rules: those of the backbone in :data:`msa_flax.weights.KERAS_FAMILIES`.
        initial: beginnings of paths inside the collections ("attention", "classifier") that keep
            their values.
        ignore: Keras layers or tensors ("conv_preds", "head/bias") that may stay unused.
        source: a name for the report.

    Returns:
        The new variables, those from the file in float32, and the report.

    Raises:
        WeightsError: all tensors that are missing, unexpected, of another shape or not finite.
    """
    targets, kept, unnamed = _targets(variables, rules, initial)
    unused = sorted(arrays.keys() - targets.keys())
    ignored = tuple(name for name in unused if _is_under(name, ignore))
    found = {name: np.asarray(arrays[name], np.float32) for name in targets if name in arrays}
    problems = {
        "missing": [f"{name} (for {targets[name].path})" for name in targets.keys() - found],
        "leaves that no rule names": unnamed,
        "unexpected": set(unused) - set(ignored),
    }
    _refuse(problems, _misfits(targets, found), source)
    new: Variables = {k: {} if k in COLLECTIONS else value for k, value in variables.items()}
    for path, leaf in kept.items():
        _set(new, path, leaf)
    for name, target in targets.items():
        _set(new, target.path, np.array(target.layout.to_ours(found[name]), order="C"))
    return new, WeightsReport(
        tensors=len(found),
        parameters=sum(array.size for array in found.values()),
        hash=tensors_hash(arrays),
        loaded_hash=tensors_hash(found),
        kept_initial=tuple(kept),
        ignored=ignored,
        source=source,
    )


class _Target(NamedTuple):
    """A leaf that one tensor of the file fills."""

    path: str
    leaf: Any
    layout: Layout


def _targets(
    variables: Variables, rules: Rules, initial: tuple[str, ...]
) -> tuple[dict[str, _Target], dict[str, Any], list[str]]:
    """Returns the leaves by Keras name, those that are kept by path, and paths without a name."""
    targets: dict[str, _Target] = {}
    kept, unnamed = {}, []
    for collection in COLLECTIONS:
        for inside, leaf in flatten(variables.get(collection, {}), "/").items():
            path = f"{collection}/{inside}"
            named = find(rules, path)
            if _is_under(inside, initial):
                kept[path] = leaf
            elif named is None or named[0] in targets:
                unnamed.append(path)
            else:
                targets[named[0]] = _Target(path, leaf, named[1])
    return targets, kept, unnamed


def _is_under(path: str, beginnings: tuple[str, ...]) -> bool:
    """Returns whether a path begins with one of the paths ``beginnings``, by whole components."""
    return any(f"{path}/".startswith(f"{beginning}/") for beginning in beginnings)


def _misfits(targets: Mapping[str, _Target], found: Mapping[str, np.ndarray]) -> list[str]:
    """Returns a sentence for each tensor of another shape, or with values that are not finite."""
    sentences = []
    for name, array in sorted(found.items()):
        # Shapes are compared in the layout of Keras, so that the message describes the file. The
        # array that is broadcast takes no memory.
        leaf = np.broadcast_to(np.float32(0), targets[name].leaf.shape)
        expected = targets[name].layout.to_keras(leaf).shape
        bad = array.size - np.count_nonzero(np.isfinite(array))
        if array.shape != expected:
            sentences.append(f"{name}: expected shape {expected}, found {array.shape}")
        elif bad:
            sentences.append(f"{name}: {bad} of {array.size} values are not finite")
    return sentences


def _refuse(problems: Mapping[str, Collection[str]], misfits: list[str], source: str) -> None:
    """Raises one error with everything that is wrong, if anything is."""
    lists = [f"{what}: {', '.join(sorted(names))}" for what, names in problems.items() if names]
    if lists or misfits:
        where = f" of {source}" if source else ""
        raise WeightsError(f"the weights{where} do not fit the model; {'; '.join(lists + misfits)}")


def _set(tree: Variables, path: str, value: Any) -> None:
    *parents, last = path.split("/")
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value
