"""The pure steps: one training step, many training steps in one dispatch, one prediction."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PyTree, UInt8

from msa_flax.training.memory import keep_memory, trim_memory
from msa_flax.training.state import TrainState

Batch = dict[str, Any]  # arrays of NumPy or JAX
Sums = dict[str, Float[Array, ""]]
Scale = Callable[[UInt8[Array, "b h w"]], Float[Array, "b h w 3"]]

CPU_PART = 4  # images at a time in prediction on a CPU


def compiler_options() -> dict[str, Any]:
    """Returns XLA options for the platform in use: wide vectors and Eigen's products on a CPU."""
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_cpu_prefer_vector_width": 512, "xla_cpu_use_xnnpack": False}


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    scale: Scale,
    *,
    seed: int,
    freeze_backbone: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
    """Builds the pure training step.

    The step takes a batch of ``image`` uint8 [b, h, w], ``label`` 0 or 1 [b] and ``weight`` [b]
    (0 for an image that only fills the batch up), minimises the weighted mean of the binary
    cross-entropy (paper 1 §4), and returns the next state and sums over the batch: ``loss``,
    ``correct`` (probability >= 0.5 is called positive) and ``count``.
    """

    def loss_fn(params: PyTree, state: TrainState, batch: Batch) -> tuple[Array, tuple[Any, Sums]]:
        dropout = jax.random.fold_in(jax.random.key(seed), state.step)
        logits, updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            scale(batch["image"]),
            train=True,
            freeze_backbone=freeze_backbone,
            rngs={"dropout": dropout},
            mutable=["batch_stats"],
        )
        losses = optax.sigmoid_binary_cross_entropy(logits, batch["label"])
        correct = (logits >= 0) == (batch["label"] >= 0.5)
        weight = batch["weight"]
        sums = {
            "loss": jnp.sum(losses * weight),
            "correct": jnp.sum(correct * weight),
            "count": jnp.sum(weight),
        }
        return sums["loss"] / sums["count"], (updated["batch_stats"], sums)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        gradients, (batch_stats, sums) = jax.grad(loss_fn, has_aux=True)(state.params, state, batch)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, batch_stats, opt_state), sums

    return train_step


def repeat(
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Sums]],
) -> Callable[[TrainState, Batch, Int[Array, ""]], tuple[TrainState, Sums]]:
    """Turns a step into a function that does the first ``count`` of K stacked batches.

    XLA's CPU client allocates its temporaries anew at every execution, which costs up to a third
    of a step; one dispatch of several steps pays that once. The results are those of single steps.
    """

    def train_steps(
        state: TrainState, batches: Batch, count: Int[Array, ""]
    ) -> tuple[TrainState, Sums]:
        def body(i: Array, carry: tuple[TrainState, Sums]) -> tuple[TrainState, Sums]:
            state, totals = carry
            batch = {key: lax.dynamic_index_in_dim(x, i, 0, False) for key, x in batches.items()}
            state, sums = train_step(state, batch)
            return state, jax.tree.map(jnp.add, totals, sums)

        zeros = {key: jnp.zeros((), jnp.float32) for key in ("loss", "correct", "count")}
        return lax.fori_loop(0, count, body, (state, zeros))

    return train_steps


def compiled_train_steps(
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Sums]],
    sharding: jax.sharding.Sharding | None = None,
) -> Callable[[TrainState, Batch, Any], tuple[TrainState, Sums]]:
    """Returns ``repeat(train_step)``, compiled at the first call for arguments like its own.

    The state given to it is used up (donated). The compiler's memory is given back before the first
    step is made, and from then on this process keeps what it frees.

    Args:
        train_step: from :func:`make_train_step`.
        sharding: of the new state and the sums; default is what XLA chooses.
    """
    steps = jax.jit(
        repeat(train_step),
        donate_argnums=0,
        out_shardings=sharding,
        compiler_options=compiler_options(),
    )
    compiled: Any = None

    def train_steps(state: TrainState, batches: Batch, count: Any) -> tuple[TrainState, Sums]:
        nonlocal compiled
        if compiled is None:
            compiled = steps.lower(state, batches, count).compile()
            trim_memory()
            keep_memory()
        found: tuple[TrainState, Sums] = compiled(state, batches, count)
        return found

    return train_steps


def make_predict_step(
    model: nn.Module, scale: Scale
) -> Callable[[PyTree, UInt8[Array, "b h w"]], Float[Array, " b"]]:
    """Builds the pure prediction step: (variables, images uint8 [b, h, w]) -> logits [b].

    On a CPU the batch is computed a few images at a time, whose activations stay in its cache: in
    inference mode no image influences another one's logit.
    """

    def predict_step(variables: PyTree, images: UInt8[Array, "b h w"]) -> Float[Array, " b"]:
        def logits(images: Array) -> Array:
            found: Array = model.apply(variables, scale(images), train=False)  # type: ignore[assignment]
            return found

        def in_parts(images: Array) -> Array:
            part = math.gcd(len(images), CPU_PART)
            parts = images.reshape(-1, part, *images.shape[1:])
            return lax.map(logits, parts).reshape(-1)

        return lax.platform_dependent(images, cpu=in_parts, default=logits)

    return predict_step
