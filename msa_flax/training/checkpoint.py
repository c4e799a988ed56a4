"""Checkpoints of a run, kept by Orbax and verified by a digest of their own.

``checkpoints/last/<step>`` holds everything that a run needs to continue, and
``checkpoints/best/<step>`` the variables with the lowest validation loss. Orbax writes a checkpoint
under a temporary name and renames it, so a killed run leaves whole checkpoints only. But Orbax does
not notice a bit that is flipped later on the disk; so a digest is stored and compared.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from msa_flax.files import UserError
from msa_flax.training.steps import TrainState

Progress = dict[str, Any]  # what the loop keeps beside the state: plain JSON values
log = logging.getLogger("msa_flax")


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or does not fit the model."""


class Checkpoints:
    """The two series of checkpoints in one workdir.

    Attributes:
        folder: the folder ``checkpoints`` of the workdir.
    """

    def __init__(self, workdir: Path, *, read_only: bool = False) -> None:
        self.folder = Path(workdir).absolute() / "checkpoints"
        self._managers = {
            # The last two, so that damage to the newest one costs an epoch and not the run.
            "last": _manager(self.folder / "last", keep=2, read_only=read_only),
            "best": _manager(self.folder / "best", keep=1, read_only=read_only),
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
                damaged.append(f"{self.folder / f'last/{step}'}: {error}")
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
                f"no intact checkpoint is left ({'; '.join(damaged)}); start in a new workdir"
            )
        return None

    def restore_variables(self, which: str, like: PyTree) -> tuple[PyTree, int]:
        """Restores the variables of the "best" or "last" checkpoint, and says of which step.

        Raises:
            CheckpointError: no checkpoint, a damaged one, or one that does not fit ``like``.
        """
        steps = sorted(self._managers[which].all_steps())
        if not steps:
            raise CheckpointError(
                f"expected a {which!r} checkpoint in {self.folder}, found none; train this workdir "
                "first"
            )
        try:
            variables, _ = self._restore(which, steps[-1], like)
        except _DamagedError as error:
            raise CheckpointError(
                f"checkpoint {self.folder / which / str(steps[-1])} is damaged ({error}); use the "
                "other one (--checkpoint best|last) or train again"
            ) from error
        return variables, steps[-1]

    def _save(
        self, which: str, step: int, progress: Progress, variables: PyTree, optimizer: PyTree | None
    ) -> None:
        manager = self._managers[which]
        items = {"variables": variables} | ({"optimizer": optimizer} if optimizer else {})
        items = jax.device_get(items)  # a checkpoint does not depend on devices and processes
        digests = {name: digest(tree) for name, tree in items.items()}
        if step in manager.all_steps():  # a run killed after saving makes the same step again
            manager.delete(step)
        manager.save(
            step,
            args=ocp.args.Composite(
                progress=ocp.args.JsonSave({"progress": progress, "digests": digests}),
                **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
            ),
            force=True,
        )
        manager.wait_until_finished()

    def _restore(self, which: str, step: int, like: PyTree) -> tuple[PyTree, Progress]:
        try:
            args = ocp.args.Composite(progress=ocp.args.JsonRestore())
            progress = self._managers[which].restore(step, args=args)["progress"]
        except Exception as error:
            raise _DamagedError(f"progress cannot be read: {error}") from error
        return self._restore_item(which, step, "variables", like, progress), progress

    def _restore_item(
        self, which: str, step: int, item: str, like: PyTree, progress: Progress
    ) -> PyTree:
        folder = self.folder / which / str(step) / item
        self._check_fit(folder, like)
        try:
            arrays = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
            args = ocp.args.Composite(**{item: ocp.args.StandardRestore(arrays)})
            tree = self._managers[which].restore(step, args=args)[item]
        except Exception as error:
            raise _DamagedError(f"{folder}: {type(error).__name__}: {error}") from error
        if digest(tree) != progress["digests"][item]:
            raise _DamagedError(f"{folder}: its values are not the ones that were saved")
        return jax.tree.map(jax.numpy.asarray, tree)

    def _check_fit(self, folder: Path, like: PyTree) -> None:
        """Compares names and shapes with the checkpoint's own metadata, before reading arrays."""
        try:
            with ocp.StandardCheckpointer() as reader:
                saved = reader.metadata(folder).item_metadata.tree
        except Exception as error:
            raise _DamagedError(f"{folder}: metadata cannot be read: {error}") from error
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


def _manager(folder: Path, *, keep: int, read_only: bool) -> ocp.CheckpointManager:
    if not read_only:
        folder.mkdir(parents=True, exist_ok=True)
    process = jax.process_index()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=None if read_only else keep,
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
