"""Data parallelism: every device holds the whole state, and the images of a batch are split.

The compiled step sees whole batches, wherever their parts lie, and XLA adds the exchange between
devices. So the statistics of BatchNorm, the loss and the gradients are those of the whole batch.
One device is a mesh of one.
"""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from msa_flax.files import UserError

AXIS = "batch"


class DevicesError(UserError):
    """The devices cannot share a batch equally."""


def mesh(batch_size: int) -> Mesh:
    """Returns the devices of all processes on one axis.

    Args:
        batch_size: images per step, on all devices together.

    Raises:
        DevicesError: ``batch_size`` is not a multiple of the number of devices.
    """
    devices = jax.devices()
    rest = batch_size % len(devices)
    if rest:
        close = f"{batch_size - rest + len(devices)}"
        if batch_size > len(devices):
            close = f"{batch_size - rest} or {close}"
        raise DevicesError(
            f"train.batch_size: expected a multiple of the {len(devices)} devices that share a "
            f"batch, got {batch_size}; use {close}, or show JAX fewer devices "
            "(CUDA_VISIBLE_DEVICES)"
        )
    return Mesh(np.array(devices), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(mesh: Mesh, tree: PyTree) -> PyTree:
    """Puts a tree of arrays, the same in every process, whole on every device."""
    return _place(tree, replicated(mesh))


def split(mesh: Mesh, batches: PyTree) -> PyTree:
    """Splits stacked batches [K, b, ...], the same in every process, along b.

    The transfer has ended on return: a computation that has to wait for its arguments is done in
    another thread.
    """
    placed: PyTree = jax.block_until_ready(
        _place(batches, NamedSharding(mesh, PartitionSpec(None, AXIS)))
    )
    return placed


def local(tree: PyTree) -> PyTree:
    """Returns a replicated tree as the first device of this process holds it, without a copy."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def _place(tree: PyTree, sharding: NamedSharding) -> PyTree:
    # Each process is given the whole array and takes the part of its own devices.
    place = jax.make_array_from_process_local_data
    return jax.tree.map(lambda x: place(sharding, x, np.shape(x)), tree)
