"""One training step on all devices: of this machine, and of others that were told to join.

The state is replicated, a batch is split along its images. The compiled step sees global arrays, so
that BatchNorm's statistics, loss and gradients are those of the whole batch, and the same code runs
on one device, on several, and on several machines.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

AXIS = "batch"
SHUTDOWN_SECONDS = 24 * 3600  # others wait for the first process, which evaluates at the end


class DevicesError(ValueError):
    """The devices cannot share the work as asked."""

    exit_code = 2


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the processes of one run; does nothing where none of the three is given.

    Args:
        coordinator: HOST:PORT at which process 0 is reached by all.
        processes: how many there are.
        process: which of them this is, 0 .. processes - 1.

    Raises:
        DevicesError: only some of the three are given, or the number is out of range.
    """
    given = (coordinator, processes, process)
    if all(value is None for value in given):
        return
    if coordinator is None or processes is None or process is None:
        raise DevicesError(
            "--coordinator, --processes and --process: expected all three or none, got "
            f"{', '.join(map(repr, given))}"
        )
    if not 0 <= process < processes:
        raise DevicesError(f"--process: expected 0 .. {processes - 1}, got {process}")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator, processes, process, shutdown_timeout_seconds=SHUTDOWN_SECONDS
    )


def is_first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def mesh(batch_size: int) -> Mesh:
    """Returns all devices of all processes on one axis.

    Raises:
        DevicesError: ``batch_size`` cannot be split into equal parts.
    """
    devices = jax.devices()
    if batch_size % len(devices):
        raise DevicesError(
            f"train.batch_size: expected a multiple of the {len(devices)} devices, got "
            f"{batch_size}; choose another one, or show JAX fewer devices"
        )
    return Mesh(np.array(devices), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(mesh: Mesh, tree: PyTree) -> PyTree:
    """Returns the tree with every array on every device."""
    return jax.tree.map(lambda x: _place(replicated(mesh), np.asarray(x)), tree)


def split(mesh: Mesh, batches: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Returns stacked batches [K, b, ...] with b split over the devices.

    Every process is given the whole batch and places the part of its own devices.
    """
    sharding = NamedSharding(mesh, PartitionSpec(None, AXIS))
    return {key: _place(sharding, x) for key, x in batches.items()}


def local(tree: PyTree) -> PyTree:
    """Returns a replicated tree as this process's first device holds it.

    Among several processes as NumPy arrays: there Orbax takes a device's array for a part of one.
    """
    several = jax.process_count() > 1
    held = jax.tree.map(lambda x: x.addressable_data(0), tree)
    return jax.tree.map(np.asarray, held) if several else held


def agree(number: int) -> int:
    """Returns the largest of the numbers that the processes call this with, at the same time."""
    if jax.process_count() == 1:
        return number
    return int(np.max(multihost_utils.process_allgather(np.array(number))))


def _place(sharding: NamedSharding, array: Any) -> jax.Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
