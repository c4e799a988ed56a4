"""Batch normalisation folded into kernels computes what the layers computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.config import ModelConfig
from msa_flax.models import WITH_ALPHA, create_model, fold, fold_batch_norm

# Float32 rounding of two orders of the same sums, through up to 53 layers of a random network.
TOLERANCE = 1e-5


def relative(a, b):
    return np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(np.asarray(b))


# These are the networks whose layers are named so that folding knows them.
@pytest.fixture(scope="module", params=WITH_ALPHA)
def setting(request):
    """A narrow model of each family whose statistics are nobody's default, and two images."""
    model = create_model(ModelConfig(backbone=request.param, alpha=0.25, pretrained="none"))
    images = jnp.asarray(np.random.default_rng(1).random((2, 65, 65, 3)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    rng = np.random.default_rng(2)

    def vary(path, array):
        noise = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
        name = path[-1].key
        return array + noise - 1 if name in ("mean", "bias") else array * noise

    return model, jax.tree_util.tree_map_with_path(vary, variables), images


def features(model, variables, images):
    return model.apply(variables, images, method="features")


def test_folded_variables_give_the_same_features_and_logits(setting):
    model, variables, images = setting
    folded = fold_batch_norm(variables)
    before = features(model, variables, images)
    assert float(jnp.std(before)) > 1e-3
    assert relative(features(model, folded, images), before) < TOLERANCE
    assert relative(model.apply(folded, images), model.apply(variables, images)) < TOLERANCE


def test_every_batch_norm_is_folded_away(setting):
    _, variables, _ = setting
    folded = fold_batch_norm(variables)
    assert jax.tree.leaves(variables["batch_stats"])
    assert not jax.tree.leaves(folded["batch_stats"])
    names = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(folded["params"])}
    assert "scale" not in names


def test_another_epsilon_fails_the_comparison(setting, monkeypatch):
    model, variables, images = setting
    monkeypatch.setattr(fold, "EPSILON", 1e-5)
    wrong = fold_batch_norm(variables)
    error = relative(features(model, wrong, images), features(model, variables, images))
    assert error > 10 * TOLERANCE


def test_the_variables_that_are_folded_are_left_as_they_were(setting):
    _, variables, _ = setting
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
    model, variables, images = setting
    with pytest.raises(Exception, match="batch_stats"):
        model.apply({"params": variables["params"]}, images)
