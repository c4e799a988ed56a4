"""Checkpoints of a run, kept by Orbax and verified by a digest of their own.

``checkpoints/last/<step>`` holds everything that a run needs to continue, and
``checkpoints/best/<step>`` the variables with the lowest validation loss. Orbax writes a checkpoint
under a temporary name and renames it, so a killed run leaves whole checkpoints only. But Orbax does
not notice a bit that is flipped later on the disk; so digests are stored and compared, of arrays
and of everything else that steers the run. What was saved is read back before an older one goes.
"""

import errno
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from msa_flax.files import UserError
from msa_flax.training.plain import PlainPath
from msa_flax.training.steps import TrainState

Progress = dict[str, Any]  # what the loop keeps beside the state: plain JSON values
# The last two, so that damage to the newest one costs an epoch and not the run.
_KEPT = {"last": 2, "best": 1}
log = logging.getLogger("msa_flax")


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or does not fit the model."""


class Checkpoints:
    """The two series of checkpoints in one workdir.

    Attributes:
        folder: the folder ``checkpoints`` of the workdir.
        run: the digest of the run's configuration, which every checkpoint is tied to; "" where it
            is not known.
    """

    def __init__(self, workdir: Path, *, read_only: bool = False, run: str = "") -> None:
        self.folder, self.run = Path(workdir).absolute() / "checkpoints", run
        if not read_only:
            for which in _KEPT:
                (self.folder / which).mkdir(parents=True, exist_ok=True)
        self._plain = PlainPath(self.folder)
        self._managers = {
            which: _manager(self._plain.path / which, read_only=read_only) for which in _KEPT
        }

    def save_last(self, state: TrainState, progress: Progress) -> None:
        """Saves the whole state and the progress of the loop."""
        optimizer = {"opt_state": state.opt_state}
        self._save("last", int(state.step), progress, state.variables, optimizer)

    def save_best(self, state: TrainState, progress: Progress) -> None:
        """Saves the variables as the best so far, replacing the previous best."""
        self._save("best", int(state.step), progress, state.variables, None)

    def restore_last(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """Restores the newest intact state, or returns None where there is no checkpoint.

        Args:
            like: a state of the same structure, for instance the one before the first step.

        Raises:
            CheckpointError: checkpoints exist but none is intact, or the newest does not fit.
        """
        damaged = []
        for step in sorted(self._managers["last"].all_steps(), reverse=True):
            try:
                variables, progress = self._restore("last", step, like.variables)
                extra = {"opt_state": like.opt_state}
                optimizer = self._restore_item("last", step, "optimizer", extra, progress)
            except _DamagedError as error:
                log.warning("checkpoint %s is damaged (%s)", self.folder / f"last/{step}", error)
                damaged.append(f"last/{step}: {error}")
                continue
            state = TrainState(
                step=jax.numpy.asarray(step, like.step.dtype),
                params=variables["params"],
                batch_stats=variables["batch_stats"],
                opt_state=optimizer["opt_state"],
            )
            return state, progress["progress"]
        if damaged:
            raise CheckpointError(
                f"no intact checkpoint is left in {self.folder} ({'; '.join(damaged)}); start in "
                "a new workdir"
            )
        return None

    def restore_variables(self, which: str, like: PyTree) -> tuple[PyTree, int]:
        """Restores the variables of the "best" or "last" checkpoint, and says of which step.

        Where the best one is lost, the last one is taken if it is of that very step.

        Raises:
            CheckpointError: no checkpoint, a damaged one, or one that does not fit ``like``.
        """
        steps = sorted(self._managers[which].all_steps())
        if not steps and not (which == "best" and self._managers["last"].all_steps()):
            raise CheckpointError(
                f"expected a {which!r} checkpoint in {self.folder}, found none; train this workdir "
                "first"
            )
        try:
            if not steps:
                raise _DamagedError("it is not there")
            return self._restore(which, steps[-1], like)[0], steps[-1]
        except _DamagedError as error:
            folder = self.folder / which / (str(steps[-1]) if steps else "")
            if which == "best" and (found := self._last_as_best(like)):
                log.warning(
                    "checkpoint %s is damaged (%s); last/%d is of the same step and is used",
                    *(folder, error, found[1]),
                )
                return found
            other = "last" if which == "best" else "best"
            raise CheckpointError(
                f"checkpoint {folder} is damaged ({error}); use the other one "
                f"(--checkpoint {other}), or train again in a new workdir"
            ) from error

    def _last_as_best(self, like: PyTree) -> tuple[PyTree, int] | None:
        """Returns the variables of the last checkpoint that was the best one too, if it is here."""
        best: list[int] = []
        for step in sorted(self._managers["last"].all_steps(), reverse=True):
            try:
                variables, progress = self._restore("last", step, like)
            except _DamagedError:
                continue
            best = best or [progress["progress"].get("best", {}).get("step", -1)]
            if step == best[0]:
                return variables, step
        return None

    def _save(
        self, which: str, step: int, progress: Progress, variables: PyTree, optimizer: PyTree | None
    ) -> None:
        manager = self._managers[which]
        items = {"variables": variables} | ({"optimizer": optimizer} if optimizer else {})
        items = jax.device_get(items)  # a checkpoint does not depend on devices and processes
        if not is_finite(items):
            raise CheckpointError(f"step {step} holds numbers that are not finite; it is not saved")
        digests = {name: digest(tree) for name, tree in items.items()}
        facts = {"progress": progress, "digests": digests, "step": step, "run": self.run}
        facts["digest"] = _facts_digest(facts)
        try:
            if step in manager.all_steps():  # a run killed after saving makes the same step again
                manager.delete(step)
            manager.save(
                step,
                args=ocp.args.Composite(
                    progress=ocp.args.JsonSave(facts),
                    **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
                ),
                force=True,
            )
            manager.wait_until_finished()
            self._check_saved(which, step, items)
            self._remove_older(which, step)
        except (OSError, ValueError, RuntimeError, _DamagedError) as error:
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to {self.folder / which} "
                f"({why(error)}); the one before is kept: make room, or make the folder writable, "
                "and run the same command again"
            ) from error

    def _check_saved(self, which: str, step: int, items: dict[str, PyTree]) -> None:
        _, facts = self._restore(which, step, items["variables"])
        for name in items.keys() - {"variables"}:
            self._restore_item(which, step, name, items[name], facts)

    def _remove_older(self, which: str, step: int) -> None:
        """Keeps the newest checkpoints up to the one just saved; later ones were not believed."""
        manager = self._managers[which]
        kept = sorted(s for s in manager.all_steps() if s <= step)[-_KEPT[which] :]
        for other in set(manager.all_steps()) - set(kept):
            manager.delete(other)

    def _restore(self, which: str, step: int, like: PyTree) -> tuple[PyTree, Progress]:
        try:
            args = ocp.args.Composite(progress=ocp.args.JsonRestore())
            facts = self._managers[which].restore(step, args=args)["progress"]
        except Exception as error:
            raise _DamagedError(f"progress cannot be read: {why(error)}") from error
        self._check_facts(facts, step)
        return self._restore_item(which, step, "variables", like, facts), facts

    def _check_facts(self, facts: Any, step: int) -> None:
        """Refuses progress that is not what was saved, that of another step, or another run's."""
        if not isinstance(facts, dict):
            raise _DamagedError("its progress is not what was saved")
        if facts.keys() == {"progress", "digests"}:  # of a version that had no digest of them
            return
        claimed = facts.get("digest")
        if claimed != _facts_digest({k: v for k, v in facts.items() if k != "digest"}):
            raise _DamagedError("its progress is not what was saved")
        if facts["step"] != step:
            raise _DamagedError(f"its folder is named {step}, and it is of step {facts['step']}")
        if self.run and facts["run"] and facts["run"] != self.run:
            raise _DamagedError("it was saved by a run with another configuration")

    def _restore_item(
        self, which: str, step: int, item: str, like: PyTree, progress: Progress
    ) -> PyTree:
        self._check_fit(which, step, item, like)
        try:
            arrays = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
            args = ocp.args.Composite(**{item: ocp.args.StandardRestore(arrays)})
            tree = self._managers[which].restore(step, args=args)[item]
        except Exception as error:
            raise _DamagedError(f"{item}: {type(error).__name__}: {why(error)}") from error
        if digest(tree) != progress["digests"].get(item):
            raise _DamagedError(f"{item}: its values are not the ones that were saved")
        if not is_finite(tree):
            raise _DamagedError(f"{item}: it holds numbers that are not finite")
        return jax.tree.map(jax.numpy.asarray, tree)

    def _check_fit(self, which: str, step: int, item: str, like: PyTree) -> None:
        """Compares names and shapes with the checkpoint's own metadata, before reading arrays."""
        folder = self.folder / which / str(step) / item
        try:
            with ocp.StandardCheckpointer() as reader:
                plain = self._plain.path / which / str(step) / item
                saved = reader.metadata(plain).item_metadata.tree
        except Exception as error:
            raise _DamagedError(f"{item}: metadata cannot be read: {why(error)}") from error
        have, want = _shapes(saved), _shapes(like)
        differ = [
            f"{name}: model {want.get(name, 'lacks it')}, checkpoint {have.get(name, 'lacks it')}"
            for name in sorted(have.keys() | want.keys())
            if have.get(name) != want.get(name)
        ]
        if differ:
            shown = "; ".join(differ[:5]) + (f"; and {len(differ) - 5} more" if differ[5:] else "")
            raise CheckpointError(f"checkpoint {folder} does not fit the model: {shown}")


