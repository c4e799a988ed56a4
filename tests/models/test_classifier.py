"""A classifier is a backbone, optional attention and a head, in training and in inference."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.config import ModelConfig
from msa_flax.models import create_model


@pytest.fixture
def images():
    return jax.random.uniform(jax.random.key(1), (4, 16, 16, 3))


def test_a_configured_model_takes_another_width_and_images_that_are_not_square():
    model = create_model(ModelConfig(alpha=0.25, pretrained="none"))
    init = partial(model.init_with_output, method="features")
    images = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    features, _ = jax.eval_shape(init, jax.random.key(0), images)
    assert features.shape == (1, 2, 3, 256)


@pytest.mark.parametrize("head", ["logit", "softmax2", "dense256"])
@pytest.mark.parametrize("attention", [True, False])
def test_a_call_is_the_head_of_the_features(head, attention, images, small_classifier):
    model = small_classifier(head=head, attention=attention)
    variables = model.init(jax.random.key(0), images)
    features = model.apply(variables, images, method="features")
    assert features.shape == (4, 4, 4, 6)
    logits = model.apply(variables, images)
    assert logits.shape == (4,)
    np.testing.assert_array_equal(logits, model.apply(variables, features, method="head"))


def test_the_two_class_softmax_is_the_sigmoid_of_the_returned_logit(images, small_classifier):
    model = small_classifier(head="softmax2")
    variables = model.init(jax.random.key(0), images)
    features = model.apply(variables, images, method="features")
    attended = model.apply(variables, features, method=lambda m, x: m.attention(x))
    dense = variables["params"]["classifier"]["scores"]
    scores = attended.mean((1, 2)) @ dense["kernel"] + dense["bias"][None]
    probability = jax.nn.softmax(scores)[:, 1]
    logits = model.apply(variables, images)
    np.testing.assert_allclose(jax.nn.sigmoid(logits), probability, rtol=1e-5)  # float32


def test_training_reaches_every_part_and_the_running_statistics(images, small_classifier):
    model = small_classifier()
    variables = model.init(jax.random.key(0), images)

    def loss(params):
        variables_now = {**variables, "params": params}
        logits, updated = model.apply(variables_now, images, train=True, mutable=["batch_stats"])
        return jnp.sum(logits**2), updated["batch_stats"]

    gradients, stats = jax.grad(loss, has_aux=True)(variables["params"])
    for part in ("backbone", "attention", "classifier"):
        assert any(np.any(g != 0) for g in jax.tree.leaves(gradients[part])), part
    assert np.any(stats["backbone"]["bn"]["mean"] != 0)


def test_dropout_acts_in_training_only(images, small_classifier):
    model = small_classifier(dropout=0.5)
    variables = model.init(jax.random.key(0), images)

    def train(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])[0]

    assert np.any(train(0) != train(1))
    np.testing.assert_array_equal(train(0), train(0))
    np.testing.assert_array_equal(model.apply(variables, images), model.apply(variables, images))


def test_one_image_never_influences_another_in_inference(images, small_classifier):
    model = small_classifier()
    variables = model.init(jax.random.key(0), images)
    alone = jnp.stack([model.apply(variables, image[None])[0] for image in images])
    # Matrix products of other sizes sum in another order; float32.
    np.testing.assert_allclose(model.apply(variables, images), alone, rtol=1e-4, atol=1e-5)
