"""The training loss with class weights, against Keras and against float64 arithmetic."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from msa_flax.training.steps import (
    ClassWeightsError,
    balanced_weights,
    create_state,
    cross_entropy_sums,
    make_train_step,
)

WEIGHTS = (0.6, 2.5)


class Dense(nn.Module):
    """The smallest network with a training mode."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(1, name="dense")(x)[:, 0]


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.standard_normal((7, 3)).astype(np.float32),
        "label": np.array([0, 1, 0, 0, 1, 0, 0], np.float32),
        "weight": np.ones(7, np.float32),
    }


def step_of_one(batch, class_weights):
    """Returns kernel, bias and loss after a step against the gradient, from zeros."""
    optimizer, zeros = optax.sgd(1.0), {"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}
    step = make_train_step(Dense(), optimizer, jnp.asarray, seed=0, class_weights=class_weights)
    state, sums = step(create_state({"params": {"dense": zeros}}, optimizer), batch)
    dense = state.params["dense"]
    return dense["kernel"], dense["bias"], sums["loss"] / sums["count"]


@pytest.fixture(scope="module")
def keras_step(batch):
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(1.0), keras.losses.BinaryCrossentropy(from_logits=True))
    weights = dict(enumerate(WEIGHTS))
    loss = model.train_on_batch(batch["image"], batch["label"], class_weight=weights)
    return (*model.get_weights(), loss)


def test_a_step_with_class_weights_is_that_of_keras(batch, keras_step):
    for ours, expected in zip(step_of_one(batch, WEIGHTS), keras_step, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)  # float32


@pytest.mark.parametrize("wrong", [(1.0, 1.0), WEIGHTS[::-1]])
def test_other_class_weights_give_another_step(batch, keras_step, wrong):
    for ours, expected in zip(step_of_one(batch, wrong), keras_step, strict=True):
        assert np.abs(ours - expected).max() > 1e-2


def test_the_sums_are_those_worked_out_by_hand(batch):
    rng = np.random.default_rng(1)
    logits, weights = rng.standard_normal(7), np.array([1, 1, 0, 1, 0.5, 1, 1])
    sums = cross_entropy_sums(
        jnp.asarray(logits, jnp.float32),
        batch["label"],
        weights.astype(np.float32),
        class_weights=WEIGHTS,
    )
    label = batch["label"].astype(np.float64)
    p = 1 / (1 + np.exp(-logits))
    losses = -label * np.log(p) - (1 - label) * np.log(1 - p)
    by_class = np.where(label == 1, WEIGHTS[1], WEIGHTS[0])
    np.testing.assert_allclose(sums["loss"], np.sum(weights * by_class * losses), rtol=1e-6)
    np.testing.assert_allclose(sums["correct"], np.sum(weights * ((p >= 0.5) == label)))
    np.testing.assert_allclose(sums["count"], weights.sum())


def test_class_weights_of_one_change_no_bit_of_a_step(batch):
    def loss(params):
        logits = Dense().apply({"params": params}, batch["image"], train=True)
        losses = optax.sigmoid_binary_cross_entropy(logits, batch["label"])
        return jnp.sum(losses * batch["weight"]) / jnp.sum(batch["weight"])

    zeros = {"dense": {"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}}
    before = jax.tree.map(jnp.negative, jax.grad(loss)(zeros))["dense"]
    kernel, bias, mean = step_of_one(batch, (1.0, 1.0))
    np.testing.assert_array_equal(kernel, before["kernel"])
    np.testing.assert_array_equal(bias, before["bias"])
    np.testing.assert_array_equal(mean, loss(zeros))


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 1, 0, 0, 1, 0, 0, 0, 0], np.int64)
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    assert balanced_weights(labels) == pytest.approx(tuple(expected), rel=1e-12)
    assert np.mean(np.take(balanced_weights(labels), labels)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("labels", "counts"),
    [([0, 0, 0], "3 of label 0 and 0 of label 1"), ([1], "0 of label 0 and 1 of label 1")],
)
def test_balance_needs_both_classes(labels, counts):
    with pytest.raises(ClassWeightsError, match=counts) as caught:
        balanced_weights(np.array(labels))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
