"""Batch normalisation folded into kernels computes what the layers computed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from float64_references import relative
from quick_compilation import QUICK

from msa_flax.config import ModelConfig
from msa_flax.models import WITH_ALPHA, create_model, fold, fold_batch_norm

# Float32 rounding of two orders of the same sums, through up to 53 layers of a random network.
TOLERANCE = 1e-5


# These are the networks whose layers are named so that folding knows them.
@pytest.fixture(scope="module", params=WITH_ALPHA)
def setting(request):
    """A narrow model of each family, variables that are nobody's default, and how to run it."""
    model = create_model(ModelConfig(backbone=request.param, alpha=0.25, pretrained="none"))
    images = jnp.asarray(np.random.default_rng(1).random((2, 65, 65, 3)), jnp.float32)
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    rng = np.random.default_rng(2)

    def leaf(path, shape):
        if path[-1].key == "kernel":
            deviation = (2 / np.prod(shape.shape[:-1])) ** 0.5  # keeps what a ReLU halves
            return rng.normal(0, deviation, shape.shape).astype(np.float32)
        low, high = (-0.5, 0.5) if path[-1].key in ("mean", "bias") else (0.5, 1.5)
        return rng.uniform(low, high, shape.shape).astype(np.float32)

    def features_and_logits(variables):
        features = model.apply(variables, images, method="features")
        return features, model.apply(variables, features, method="head")

    run = jax.jit(features_and_logits, compiler_options=QUICK)
    return jax.tree_util.tree_map_with_path(leaf, shapes), run


def test_folded_variables_give_the_same_features_and_logits(setting):
    variables, run = setting
    features, logits = run(variables)
    assert float(jnp.std(features)) > 1e-3
    folded_features, folded_logits = run(fold_batch_norm(variables))
    assert relative(folded_features, features) < TOLERANCE
    assert relative(folded_logits, logits) < TOLERANCE


def test_every_batch_norm_is_folded_away(setting):
    variables, _ = setting
    folded = fold_batch_norm(variables)
    assert jax.tree.leaves(variables["batch_stats"])
    assert not jax.tree.leaves(folded["batch_stats"])
    names = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(folded["params"])}
    assert "scale" not in names


def test_another_epsilon_fails_the_comparison(setting, monkeypatch):
    variables, run = setting
    monkeypatch.setattr(fold, "EPSILON", 1e-5)
    error = relative(run(fold_batch_norm(variables))[0], run(variables)[0])
    assert error > 10 * TOLERANCE


def test_the_variables_that_are_folded_are_left_as_they_were(setting):
    variables, _ = setting
    before = jax.tree.map(np.array, variables)
    fold_batch_norm(variables)
    jax.tree.map(np.testing.assert_array_equal, before, variables)


def test_a_layer_without_its_convolution_stays_as_it_is():
    statistics = {"mean": np.zeros(2, np.float32), "var": np.ones(2, np.float32)}
    params = {"lonely_bn": {"scale": np.ones(2, np.float32), "bias": np.zeros(2, np.float32)}}
    folded = fold_batch_norm({"params": params, "batch_stats": {"lonely_bn": statistics}})
    assert set(folded["params"]["lonely_bn"]) == {"scale", "bias"}
    assert set(folded["batch_stats"]["lonely_bn"]) == {"mean", "var"}


def test_variables_that_lack_only_their_statistics_are_not_taken_for_folded_ones(setting):
    variables, run = setting
    with pytest.raises(Exception, match="batch_stats"):
        run({"params": variables["params"]})
