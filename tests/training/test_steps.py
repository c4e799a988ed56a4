import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick_compilation import QUICK

from msa_flax.config import OptimConfig
from msa_flax.models import scale_images
from msa_flax.training import devices
from msa_flax.training.compile import compile_train_steps
from msa_flax.training.optim import create_optimizer
from msa_flax.training.steps import (
    create_state,
    make_predict_step,
    make_train_step,
    repeat,
)

quick = functools.partial(jax.jit, compiler_options=QUICK)  # one program, not one per operation
scale = functools.partial(scale_images, preprocess="paper", backbone="mobilenet_v1")


def batch_of(rng, lead=(), size=4):
    return {
        "image": jnp.asarray(rng.integers(0, 256, (*lead, size, 16, 16), dtype=np.uint8)),
        "label": jnp.asarray(rng.integers(0, 2, (*lead, size)), jnp.float32),
        "weight": jnp.ones((*lead, size), jnp.float32),
    }


@pytest.fixture(scope="module")
def initial(small_classifier):
    """A function: fields of a classifier -> the classifier, and a copy of its first variables."""

    @functools.cache
    def made(**fields):
        model = small_classifier(**fields)
        draw = quick(functools.partial(model.init, train=False))
        return model, jax.device_get(draw(jax.random.key(0), jnp.zeros((1, 16, 16, 3))))

    def fresh(**fields):
        model, variables = made(**fields)
        return model, jax.tree.map(jnp.array, variables)

    return fresh


@pytest.fixture
def setting(initial):
    model, variables = initial()
    optimizer = create_optimizer(OptimConfig(learning_rate=0.05), total_steps=100)
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

    new, sums = quick(make_train_step(model, optimizer, scale, seed=0))(state, batch)
    gradients = jax.tree.map(jnp.subtract, state.params, new.params)
    expected, slopes = quick(jax.value_and_grad(loss))(state.params)
    close(gradients, slopes, rtol=1e-4, atol=1e-6)  # float32
    np.testing.assert_allclose(sums["loss"] / sums["count"], expected, rtol=1e-5)
    assert new.step == 1


def test_several_steps_in_one_dispatch_are_the_single_steps(setting):
    model, optimizer, state = setting
    batches = batch_of(np.random.default_rng(0), lead=(4,))
    step = make_train_step(model, optimizer, scale, seed=0)
    dispatched, sums = quick(repeat(step))(state, batches, 3)  # the fourth is filler
    single, total = quick(step), 0.0
    for i in range(3):
        state, one = single(state, {key: x[i] for key, x in batches.items()})
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
    step = quick(make_train_step(model, optimizer, scale, seed=0))
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
    step = quick(make_train_step(model, optimizer, scale, seed=0))
    first = None
    for _ in range(60):
        state, sums = step(state, batch)
        first = first or float(sums["loss"])
    assert float(sums["loss"]) < 0.2 * first
    assert sums["correct"] == 16


def test_dropout_depends_on_seed_and_step_only(initial):
    optimizer = optax.sgd(0.1)
    model, variables = initial(dropout=0.5)
    state, batch = create_state(variables, optimizer), batch_of(np.random.default_rng(0))
    one, two = (quick(make_train_step(model, optimizer, scale, seed=seed)) for seed in (0, 1))
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
    steps = compile_train_steps(counted, devices.mesh(4))
    assert not traced
    ours, our_sums = steps(jax.tree.map(jnp.copy, state), batches, 2)
    once = len(traced)
    # Two programs of one step sum the products of a convolution in another order: 5e-7 measured.
    close((ours, our_sums), (expected, sums), rtol=1e-6, atol=2e-6)
    steps(ours, batches, 3)
    assert len(traced) == once


def full_step_with_a_fixed_backbone(model, optimizer, *, seed, state, batch):
    """The gradient step of the whole network from images, written out."""
    key = jax.random.fold_in(jax.random.key(seed), state.step)

    def logits_of(module, images):
        return module.head(jax.lax.stop_gradient(module.features(images, train=False)), train=True)

    def loss(params):
        variables, images = {"params": params, "batch_stats": state.batch_stats}, batch["image"]
        logits = model.apply(variables, scale(images), rngs={"dropout": key}, method=logits_of)
        losses = jnp.logaddexp(0, logits) - batch["label"] * logits
        return jnp.sum(losses * batch["weight"]) / jnp.sum(batch["weight"])

    before, gradients = quick(jax.value_and_grad(loss))(state.params)
    updates, _ = quick(optimizer.update)(gradients, state.opt_state, state.params)
    return optax.apply_updates(state.params, updates), before


@pytest.fixture
def frozen(initial):
    """A network, and batches of images and of the features that its backbone makes of them."""
    model, variables = initial(head="dense256", dropout=0.5)
    config = OptimConfig(name="sgd", learning_rate=0.5)
    optimizer = create_optimizer(config, total_steps=100, freeze_backbone=True)
    # A zero with a sign and statistics other than the initial ones, to see that they are kept.
    kernel = variables["params"]["backbone"]["conv"]["kernel"]
    variables["params"]["backbone"]["conv"]["kernel"] = kernel.at[0, 0, 0].set(-0.0)
    variables["batch_stats"] = jax.tree.map(lambda x: x + 0.25, variables["batch_stats"])
    images = batch_of(np.random.default_rng(0), size=6)
    images["weight"] = images["weight"].at[5].set(0.0)
    features = quick(functools.partial(model.apply, method="features"))(
        variables, scale(images["image"])
    )
    assert float(jnp.std(features)) > 0.05
    return model, optimizer, create_state(variables, optimizer), images, features


