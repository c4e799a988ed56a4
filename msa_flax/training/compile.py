"""Compiling: the one place where the step of training meets ``jax.jit``."""

import logging
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from msa_flax.training.devices import replicated, split
from msa_flax.training.steps import Batch, Sums, TrainState, repeat
from msa_flax.training.xla import compiler_options, keep_memory, trim_memory

log = logging.getLogger("msa_flax")


def compile_train_steps(
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Sums]], mesh: Mesh
) -> Callable[[TrainState, Batch, Any], tuple[TrainState, Sums]]:
    """Returns the function (state, stacked batches, count) -> (state, sums) that training calls.

    It is compiled at its first call, for arguments like those. The state given to it is used up:
    its memory becomes that of the new state. Batches come as NumPy arrays and are split among the
    devices; states and sums are whole on each of them.

    Args:
        train_step: from :func:`~msa_flax.training.steps.make_train_step`.
        mesh: the devices, from :func:`msa_flax.training.devices.mesh`.
    """
    steps = jax.jit(
        repeat(train_step),
        donate_argnums=0,
        out_shardings=replicated(mesh),
        compiler_options=compiler_options(),
    )
    compiled: Any = None

    def train_steps(state: TrainState, batches: Batch, count: Any) -> tuple[TrainState, Sums]:
        nonlocal compiled
        placed = split(mesh, batches)
        if compiled is None:
            log.info("compiling the training step")
            compiled = steps.lower(state, placed, count).compile()
            trim_memory()
            keep_memory()
        outputs: tuple[TrainState, Sums] = compiled(state, placed, count)
        return outputs

    return train_steps
