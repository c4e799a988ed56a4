"""Optimisers with Keras's arithmetic."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from msa_flax.config import OptimConfig

PLATEAU_MIN_DELTA = 1e-4  # a loss that is lower by no more is no improvement (Keras default)


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


class PlateauState(NamedTuple):
    """What :func:`scale_by_plateau` multiplies by, and what decides on it."""

    factor: Float[Array, ""]  # float32, of the learning rate
    best: Float[Array, ""]  # float32, the validation loss that was the last improvement
    waited: Int[Array, ""]  # int32, epochs since, or since the last reduction


def scale_by_plateau() -> optax.GradientTransformation:
    """Multiplies updates by a factor that only :func:`after_epoch` changes.

    The factor is part of the state, so a compiled step that takes the state follows it.
    """

    def init(params: PyTree) -> PlateauState:
        del params
        return PlateauState(
            factor=jnp.ones((), jnp.float32),
            best=jnp.full((), jnp.inf, jnp.float32),
            waited=jnp.zeros((), jnp.int32),
        )

    def update(
        updates: PyTree, state: PlateauState, params: PyTree | None = None
    ) -> tuple[PyTree, PlateauState]:
        del params
        return jax.tree.map(lambda u: u * state.factor.astype(u.dtype), updates), state

    return optax.GradientTransformation(init, update)


def after_epoch(opt_state: PyTree, loss: float, config: OptimConfig) -> PyTree:
    """Returns the optimiser's state for the next epoch: with a lower rate on a plateau.

    Does what ``keras.callbacks.ReduceLROnPlateau`` does, without cooldown and lowest rate (Keras
    defaults). Paper 2 (§V.B) has "a scheduler that dynamically adjusted the learning rate" and says
    no more. Shapes, types and placement of the state stay as they are, so nothing is recompiled.

    Args:
        opt_state: of an optimiser from :func:`create_optimizer`.
        loss: the epoch's validation loss, the same in every process; NaN is no improvement.
        config: schedule ("plateau", otherwise nothing changes), ``plateau_factor``,
            ``plateau_patience``.
    """
    if config.schedule != "plateau":
        return opt_state
    return jax.tree.map(
        lambda x: _judged(x, loss, config) if isinstance(x, PlateauState) else x,
        opt_state,
        is_leaf=lambda x: isinstance(x, PlateauState),
    )


def _judged(state: PlateauState, loss: float, config: OptimConfig) -> PlateauState:
    # Computed from the old arrays, so that the new ones lie on the same devices. Keras, too,
    # compares in float32.
    improved = state.best > np.float32(loss + PLATEAU_MIN_DELTA)
    waited = jnp.where(improved, 0, state.waited + 1)
    reduced = waited >= config.plateau_patience
    return PlateauState(
        factor=jnp.where(reduced, state.factor * config.plateau_factor, state.factor),
        best=jnp.where(improved, np.float32(loss), state.best),
        waited=jnp.where(reduced, 0, waited),
    )


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
    parts = [optax.scale_by_learning_rate(schedule)]
    if config.name == "adam":
        parts.insert(0, scale_by_keras_adam(epsilon=config.epsilon))
    if config.schedule == "plateau":
        parts.append(scale_by_plateau())
    optimizer = optax.chain(*parts) if len(parts) > 1 else parts[0]
    if not freeze_backbone:
        return optimizer

    def labels(params: dict[str, Any]) -> dict[str, str]:
        return {key: "frozen" if key == "backbone" else "trained" for key in params}

    return optax.multi_transform({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)
