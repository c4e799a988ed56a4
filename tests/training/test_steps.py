import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from msa_flax.config import OptimConfig
from msa_flax.models import scale_images
from msa_flax.training.optim import create_optimizer
from msa_flax.training.state import create_state
from msa_flax.training.steps import (
    compiled_train_steps,
    make_predict_step,
    make_train_step,
    repeat,
)

scale = functools.partial(scale_images, preprocess="paper", backbone="mobilenet_v1")


def batch_of(rng, lead=(), size=4):
    return {
        "image": jnp.asarray(rng.integers(0, 256, (*lead, size, 16, 16), dtype=np.uint8)),
        "label": jnp.asarray(rng.integers(0, 2, (*lead, size)), jnp.float32),
        "weight": jnp.ones((*lead, size), jnp.float32),
    }


@pytest.fixture
def setting(small_classifier):
    model = small_classifier()
    optimizer = create_optimizer(OptimConfig(learning_rate=0.05), total_steps=100)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    return model, optimizer, create_state(variables, optimizer)


def close(a, b, **tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), a, b)


def test_a_step_is_the_gradient_of_the_mean_cross_entropy(setting):
    model, _, state = setting
    optimizer = optax.sgd(1.0)
    state = create_state(state.variables, optimizer)
    batch = batch_of(np.random.default_rng(0))

    def loss(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, _ = model.apply(
            variables, scale(batch["image"]), train=True, mutable=["batch_stats"]
        )
        p = jax.nn.sigmoid(logits)
        y = batch["label"]
        return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))

    new, sums = make_train_step(model, optimizer, scale, seed=0)(state, batch)
    gradients = jax.tree.map(jnp.subtract, state.params, new.params)
    close(gradients, jax.grad(loss)(state.params), rtol=1e-4, atol=1e-6)  # float32
    np.testing.assert_allclose(sums["loss"] / sums["count"], loss(state.params), rtol=1e-5)
    assert new.step == 1


def test_several_steps_in_one_dispatch_are_the_single_steps(setting):
    model, optimizer, state = setting
    batches = batch_of(np.random.default_rng(0), lead=(4,))
    step = make_train_step(model, optimizer, scale, seed=0)
    dispatched, sums = jax.jit(repeat(step))(state, batches, 3)  # the fourth is filler
    total = 0.0
    for i in range(3):
        state, one = jax.jit(step)(state, {key: x[i] for key, x in batches.items()})
        total += float(one["loss"])
    assert dispatched.step == state.step == 3
    # the compiler may order float32 sums differently
    close(dispatched.params, state.params, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sums["loss"], total, rtol=1e-5)
    assert sums["count"] == 12


def test_an_image_of_weight_zero_is_not_in_loss_or_gradient(setting):
    model, _, state = setting
    optimizer = optax.sgd(1.0)
    state = create_state(state.variables, optimizer)
    batch = batch_of(np.random.default_rng(0))
    batch["weight"] = jnp.array([1.0, 1.0, 1.0, 0.0])
    flipped = batch | {"label": batch["label"].at[3].set(1 - batch["label"][3])}
    step = make_train_step(model, optimizer, scale, seed=0)
    (a, sums), (b, other) = step(state, batch), step(state, flipped)
    close(a.params, b.params, rtol=0, atol=0)
    assert sums == other
    assert sums["count"] == 3
    whole = step(state, batch | {"weight": jnp.ones(4)})[0]
    different = jax.tree.map(lambda x, y: bool(np.any(x != y)), a.params, whole.params)
    assert any(jax.tree.leaves(different))


def test_training_learns_what_can_be_learnt(setting):
    model, optimizer, state = setting
    rng = np.random.default_rng(0)
    batch = batch_of(rng, size=16)
    bright = batch["label"][:, None, None] * 150
    batch["image"] = (batch["image"] // 4 + bright.astype(jnp.uint8)).astype(jnp.uint8)
    step = jax.jit(make_train_step(model, optimizer, scale, seed=0))
    first = None
    for _ in range(60):
        state, sums = step(state, batch)
        first = first or float(sums["loss"])
    assert float(sums["loss"]) < 0.2 * first
    assert sums["correct"] == 16


def test_dropout_depends_on_seed_and_step_only(small_classifier):
    model, optimizer = small_classifier(dropout=0.5), optax.sgd(0.1)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    state, batch = create_state(variables, optimizer), batch_of(np.random.default_rng(0))
    one, two = (make_train_step(model, optimizer, scale, seed=seed) for seed in (0, 1))
    assert one(state, batch)[1]["loss"] == one(state, batch)[1]["loss"]
    assert one(state, batch)[1]["loss"] != two(state, batch)[1]["loss"]
    later = state.replace(step=state.step + 1)
    assert one(state, batch)[1]["loss"] != one(later, batch)[1]["loss"]


def test_the_steps_are_compiled_once_at_their_first_call(setting):
    model, optimizer, state = setting
    step, traced = make_train_step(model, optimizer, scale, seed=0), []

    def counted(state, batch):
        traced.append(1)
        return step(state, batch)

    batches = batch_of(np.random.default_rng(0), lead=(3,))
    expected, sums = jax.jit(repeat(step))(state, batches, 2)
    steps = compiled_train_steps(counted)
    assert not traced
    ours, our_sums = steps(jax.tree.map(jnp.copy, state), batches, 2)
    once = len(traced)
    close((ours, our_sums), (expected, sums), rtol=1e-6, atol=1e-7)
    steps(ours, batches, 3)
    assert len(traced) == once


@pytest.mark.parametrize("n", [1, 4, 6, 7])
def test_prediction_is_the_model_in_inference_mode(setting, n):
    model, _, state = setting
    images = batch_of(np.random.default_rng(0), size=n)["image"]
    logits = make_predict_step(model, scale)(state.variables, images)
    # Computed in parts and compiled; two orders of the same float32 sums.
    np.testing.assert_allclose(logits, model.apply(state.variables, scale(images)), rtol=1e-5)


def test_on_an_accelerator_the_batch_is_predicted_whole(setting):
    model, _, state = setting
    images = batch_of(np.random.default_rng(0), size=8)["image"]
    traced = jax.jit(make_predict_step(model, scale)).trace(state.variables, images)
    assert "stablehlo.while" in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "stablehlo.while" not in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_bfloat16_trains_float32_parameters_with_a_float32_loss(setting):
    model, optimizer, state = setting
    batch = batch_of(np.random.default_rng(0))

    def narrow(images):
        return scale(images).astype(jnp.bfloat16)

    plain, plain_sums = make_train_step(model, optimizer, scale, seed=0)(state, batch)
    after, sums = make_train_step(model, optimizer, narrow, seed=0)(state, batch)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(after.variables)} == {"float32"}
    assert sums["loss"].dtype == np.float32
    assert sums["loss"] != plain_sums["loss"]
    # bfloat16 has 8 bits: a few layers of it agree with float32 to about a hundredth.
    np.testing.assert_allclose(sums["loss"], plain_sums["loss"], rtol=3e-2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-2),
        after.batch_stats,
        plain.batch_stats,
    )