def test_a_frozen_step_on_features_is_the_full_step_with_a_fixed_backbone(frozen):
    model, optimizer, state, images, features = frozen
    expected, loss = full_step_with_a_fixed_backbone(
        model, optimizer, seed=3, state=state, batch=images
    )
    step = make_train_step(model, optimizer, lambda x: x, seed=3, freeze_backbone=True)
    new, sums = quick(step)(state, images | {"image": features})
    close(new.params, expected, rtol=1e-5, atol=1e-7)  # float32 sums in another order
    np.testing.assert_allclose(sums["loss"] / sums["count"], loss, rtol=1e-5)
    assert new.step == 1


def test_a_frozen_step_moves_all_but_the_backbone(frozen):
    model, optimizer, state, images, features = frozen
    step = make_train_step(model, optimizer, lambda x: x, seed=0, freeze_backbone=True)
    steps, batch = compile_train_steps(step, devices.mesh(6)), images | {"image": features}
    before = jax.device_get(state)  # compiled steps use the state up
    new, _ = steps(state, {key: x[None] for key, x in batch.items()}, 1)
    same = [
        np.asarray(a).tobytes() == b.tobytes()
        for part in (lambda s: s.params["backbone"], lambda s: s.batch_stats)
        for a, b in zip(*(jax.tree.leaves(part(s)) for s in (new, before)), strict=True)
    ]
    assert len(same) == 5
    assert all(same)
    for part in ("attention", "classifier"):
        moved = jax.tree.map(lambda a, b: np.any(a != b), new.params[part], before.params[part])
        assert any(jax.tree.leaves(moved)), part


def test_features_of_16_bits_are_cast_by_the_callers_function(frozen):
    model, optimizer, state, images, features = frozen

    def cast(x):
        assert x.dtype == jnp.float16
        return x.astype(jnp.float32)

    steps = [
        quick(make_train_step(model, optimizer, f, seed=0, freeze_backbone=True))
        for f in (lambda x: x, cast)
    ]
    expected, _ = steps[0](state, images | {"image": features})
    new, sums = steps[1](state, images | {"image": features.astype(jnp.float16)})
    assert sums["loss"].dtype == np.float32
    close(new.params, expected.params, rtol=1e-2, atol=1e-3)  # 11 bits of the features
    different = jax.tree.map(lambda a, b: bool(np.any(a != b)), new.params, expected.params)
    assert any(jax.tree.leaves(different))


def test_a_network_without_running_statistics_is_trained():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            return nn.Dense(1)(images.mean((1, 2)))[:, 0]

    model, optimizer = Plain(), optax.sgd(0.1)
    state = create_state(
        model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False), optimizer
    )
    new, _ = make_train_step(model, optimizer, scale, seed=0)(
        state, batch_of(np.random.default_rng(0))
    )
    assert jax.tree.leaves(new.batch_stats) == []
    assert np.any(new.params["Dense_0"]["kernel"] != state.params["Dense_0"]["kernel"])


def test_class_weights_reach_the_loss_of_a_step(setting):
    model, optimizer, state = setting
    batch = batch_of(np.random.default_rng(0))
    doubled = make_train_step(model, optimizer, scale, seed=0, class_weights=(2.0, 2.0))
    plain = make_train_step(model, optimizer, scale, seed=0)
    (_, sums), (_, expected) = quick(doubled)(state, batch), quick(plain)(state, batch)
    assert sums == {**expected, "loss": 2 * expected["loss"]}


@pytest.mark.parametrize("n", [1, 4, 6, 7])
def test_prediction_is_the_model_in_inference_mode(setting, n):
    model, _, state = setting
    images = batch_of(np.random.default_rng(0), size=n)["image"]
    logits = quick(make_predict_step(model, scale))(state.variables, images)
    # Computed in parts; two orders of the same float32 sums.
    np.testing.assert_allclose(
        logits, quick(model.apply)(state.variables, scale(images)), rtol=1e-5
    )


def test_on_an_accelerator_the_batch_is_predicted_whole(setting):
    model, _, state = setting
    images = batch_of(np.random.default_rng(0), size=8)["image"]
    traced = jax.jit(make_predict_step(model, scale)).trace(state.variables, images)
    assert "stablehlo.while" in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "stablehlo.while" not in traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("n", [1, 6])
def test_features_and_head_are_predicted_apart(setting, n):
    model, _, state = setting
    images = batch_of(np.random.default_rng(0), size=n)["image"]
    features = make_predict_step(model, scale, method="features")(state.variables, images)
    expected = model.apply(state.variables, scale(images), method="features")
    # The backbone in parts and compiled; two orders of the same float32 sums.
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    head = make_predict_step(model, lambda x: x.astype(jnp.float32), method="head")
    logits = head(state.variables, features)
    np.testing.assert_allclose(logits, model.apply(state.variables, scale(images)), rtol=1e-5)
    narrow = head(state.variables, features.astype(jnp.float16))
    np.testing.assert_allclose(narrow, logits, atol=1e-2)  # 11 bits of the features


def test_a_head_is_predicted_whole_on_every_platform(setting):
    model, _, state = setting
    step = make_predict_step(model, lambda x: x, method="head")
    traced = jax.jit(step).trace(state.variables, jnp.zeros((8, 4, 4, 6)))
    for platform in ("cpu", "cuda"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "stablehlo.while" not in text


def test_bfloat16_trains_float32_parameters_with_a_float32_loss(setting):
    model, optimizer, state = setting
    batch = batch_of(np.random.default_rng(0))

    def narrow(images):
        return scale(images).astype(jnp.bfloat16)

    plain, plain_sums = quick(make_train_step(model, optimizer, scale, seed=0))(state, batch)
    after, sums = quick(make_train_step(model, optimizer, narrow, seed=0))(state, batch)
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
