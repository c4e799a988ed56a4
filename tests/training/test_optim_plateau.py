"""The rate that falls on a plateau: Keras's callback, epoch by epoch."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from simulated_devices import run_on_four_devices

from msa_flax.config import OptimConfig
from msa_flax.training import optim
from msa_flax.training.optim import PlateauState, after_epoch, create_optimizer

RATE, EPOCHS = 1e-2, 30
CASES = list(itertools.product((1, 2, 3, 4), (0.1, 0.5), range(3)))  # patience, factor, seed


def configuration(**fields):
    return OptimConfig(name="sgd", learning_rate=RATE, schedule="plateau", **fields)


def losses_of(seed):
    """Validation losses that fall, stay and rise, by more and by less than the smallest gain."""
    rng = np.random.default_rng(seed)
    changes = rng.choice([-2e-2, -1.3e-4, -0.7e-4, 0.0, 0.7e-4, 5e-3], EPOCHS)
    return [float(loss) for loss in (0.7 + np.cumsum(changes)).astype(np.float32)]


def keras_rates(losses, patience, factor):
    import keras

    optimizer = keras.optimizers.SGD(RATE)
    callback = keras.callbacks.ReduceLROnPlateau(factor=factor, patience=patience)
    callback.set_model(SimpleNamespace(optimizer=optimizer))
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        yield float(optimizer.learning_rate.numpy())


def our_rates(losses, patience, factor):
    """The rate after each epoch, as the step against a gradient of one."""
    config = configuration(plateau_patience=patience, plateau_factor=factor)
    optimizer, one = create_optimizer(config, total_steps=1), {"w": jnp.ones(())}
    state = optimizer.init(one)
    for loss in losses:
        state = after_epoch(state, loss, config)
        updates, state = optimizer.update(one, state, one)
        yield -float(updates["w"])


@pytest.fixture(scope="module")
def keras_paths():
    return {case: list(keras_rates(losses_of(case[2]), *case[:2])) for case in CASES}


def equal(ours, expected):
    # float32; Keras rounds the rate at each reduction, we round the factor
    return np.allclose(ours, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_the_rates_are_those_of_keras(case, keras_paths):
    patience, factor, seed = case
    assert len(set(keras_paths[case])) > 2  # the sequence is awake
    assert equal(list(our_rates(losses_of(seed), patience, factor)), keras_paths[case])


def test_a_gain_too_small_to_count_is_seen_by_the_comparison(monkeypatch, keras_paths):
    monkeypatch.setattr(optim, "PLATEAU_MIN_DELTA", 0.0)
    assert not all(
        equal(list(our_rates(losses_of(case[2]), *case[:2])), keras_paths[case]) for case in CASES
    )


def test_a_longer_patience_is_seen_by_the_comparison(keras_paths):
    for patience, factor, seed in CASES:
        longer = list(our_rates(losses_of(seed), patience + 1, factor))
        assert not equal(longer, keras_paths[patience, factor, seed])


def test_a_loss_that_is_not_a_number_is_no_improvement():
    rates = list(our_rates([0.5, float("nan"), 0.4], 1, 0.5))
    np.testing.assert_allclose(rates, [RATE, RATE / 2, RATE / 2], rtol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_other_schedules_know_no_plateau(schedule):
    config = OptimConfig(schedule=schedule)
    state = create_optimizer(config, total_steps=10).init({"w": jnp.ones(2)})
    assert after_epoch(state, 1.0, config) is state
    leaves = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, PlateauState))
    assert not any(isinstance(leaf, PlateauState) for leaf in leaves)


def test_before_the_first_plateau_adam_takes_its_usual_steps():
    params = {"w": jnp.array([1.0, -2.0])}
    constant, plateau = (
        create_optimizer(OptimConfig(schedule=name), total_steps=10)
        for name in ("constant", "plateau")
    )
    expected, _ = constant.update(params, constant.init(params), params)
    updates, _ = plateau.update(params, plateau.init(params), params)
    np.testing.assert_array_equal(updates["w"], expected["w"])


def test_the_rate_of_a_frozen_backbones_head_falls_too():
    params = {"backbone": {"w": jnp.ones(3)}, "classifier": {"w": jnp.ones(2)}}
    config = configuration(plateau_patience=1, plateau_factor=0.25)
    optimizer = create_optimizer(config, total_steps=10, freeze_backbone=True)
    state = optimizer.init(params)
    for loss in (1.0, 1.0):
        state = after_epoch(state, loss, config)
    updates, _ = optimizer.update(params, state, params)
    np.testing.assert_allclose(updates["classifier"]["w"], -RATE / 4, rtol=1e-6)
    np.testing.assert_array_equal(updates["backbone"]["w"], 0)


# A compiled step takes arrays of the types, shapes and places that it was compiled for, no others.
SIMULATED = """
import json
import jax, jax.numpy as jnp, numpy as np
from msa_flax.config import OptimConfig
from msa_flax.training import devices, optim
from msa_flax.training.compile import compile_train_steps
from msa_flax.training.steps import TrainState, create_state

config = OptimConfig(
    name="sgd", learning_rate=1.0, schedule="plateau", plateau_patience=1, plateau_factor=0.5
)
optimizer = optim.create_optimizer(config, total_steps=9)
mesh, traced = devices.mesh(4), []


def step(state, batch):
    traced.append(1)
    gradients = {"w": jnp.mean(batch["x"], 0)}
    updates, opt_state = optimizer.update(gradients, state.opt_state)
    params = jax.tree.map(jnp.add, state.params, updates)
    sums = {key: jnp.sum(batch["x"]) for key in ("loss", "correct", "count")}
    return TrainState(state.step + 1, params, {}, opt_state), sums


train = compile_train_steps(step, mesh)
state = devices.replicate(mesh, create_state({"params": {"w": np.zeros(3, np.float32)}}, optimizer))
path, placed = [], []
for loss in (1.0, 1.0, 0.5, 0.5):
    state, _ = train(state, {"x": np.ones((1, 4, 3), np.float32)}, 1)
    path.append(float(state.params["w"][0]))
    kinds = [(x.shape, x.dtype, x.weak_type, x.sharding) for x in jax.tree.leaves(state)]
    state = state.replace(opt_state=optim.after_epoch(state.opt_state, loss, config))
    after = [(x.shape, x.dtype, x.weak_type, x.sharding) for x in jax.tree.leaves(state)]
    placed.append(kinds == after)
print(json.dumps([len(jax.devices()), path, placed, len(traced)]))
"""


def test_a_new_rate_needs_no_new_compilation_on_several_devices():
    count, path, placed, traced = run_on_four_devices(SIMULATED)
    assert count == 4
    assert path == [-1.0, -2.0, -2.5, -3.0]
    assert placed == [True] * 4
    assert traced == 1
