"""Many images, several methods: batches, targets and layers do not mix."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_network import QUICK

from msa_flax.models import Classifier, Head, MultiScaleSpatialAttention
from msa_flax.saliency.explain import explain_images, make_classifier_step
from msa_flax.saliency.interface import TARGETS, SaliencyError
from msa_flax.saliency.methods import METHODS

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16), dtype=np.uint8)
NAMES = list(METHODS)


class Backbone(nn.Module):
    """Two convolutions, and a way around the second one."""

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.relu(nn.Conv(6, (3, 3), (2, 2), name="first")(images))
        x = nn.relu(nn.Conv(6, (3, 3), (2, 2), name="second")(x))
        return x + nn.Conv(6, (1, 1), name="inside")(x)


MODEL = Classifier(Backbone(), MultiScaleSpatialAttention(), Head())


def scale(images):
    x = images.astype(jnp.float32) / 127.5 - 1
    return jnp.repeat(x[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def variables():
    init = jax.jit(MODEL.init, static_argnames="train", compiler_options=QUICK)
    return init(jax.random.key(0), scale(jnp.asarray(IMAGES)), train=False)


def compiled(methods, **layer):
    step = make_classifier_step(MODEL, scale, methods, **layer)
    return jax.jit(step, compiler_options=QUICK)


@pytest.fixture(scope="module")
def found(variables):
    """All images explained by all methods, three at a time."""
    step = compiled(NAMES)
    return explain_images(lambda x: step(variables, x), IMAGES, batch_size=3)


def test_every_method_gives_a_finite_map_an_image_and_class(found):
    assert set(found.maps) == set(NAMES)
    for name, maps in found.maps.items():
        assert list(maps) == ["fracture", "normal"]
        for values in maps.values():
            assert values.dtype == np.float32, name
            assert values.shape in ((5, 4, 4), (5, 16, 16)), name
            assert np.isfinite(values).all(), name
    assert list(found.attention) == [3, 5, 7]
    assert found.logit.shape == (5,)


@pytest.mark.parametrize("name", NAMES)
def test_a_map_is_that_of_the_method_itself_on_that_image_alone(variables, found, name):
    def features_fn(images):
        return MODEL.apply(variables, scale(images), method="features")

    def head_fn(features):
        return MODEL.apply(variables, features, method="head")

    def explain(images):
        return [METHODS[name].explain(features_fn, head_fn, images, target) for target in TARGETS]

    maps = jax.jit(explain, compiler_options=QUICK)(jnp.asarray(IMAGES[3:4], jnp.float32))
    for target, alone in zip(TARGETS, maps, strict=True):
        # float32 sums in another order: some roundings of 6e-8 of the largest value
        largest = max(float(abs(alone).max()), 1e-12)
        got = found.maps[name][target][3:4]
        np.testing.assert_allclose(got / largest, alone / largest, atol=2e-5)


def test_the_classes_have_different_maps_where_the_method_knows_them(found):
    for name, maps in found.maps.items():
        blind = name in ("eigencam", "random_map", "centre_prior")
        assert np.array_equal(maps["fracture"], maps["normal"]) == blind, name


def test_a_layer_is_explained_where_one_is_named(variables):
    step = compiled(["layercam", "ablation_cam"], layer="backbone/first")
    outputs = step(variables, IMAGES)
    assert outputs["layercam/fracture"].shape == (5, 8, 8)
    assert outputs["ablation_cam/normal"].shape == (5, 8, 8)
    assert outputs["attention_3"].shape == (5, 4, 4)


def test_methods_that_ask_again_need_a_layer_that_everything_passes(variables):
    step = make_classifier_step(MODEL, scale, ["layercam", "ablation_cam"], layer="backbone/inside")
    with pytest.raises(SaliencyError, match="ablation_cam needs one that everything passes; paths"):
        jax.eval_shape(step, variables, IMAGES)
    gradients = make_classifier_step(MODEL, scale, ["layercam"], layer="backbone/inside")
    outputs = jax.eval_shape(gradients, variables, IMAGES)
    assert outputs["layercam/fracture"].shape == (5, 4, 4)


def test_mass_is_counted_of_what_speaks_for_the_class(found):
    masks = np.zeros_like(IMAGES)
    masks[:, :8] = 1
    mass = found.mass(masks, method="integrated_gradients")
    assert ((mass[:, 0] >= 0) & (mass[:, 0] <= 1)).all()  # signed, it could lie anywhere
