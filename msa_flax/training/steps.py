"""The pure steps of training and prediction: everything here is a function of its arguments.

One value, :class:`TrainState`, holds all that a training step changes. :func:`make_train_step`
makes the step ``(state, batch) -> (state, sums)``, and :func:`make_predict_step` makes
``(variables, images) -> logits``. They are compiled in :mod:`msa_flax.training.compile`
and :mod:`msa_flax.training.xla`.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PyTree, UInt8

from msa_flax.files import UserError
from msa_flax.training.xla import in_parts

Batch = dict[str, Any]  # arrays of NumPy or JAX
Inputs = UInt8[Array, "b h w"] | Float[Array, "b fh fw c"]  # grey images, or feature maps
Scale = Callable[[Any], Float[Array, "b h w c"]]  # Inputs to what the network takes
Sums = dict[str, Float[Array, ""]]  # over a batch: "loss", "correct" and "count"
ClassWeights = tuple[float, float]  # of label 0 (normal) and of label 1 (fracture)


class ClassWeightsError(UserError):
    """The labels give no class weights."""


@flax.struct.dataclass
class TrainState:
    """The state of a run after ``step`` steps; a pytree of arrays.

    Attributes:
        step: int32 [], how many steps are done.
        params: trainable parameters.
        batch_stats: running averages of the BatchNorm layers.
        opt_state: state of the optimiser.
    """

    step: Any  # Any, because jax.tree.map may put other things here
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree

    @property
    def variables(self) -> dict[str, PyTree]:
        """The variables of the model, as ``model.apply`` takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(variables: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """Builds the state before the first step from a model's variables."""
    variables = jax.tree.map(jnp.asarray, variables)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=jax.jit(optimizer.init)(params),  # compiled once, instead of once per shape
    )


def cross_entropy_sums(
    logits: Float[Array, " b"],
    labels: Float[Array | np.ndarray, " b"],
    weights: Float[Array | np.ndarray, " b"],
    *,
    class_weights: ClassWeights = (1.0, 1.0),
) -> Sums:
    """Returns sums over a batch: ``loss``, ``correct`` and ``count``.

    ``loss / count`` is the mean that is minimised: ``sum_i w_i c_i l_i / sum_i w_i``, where l_i is
    the binary cross-entropy (paper 1 §4), w_i the weight of the image and c_i that of its class. As
    with Keras's ``class_weight``, the class weights are not in the denominator.

    Args:
        logits: of the positive class.
        labels: 0 or 1.
        weights: 1, or 0 for an image that only fills up the batch.
        class_weights: change ``loss`` only.
    """
    positive = labels >= 0.5
    losses = optax.sigmoid_binary_cross_entropy(logits, labels) * weights
    if class_weights != (1.0, 1.0):
        losses = losses * jnp.where(positive, class_weights[1], class_weights[0])
    return {
        "loss": jnp.sum(losses),
        # A probability of 0.5 or more is predicted positive.
        "correct": jnp.sum(((logits >= 0) == positive) * weights),
        "count": jnp.sum(weights),
    }


def balanced_weights(labels: np.ndarray) -> ClassWeights:
    """Returns the class weights n / (2 n_k), which give both classes the same total weight.

    Their mean over the images is 1, so the loss keeps its scale (scikit-learn's "balanced").

    Args:
        labels: [n], 0 or 1, of the training images.

    Raises:
        ClassWeightsError: a class has no image.
    """
    positive = int(np.count_nonzero(np.asarray(labels) >= 0.5))
    negative = len(labels) - positive
    if not positive or not negative:
        raise ClassWeightsError(
            "optim.class_weights: 'balanced' needs training images of both classes, got "
            f"{negative} of label 0 and {positive} of label 1; use 'none' or another split"
        )
    return len(labels) / (2 * negative), len(labels) / (2 * positive)


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
    (0 for an image that only fills up the batch). It minimises the weighted mean of the binary
    cross-entropy (paper 1 §4) and returns the next state and :func:`cross_entropy_sums`.

    Args:
        model: a module with ``__call__`` and, for a frozen backbone, ``head``.
        optimizer: from :func:`~msa_flax.training.optim.create_optimizer`.
        scale: turns ``image`` into what the model takes.
        seed: of the dropout.
        freeze_backbone: whether the backbone stays as it is. The caller then computes its feature
            maps once and puts them into ``image``, float16 or float32 [b, fh, fw, c]; ``scale``
            only changes their type. The state holds the variables of the backbone all the same.
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
    """Turns a step into a function that takes the first ``count`` of K stacked batches.

    On a CPU, XLA allocates its temporary memory anew at every call, which costs up to a third of a
    step; a call that makes several steps pays for that once. The results are those of single steps.
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


def make_predict_step(
    model: nn.Module, scale: Scale, *, method: str | None = None
) -> Callable[[PyTree, Inputs], PyTree]:
    """Builds the pure prediction step: (variables, images uint8 [b, h, w]) -> logits [b].

    On a CPU the batch is computed a few images at a time (:func:`.xla.in_parts`); in inference mode
    no image influences the logit of another one.

    Args:
        model: the network.
        scale: turns the input into what the model takes.
        method: the method of the model to call, by default ``__call__``. "features" turns images
            into feature maps [b, fh, fw, c]; "describe" into logits and the means of these maps;
            "head" turns feature maps into logits, and computes the batch whole, because its
            activations are small.
    """

    def predict_step(variables: PyTree, inputs: Inputs) -> PyTree:
        def outputs(inputs: Array) -> PyTree:
            return model.apply(variables, scale(inputs), train=False, method=method)

        if method == "head":
            return outputs(inputs)
        return in_parts(outputs, inputs, model.at_once)

    return predict_step
