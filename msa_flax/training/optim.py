"""Optimisers with Keras's arithmetic."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from msa_flax.config import OptimConfig


class KerasAdamState(NamedTuple):
    """Adam's step count and moments."""

    count: Int[Array, ""]  # type: ignore[assignment]  # shadows tuple.count, as in optax
    mu: PyTree
    nu: PyTree


def scale_by_keras_adam(
    *, epsilon: float, b1: float = 0.9, b2: float = 0.999
) -> optax.GradientTransformation:
    """Rescales gradients as ``keras.optimizers.Adam`` does.

    Keras uses the "epsilon hat" form of Kingma & Ba 2015 (§2, last paragraph): with moments m, v
    and t steps done, ``u = m * sqrt(1 - b2^t) / (1 - b1^t) / (sqrt(v) + epsilon)``. optax and
    PyTorch correct v before adding epsilon, so that at the first step Keras's epsilon acts 32 times
    larger; small gradients, the rule in a pretrained network, are where they differ.

    Args:
        epsilon: Keras default 1e-7.
        b1: decay of the first moment (Keras default).
        b2: decay of the second moment (Keras default).
    """

    def init(params: PyTree) -> KerasAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return KerasAdamState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.copy, zeros))

    def update(
        gradients: PyTree, state: KerasAdamState, params: PyTree | None = None
    ) -> tuple[PyTree, KerasAdamState]:
        del params
        count = state.count + 1
        t = count.astype(jnp.float32)
        correction: Float[Array, ""] = jnp.sqrt(1 - b2**t) / (1 - b1**t)
        mu = jax.tree.map(lambda m, g: m + (g - m) * (1 - b1), state.mu, gradients)
        nu = jax.tree.map(lambda v, g: v + (g * g - v) * (1 - b2), state.nu, gradients)
        updates = jax.tree.map(lambda m, v: m * correction / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, KerasAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def create_optimizer(
    config: OptimConfig, *, total_steps: int, freeze_backbone: bool = False
) -> optax.GradientTransformation:
    """Builds the optimiser for a parameter tree with the top-level key ``backbone``.

    Args:
        config: name, learning rate, epsilon, schedule.
        total_steps: steps of the whole run, over which a schedule extends.
        freeze_backbone: parameters under ``backbone`` are left as they are and have no moments.
    """
    schedule: optax.ScalarOrSchedule = config.learning_rate
    if config.schedule == "cosine":
        schedule = optax.cosine_decay_schedule(config.learning_rate, total_steps)
    rate = optax.scale_by_learning_rate(schedule)
    optimizer = (
        optax.chain(scale_by_keras_adam(epsilon=config.epsilon), rate)
        if config.name == "adam"
        else rate
    )
    if not freeze_backbone:
        return optimizer

    def labels(params: dict[str, Any]) -> dict[str, str]:
        return {key: "frozen" if key == "backbone" else "trained" for key in params}

    return optax.multi_transform({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)
