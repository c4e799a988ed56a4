"""Adam against Keras's own optimiser, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from msa_flax.config import OptimConfig
from msa_flax.training.optim import create_optimizer, scale_by_keras_adam

STEPS = 6


@pytest.fixture(scope="module")
def keras_path():
    """Parameters after each step of Keras's Adam, with gradients from large to tiny."""
    import keras

    rng = np.random.default_rng(0)
    start = rng.standard_normal(8).astype(np.float32)
    # At 1e-6 and below, where epsilon is placed decides the step.
    gradients = [
        (rng.standard_normal(8) * np.logspace(0, -7, 8)).astype(np.float32) for _ in range(STEPS)
    ]
    variable = keras.Variable(start)
    adam = keras.optimizers.Adam(learning_rate=1e-3)
    adam.build([variable])
    path = []
    for gradient in gradients:
        adam.apply([gradient], [variable])
        path.append(np.array(variable.numpy()))
    return start, gradients, path


def walk(optimizer, start, gradients):
    params = {"w": jnp.asarray(start)}
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update({"w": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        yield np.asarray(params["w"])


def test_adam_is_keras_adam(keras_path):
    start, gradients, expected = keras_path
    ours = walk(create_optimizer(OptimConfig(), total_steps=100), start, gradients)
    for got, want in zip(ours, expected, strict=True):
        # steps of 1e-3; float32 arithmetic in another order moves them by parts in 10^5
        np.testing.assert_allclose(got - start, want - start, rtol=1e-3, atol=1e-7)


def test_optax_adam_with_keras_epsilon_is_not_keras_adam(keras_path):
    start, gradients, expected = keras_path
    other = list(walk(optax.adam(1e-3, eps=1e-7), start, gradients))
    assert np.abs(other[0] - expected[0]).max() > 1e-4


def test_moments_of_mu_and_nu_do_not_share_memory():
    state = scale_by_keras_adam(epsilon=1e-7).init({"w": jnp.ones(3)})
    assert state.mu["w"] is not state.nu["w"]  # donating one buffer twice is an error


def test_a_frozen_backbone_is_left_alone_and_has_no_moments():
    params = {"backbone": {"w": jnp.ones(3)}, "classifier": {"w": jnp.ones(2)}}
    optimizer = create_optimizer(OptimConfig(), total_steps=100, freeze_backbone=True)
    state = optimizer.init(params)
    updates, _ = optimizer.update(params, state, params)
    assert np.all(updates["backbone"]["w"] == 0)
    assert np.all(updates["classifier"]["w"] != 0)
    sizes = [leaf.size for leaf in jax.tree.leaves(state)]
    assert 3 not in sizes


def test_sgd_steps_against_the_gradient():
    optimizer = create_optimizer(OptimConfig(name="sgd", learning_rate=0.5), total_steps=100)
    params = {"w": jnp.array([1.0])}
    updates, _ = optimizer.update({"w": jnp.array([2.0])}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], [-1.0])


def test_the_cosine_schedule_ends_at_zero_and_the_constant_one_does_not():
    gradients = [np.ones(1, np.float32)] * 11
    cosine = create_optimizer(OptimConfig(name="sgd", schedule="cosine"), total_steps=10)
    path = list(walk(cosine, np.zeros(1, np.float32), gradients))
    steps = -np.diff([0.0, *(p[0] for p in path)])
    expected = 1e-3 * 0.5 * (1 + np.cos(np.pi * np.minimum(np.arange(11), 10) / 10))
    np.testing.assert_allclose(steps, expected, atol=1e-8)  # float32 sums of 1e-3
