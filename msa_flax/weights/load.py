"""Fill a variable tree from named tensors, and the reverse: total, strict, pure.

Nothing is skipped quietly: every leaf is filled or named as kept, every tensor is used or named as
ignored, and whatever does not fit is reported together.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from msa_flax.weights.keras_file import WeightsError, tensors_hash
from msa_flax.weights.rules import Layout, Rules, find

COLLECTIONS = ("params", "batch_stats")  # what a weights file fills; other collections pass through

Variables = dict[str, Any]  # nested dictionaries of arrays


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WeightsReport:
    """What was loaded; it belongs in the run's log."""

    tensors: int  # loaded
    parameters: int  # numbers in the loaded tensors, BatchNorm's statistics included
    hash: str  # tensors_hash of all tensors given, ignored ones included
    kept_initial: tuple[str, ...]  # our paths that keep their initial value
    ignored: tuple[str, ...]  # Keras names left unused on request
    source: str  # where the tensors came from, for people

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
    """Returns a copy of the tree, filled from the arrays.

    Args:
        variables: the model's tree; gives paths and shapes, and the values of what is kept.
        arrays: Keras name to array, from :func:`msa_flax.weights.keras_file.read`.
        rules: the backbone's table in :data:`msa_flax.weights.KERAS_FAMILIES`.
        initial: beginnings of paths inside the collections ("attention", "classifier") that keep
            their value.
        ignore: Keras layers or tensors ("conv_preds", "head/bias") that may stay unused.
        source: a name for the report.

    Returns:
        The new tree, its filled leaves float32, and the report.

    Raises:
        WeightsError: the missing, unexpected, mis-shaped and non-finite tensors, all of them.
    """
    plan = _plan(variables, rules, initial)
    unused = sorted(arrays.keys() - plan.targets.keys())
    ignored = tuple(name for name in unused if any(_under(name, prefix) for prefix in ignore))
    found = {name: np.asarray(arrays[name], np.float32) for name in plan.targets if name in arrays}
    _refuse(plan, found, [name for name in unused if name not in ignored], source)
    new = {key: value for key, value in variables.items() if key not in COLLECTIONS}
    for path, leaf in plan.kept.items():
        _set(new, path, leaf)
    for name, target in plan.targets.items():
        _set(new, target.path, np.array(target.layout.to_ours(found[name]), order="C"))
    return new, WeightsReport(
        tensors=len(found),
        parameters=sum(array.size for array in found.values()),
        hash=tensors_hash(arrays),
        kept_initial=tuple(plan.kept),
        ignored=ignored,
        source=source,
    )


def export(
    variables: Variables, rules: Rules, *, skip: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Returns the tree's tensors under their Keras names and in Keras' layout: load, reversed.

    Args:
        variables: the model's tree.
        rules: the backbone's table.
        skip: beginnings of paths ("attention", "classifier") that have no Keras counterpart.

    Raises:
        WeightsError: leaves that no rule names, all of them.
    """
    plan = _plan(variables, rules, skip)
    if plan.unnamed:
        raise WeightsError(f"expected a Keras name for each of: {', '.join(plan.unnamed)}")
    return {
        name: np.array(target.layout.to_keras(np.asarray(target.leaf)), np.float32, order="C")
        for name, target in sorted(plan.targets.items())
    }


class _Target(NamedTuple):
    path: str
    leaf: Any
    layout: Layout


class _Plan(NamedTuple):
    """Where every leaf comes from."""

    targets: dict[str, _Target]  # by Keras name
    kept: dict[str, Any]  # our path to leaf
    unnamed: list[str]  # our paths without a Keras name of their own


def _plan(variables: Variables, rules: Rules, keep: tuple[str, ...]) -> _Plan:
    plan = _Plan({}, {}, [])
    for path, leaf in _leaves(variables):
        named = find(rules, path)
        if any(_under(path.split("/", 1)[1], prefix) for prefix in keep):
            plan.kept[path] = leaf
        elif named is None or named[0] in plan.targets:
            plan.unnamed.append(path)
        else:
            plan.targets[named[0]] = _Target(path, leaf, named[1])
    return plan


def _leaves(variables: Variables) -> Iterator[tuple[str, Any]]:
    def walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, Mapping):
            for key, child in node.items():
                yield from walk(child, f"{path}/{key}")
        else:
            yield path, node

    for collection in COLLECTIONS:
        yield from walk(variables.get(collection, {}), collection)


def _set(tree: Variables, path: str, value: Any) -> None:
    *parents, last = path.split("/")
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value


def _under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _refuse(plan: _Plan, found: dict[str, np.ndarray], unexpected: list[str], source: str) -> None:
    """Raises with everything that is wrong; returns only if every target can be filled."""
    missing = [f"{name} (for {plan.targets[name].path})" for name in plan.targets.keys() - found]
    problems = [
        f"{what}: {', '.join(sorted(names))}"
        for what, names in (
            ("missing", missing),
            ("leaves that no rule names", plan.unnamed),
            ("unexpected", unexpected),
        )
        if names
    ]
    for name, array in sorted(found.items()):
        # Compared in Keras' layout, so that the message speaks of the file. Costs no memory.
        leaf = np.broadcast_to(np.float32(0), plan.targets[name].leaf.shape)
        expected = plan.targets[name].layout.to_keras(leaf).shape
        bad = array.size - np.count_nonzero(np.isfinite(array))
        if array.shape != expected:
            problems.append(f"{name}: expected shape {expected}, found {array.shape}")
        elif bad:
            problems.append(f"{name}: {bad} of {array.size} values are not finite")
    if problems:
        where = f" of {source}" if source else ""
        raise WeightsError(f"the weights{where} do not fit the model; {'; '.join(problems)}")
