"""Optimisers that compute what those of Keras compute.

``optax.contrib.reduce_on_plateau`` is not used: it judges a loss at every training step, and not
the validation loss after every epoch.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from msa_flax.config import OptimConfig

DECAYS = (0.9, 0.999)  # of the first and second moment in Adam (Keras defaults)
PLATEAU_MIN_DELTA = 1e-4  # a loss that is lower by less is no improvement (Keras default)


class KerasAdamState(NamedTuple):
    """Adam's step count and moments."""

    count: Int[Array, ""]  # type: ignore[assignment]  # shadows tuple.count, as in optax
    mu: PyTree
    nu: PyTree


def scale_by_keras_adam(epsilon: float) -> optax.GradientTransformation:
    """Rescales gradients as ``keras.optimizers.Adam`` does.

    Keras uses the "epsilon hat" form of Kingma & Ba 2015 (§2, last paragraph): with moments m, v
    and t steps done, ``u = m * sqrt(1 - b2^t) / (1 - b1^t) / (sqrt(v) + epsilon)``, where the
    decays b1 and b2 are 0.9 and 0.999. optax and PyTorch correct v before they add epsilon. So at
    the first step the epsilon of Keras has the effect of one 32 times larger. That matters for
    small gradients, which are the rule in a pretrained network.

    Args:
        epsilon: Keras default 1e-7.
    """

    def init(params: PyTree) -> KerasAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return KerasAdamState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.copy, zeros))

    def update(
        gradients: PyTree, state: KerasAdamState, params: PyTree | None = None
    ) -> tuple[PyTree, KerasAdamState]:
        del params
        b1, b2 = DECAYS
        count = state.count + 1
        t = count.astype(jnp.float32)
        correction: Float[Array, ""] = jnp.sqrt(1 - b2**t) / (1 - b1**t)
        mu = jax.tree.map(lambda m, g: m + (g - m) * (1 - b1), state.mu, gradients)
        nu = jax.tree.map(lambda v, g: v + (g * g - v) * (1 - b2), state.nu, gradients)
        updates = jax.tree.map(lambda m, v: m * correction / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, KerasAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


class PlateauState(NamedTuple):
    """The factor of :func:`scale_by_plateau`, and what it is decided by."""

    factor: Float[Array, ""]  # float32, multiplies the learning rate
    best: Float[Array, ""]  # float32, the validation loss at the last improvement
    waited: Int[Array, ""]  # int32, epochs since then, or since the last reduction


def scale_by_plateau() -> optax.GradientTransformation:
    """Multiplies updates by a factor that only :func:`after_epoch` changes.

    The factor is part of the state, so that a compiled step, which takes the state, follows it.
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

    It does what ``keras.callbacks.ReduceLROnPlateau`` does, without a cooldown and a lowest rate
    (Keras defaults). Paper 2 (§V.B) says only that it has "a scheduler that dynamically adjusted
    the learning rate". Shapes, types and placement of the state stay the same, so nothing is
    compiled again.

    Args:
        opt_state: of an optimiser from :func:`create_optimizer`.
        loss: the validation loss of the epoch, the same in every process; NaN is no improvement.
        config: ``schedule`` (where it is not "plateau", nothing changes), ``plateau_factor`` and
            ``plateau_patience``.
    """
    if config.schedule != "plateau":
        return opt_state
    return jax.tree.map(
        lambda x: _next_plateau(x, loss, config) if isinstance(x, PlateauState) else x,
        opt_state,
        is_leaf=lambda x: isinstance(x, PlateauState),
    )


def _next_plateau(state: PlateauState, loss: float, config: OptimConfig) -> PlateauState:
    # Computed from the old arrays, so that the new ones are on the same devices. Keras compares in
    # float32, too.
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
        freeze_backbone: whether parameters under ``backbone`` stay as they are; they then have no
            moments.
    """
    schedule: optax.ScalarOrSchedule = config.learning_rate
    if config.schedule == "cosine":
        schedule = optax.cosine_decay_schedule(config.learning_rate, total_steps)
    parts = [optax.scale_by_learning_rate(schedule)]
    if config.name == "adam":
        parts.insert(0, scale_by_keras_adam(config.epsilon))
    if config.schedule == "plateau":
        parts.append(scale_by_plateau())
    optimizer = optax.chain(*parts) if len(parts) > 1 else parts[0]
    if not freeze_backbone:
        return optimizer

    def labels(params: dict[str, Any]) -> dict[str, str]:
        return {key: "frozen" if key == "backbone" else "trained" for key in params}

    return optax.multi_transform({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)
