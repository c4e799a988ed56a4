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

from msa_flax.training.losses import ClassWeights, Sums, cross_entropy_sums
from msa_flax.training.memory import keep_memory, trim_memory
from msa_flax.training.state import TrainState

Batch = dict[str, Any]  # arrays of NumPy or JAX
Inputs = UInt8[Array, "b h w"] | Float[Array, "b fh fw c"]  # grey images, or feature maps
Scale = Callable[[Any], Float[Array, "b h w c"]]  # Inputs to what the network takes

CPU_PART = 4  # images at a time in prediction on a CPU


def compiler_options(*, many_branches: bool = False) -> dict[str, Any]:
    """Returns XLA options for the platform in use: wide vectors and Eigen's products on a CPU.

    Args:
        many_branches: whether the program has many parts that do not depend on each other. Ordered
            so that a CPU may compute them side by side, such a program now and then never ends in
            jaxlib 0.10.2: all threads wait. It is ordered for memory then.
    """
    if jax.default_backend() != "cpu":
        return {}
    options: dict[str, Any] = {"xla_cpu_prefer_vector_width": 512, "xla_cpu_use_xnnpack": False}
    if many_branches:
        options["xla_cpu_scheduler_type"] = "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
    return options


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    scale: Scale,
    *,
    seed: int,
    freeze_backbone: bool = False,
    class_weights: ClassWeights = (1.0, 1.0),
) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
    """Builds the pure training step.

    The step takes a batch of ``image`` uint8 [b, h, w], ``label`` 0 or 1 [b] and ``weight`` [b]
    (0 for an image that only fills the batch up), minimises the weighted mean of the binary
    cross-entropy (paper 1 §4), and returns the next state and the sums over the batch of
    :func:`~msa_flax.training.losses.cross_entropy_sums`.

    Args:
        model: with ``__call__`` and, for a frozen backbone, ``head``.
        optimizer: from :func:`~msa_flax.training.optim.create_optimizer`.
        scale: from the batch's ``image`` to what the model takes.
        seed: of the dropout.
        freeze_backbone: the backbone stays as it is, so what it computes is computed once, by the
            caller: ``image`` then holds its feature maps, float16 or float32 [b, fh, fw, c], and
            ``scale`` only changes their type. The state has the backbone's variables all the same.
        class_weights: of the labels 0 and 1 in the loss.
    """
    method = "head" if freeze_backbone else None

    def loss_fn(params: PyTree, state: TrainState, batch: Batch) -> tuple[Array, tuple[Any, Sums]]:
        dropout = jax.random.fold_in(jax.random.key(seed), state.step)
        logits, updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            scale(batch["image"]),
            train=True,
            method=method,
            rngs={"dropout": dropout},
            mutable=["batch_stats"],
        )
        sums = cross_entropy_sums(
            logits, batch["label"], batch["weight"], class_weights=class_weights
        )
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
    model: nn.Module, scale: Scale, *, method: str | None = None
) -> Callable[[PyTree, Inputs], Float[Array, "b ..."]]:
    """Builds the pure prediction step: (variables, images uint8 [b, h, w]) -> logits [b].

    On a CPU the batch is computed a few images at a time, whose activations stay in its cache: in
    inference mode no image influences another one's logit.

    Args:
        model: the network.
        scale: from the step's input to what the model takes.
        method: of the model, instead of its call. "features": images to feature maps
            [b, fh, fw, c]. "head": feature maps to logits, whose activations are small: the batch
            is computed whole.
    """

    def predict_step(variables: PyTree, inputs: Inputs) -> Float[Array, "b ..."]:
        def outputs(inputs: Array) -> Array:
            found: Array = model.apply(variables, scale(inputs), train=False, method=method)  # type: ignore[assignment]
            return found

        def in_parts(inputs: Array) -> Array:
            part = math.gcd(len(inputs), CPU_PART)
            found = lax.map(outputs, inputs.reshape(-1, part, *inputs.shape[1:]))
            return found.reshape(len(inputs), *found.shape[2:])

        if method == "head":
            return outputs(inputs)
        return lax.platform_dependent(inputs, cpu=in_parts, default=outputs)

    return predict_step


def compiled_predict_step(
    predict_step: Callable[[PyTree, Inputs], Float[Array, "b ..."]],
) -> Callable[[PyTree, Any], Float[Array, "b ..."]]:
    """Returns a step from :func:`make_predict_step`, compiled at the first call for its arguments.

    From the first call on this process keeps the memory that it frees.
    """
    compiled = jax.jit(predict_step, compiler_options=compiler_options())
    kept = False

    def predict(variables: PyTree, inputs: Any) -> Float[Array, "b ..."]:
        nonlocal kept
        if not kept:
            keep_memory()
            kept = True
        # In place before the call: what waits for its arguments is computed in another thread.
        found: Array = compiled(variables, jax.block_until_ready(jax.device_put(inputs)))
        return found

    return predict
