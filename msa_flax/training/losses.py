"""What is minimised: the binary cross-entropy, weighted by image and by class."""

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from msa_flax.files import UserError

Sums = dict[str, Float[Array, ""]]
ClassWeights = tuple[float, float]  # of label 0 (normal) and of label 1 (fracture)


class ClassWeightsError(UserError):
    """The labels give no class weights."""


def cross_entropy_sums(
    logits: Float[Array, " b"],
    labels: Float[Array | np.ndarray, " b"],
    weights: Float[Array | np.ndarray, " b"],
    *,
    class_weights: ClassWeights = (1.0, 1.0),
) -> Sums:
    """Returns sums over a batch: ``loss``, ``correct`` and ``count``.

    ``loss / count`` is the mean that is minimised: ``sum_i w_i c_i l_i / sum_i w_i``, where l_i is
    the binary cross-entropy (paper 1 §4), w_i the image's weight and c_i its class's. As with
    Keras's ``class_weight``, the class weights are not in the denominator.

    Args:
        logits: of the positive class.
        labels: 0 or 1.
        weights: 1, or 0 for an image that only fills the batch up.
        class_weights: they change ``loss`` alone.
    """
    positive = labels >= 0.5
    losses = optax.sigmoid_binary_cross_entropy(logits, labels) * weights
    if class_weights != (1.0, 1.0):
        losses = losses * jnp.where(positive, class_weights[1], class_weights[0])
    return {
        "loss": jnp.sum(losses),
        # A probability of 0.5 and above is called positive.
        "correct": jnp.sum(((logits >= 0) == positive) * weights),
        "count": jnp.sum(weights),
    }


def balanced_weights(labels: np.ndarray) -> ClassWeights:
    """Returns the class weights n / (2 n_k), with which both classes weigh as much in the loss.

    Their mean over the images is 1, so the loss keeps its scale (scikit-learn's "balanced").

    Args:
        labels: of the training images, [n], 0 or 1.

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