class _DamagedError(Exception):
    """This checkpoint cannot be trusted; an older one may be intact."""


def digest(tree: PyTree) -> str:
    """Returns the SHA-256 of a tree's leaves: shapes, types and bytes, in tree order."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(leaf)
        sha.update(f"{array.shape}{array.dtype}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def is_finite(tree: PyTree) -> bool:
    """Returns whether all numbers of a tree are finite; a single number of a state may be infinite.

    The lowest loss so far is infinite before the first one.
    """
    numbers = [np.asarray(x) for x in jax.tree.leaves(tree)]
    real = [x for x in numbers if jax.numpy.issubdtype(x.dtype, np.inexact)]
    return all(np.isfinite(x).all() if x.ndim else not np.isnan(x) for x in real)


def why(error: BaseException) -> str:
    """Returns the reason of an error in one short line, without what a library says around it."""
    while error.__cause__ is not None and not isinstance(error, OSError):
        error = error.__cause__
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    told = " ".join(told.split())
    if "No space left on device" in told:  # among the names of a database and its files
        return os.strerror(errno.ENOSPC)
    return told if len(told) <= 200 else f"{told[:200]}..."


def _facts_digest(facts: Progress) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _manager(folder: Path, *, read_only: bool) -> ocp.CheckpointManager:
    process = jax.process_index()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=None,  # an older one goes when the new one has been read back
        create=False,
        read_only=read_only,
        enable_async_checkpointing=False,
        # Only one of the processes that train together has checkpoints: Orbax must not wait.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=process, active_processes={process}
        ),
    )
    return ocp.CheckpointManager(folder, options=options)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    # Orbax's metadata turns named tuples into dictionaries; compare by the bare names.
    name = lambda path: "/".join(str(_key(key)) for key in path)  # noqa: E731
    return {name(path): tuple(leaf.shape) for path, leaf in leaves}


def _key(entry: Any) -> Any:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return entry
