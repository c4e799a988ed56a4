"""Stochastic depth skips blocks in training at the stated rates; bfloat16 is near float32."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.models import ConvNeXtTiny, convnext_tiny


def run(variables, x, *, train, **attributes):
    apply = partial(ConvNeXtTiny(**attributes).apply, train=train)
    return np.asarray(jax.jit(apply)(variables, x))


def random_setting():
    """Returns random variables of order 1 for the stages at hand, and a thousand small images."""
    x = np.random.default_rng(8).uniform(0, 255, (1000, 8, 8, 3)).astype(np.float32)
    init = partial(ConvNeXtTiny().init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(0, 1, leaf.shape).astype(np.float32), shapes), x


@pytest.fixture
def three_blocks(monkeypatch):
    monkeypatch.setattr(convnext_tiny, "STAGES", ((4, 3),))
    return random_setting()


@jax.jit
def run_in_training(variables, x, seed):
    """Returns the input and the output of every block's stochastic depth, rates 0, 0.25 and 0.5."""
    pairs = []

    def keep(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if isinstance(context.module, nn.Dropout):
            pairs.append((args[0], output))
        return output

    with nn.intercept_methods(keep):
        ConvNeXtTiny(drop_path_rate=0.5).apply(
            variables, x, train=True, rngs={"dropout": jax.random.key(seed)}
        )
    return pairs


def test_blocks_are_skipped_at_linearly_rising_rates_image_by_image(three_blocks):
    pairs = jax.device_get(run_in_training(*three_blocks, 0))
    for rate, (before, after) in zip([0.0, 0.25, 0.5], pairs, strict=True):
        dropped = (after == 0).all((1, 2, 3))
        kept = after[~dropped]
        np.testing.assert_allclose(kept, before[~dropped] / (1 - rate), rtol=1e-6)  # one rounding
        deviation = np.sqrt(rate * (1 - rate) / len(dropped))
        assert abs(dropped.mean() - rate) <= 5 * deviation


def test_stochastic_depth_keeps_the_expectation(three_blocks):
    variables, x = three_blocks
    same = np.broadcast_to(x[:1], x.shape)
    before, after = jax.device_get(run_in_training(variables, same, 1))[1]  # the block of rate 1/4
    # the mean of n values of 0 or 4/3, whose standard deviation is sqrt(1/3)
    ratio = after.mean(0).sum() / before[0].sum()
    assert abs(ratio - 1) < 5 * np.sqrt(1 / 3 / len(x))


def test_stochastic_depth_is_the_identity_in_inference(three_blocks):
    variables, x = three_blocks
    outputs = [run(variables, x[:4], train=False, drop_path_rate=rate) for rate in (0.0, 0.5)]
    np.testing.assert_array_equal(*outputs)


def test_without_a_rate_training_needs_no_randomness_and_skips_nothing(three_blocks):
    variables, x = three_blocks
    outputs = [run(variables, x[:4], train=train) for train in (False, True)]
    np.testing.assert_array_equal(*outputs)


def test_bfloat16_gives_what_float32_gives_to_its_precision(monkeypatch):
    monkeypatch.setattr(convnext_tiny, "STAGES", ((8, 1), (12, 1)))
    variables, x = random_setting()
    exact = run(variables, x[:4], train=False)
    found = run(variables, x[:4].astype(jnp.bfloat16), train=False)
    assert found.dtype == jnp.bfloat16
    # One rounding of bfloat16 is 4e-3 of a value; a dozen layers, one after the other.
    error = np.linalg.norm(found.astype(np.float32) - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 5e-2
