"""Everything a training step changes, in one value."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree


@flax.struct.dataclass
class TrainState:
    """The state of a run after ``step`` steps; a pytree of arrays.

    Attributes:
        step: number of steps done.
        params: trainable parameters.
        batch_stats: running averages of the BatchNorm layers.
        opt_state: state of the optimiser.
    """

    step: Any  # int32 []; jax.tree.map may put other things here
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree

    @property
    def variables(self) -> dict[str, PyTree]:
        """What ``model.apply`` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(variables: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """Builds the state before the first step from a model's variables."""
    variables = jax.tree.map(jnp.asarray, variables)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=jax.jit(optimizer.init)(params),  # one compilation, not one a shape
    )
