"""Many images, several methods: batches, targets and layers do not mix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.saliency.explain import explain_images, make_explain_step
from msa_flax.saliency.methods import METHODS, choose
from msa_flax.saliency.network import at_layer

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16), dtype=np.uint8)
NAMES = list(METHODS)


def scale(images):
    x = images.astype(jnp.float32) / 127.5 - 1
    return jnp.repeat(x[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def network():
    """A model with attention, its variables, and the functions of the two halves."""
    import flax.linen as nn

    from msa_flax.models import Classifier, Head, MultiScaleSpatialAttention

    class Backbone(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            x = nn.relu(nn.Conv(4, (3, 3), (2, 2), name="first")(images))
            return nn.relu(nn.Conv(6, (3, 3), (2, 2), name="second")(x))

    model = Classifier(Backbone(), MultiScaleSpatialAttention(), Head())
    variables = model.init(jax.random.key(0), scale(jnp.asarray(IMAGES)), train=False)

    def features_fn(variables, images):
        return model.apply(variables, scale(images), method="features")

    def head_fn(variables, features):
        logit, sown = model.apply(variables, features, method="head", mutable=["intermediates"])
        maps = sown["intermediates"]["attention"]
        return logit, {name: values[0] for name, values in maps.items()}

    def layer_fn(name):
        def halves(variables, images):
            split = at_layer(model, variables, name, images, prepare=scale)
            return split.features_fn, split.head_fn

        return halves

    return model, variables, features_fn, head_fn, layer_fn


@pytest.fixture(scope="module")
def found(network):
    """All images explained by all methods, three at a time."""
    _, variables, features_fn, head_fn, _ = network
    step = jax.jit(make_explain_step(features_fn, head_fn, choose(["all"])))
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
def test_a_map_is_that_of_the_method_itself_on_that_image_alone(network, found, name):
    _, variables, features_fn, head_fn, _ = network

    @jax.jit
    def explain(images):
        halves = lambda x: features_fn(variables, x), lambda x: head_fn(variables, x)[0]
        return [METHODS[name].explain(*halves, images, target) for target in ("fracture", "normal")]

    maps = explain(jnp.asarray(IMAGES[3:4], jnp.float32))
    for target, alone in zip(("fracture", "normal"), maps, strict=True):
        # float32 sums in another order: some roundings of 6e-8 of the largest value
        scale = max(float(abs(alone).max()), 1e-12)
        np.testing.assert_allclose(found.maps[name][target][3:4] / scale, alone / scale, atol=2e-5)


def test_the_classes_have_different_maps_where_the_method_knows_them(found):
    for name, maps in found.maps.items():
        blind = name in ("eigencam", "random_map", "centre_prior")
        assert np.array_equal(maps["fracture"], maps["normal"]) == blind, name


def test_a_layer_is_explained_where_one_is_named(network):
    _, variables, features_fn, head_fn, layer_fn = network
    methods = choose(["layercam", "ablation_cam"], layer="backbone/first")
    step = make_explain_step(features_fn, head_fn, methods, layer_fn=layer_fn("backbone/first"))
    outputs = step(variables, jnp.asarray(IMAGES))
    assert outputs["layercam/fracture"].shape == (5, 8, 8)
    assert outputs["ablation_cam/normal"].shape == (5, 8, 8)
    assert outputs["attention_3"].shape == (5, 4, 4)


def test_mass_is_counted_of_what_speaks_for_the_class(found):
    masks = np.zeros_like(IMAGES)
    masks[:, :8] = 1
    mass = found.mass(masks, method="integrated_gradients")
    assert ((mass[:, 0] >= 0) & (mass[:, 0] <= 1)).all()  # signed, it could lie anywhere
