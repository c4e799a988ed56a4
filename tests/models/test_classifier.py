import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.config import ModelConfig
from msa_flax.models import MODELS, PARAM_COUNTS, create_model, scale_images


@pytest.fixture
def images():
    return jax.random.uniform(jax.random.key(1), (4, 16, 16, 3))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes(**fields):
    model = create_model(ModelConfig(pretrained="none", **fields))
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_backbone_parameters_are_as_many_as_keras_counts(name):
    variables = shapes(backbone=name)
    backbone = count(variables["params"]["backbone"]) + count(variables.get("batch_stats", {}))
    assert backbone == PARAM_COUNTS[name]


@pytest.mark.parametrize(
    ("head", "expected"),
    [("logit", 1025), ("softmax2", 2050), ("dense256", 1024 * 256 + 256 + 257)],
)
def test_head_and_attention_parameter_counts(head, expected):
    params = shapes(head=head)["params"]
    assert count(params["classifier"]) == expected
    assert count(params["attention"]) == 169


def test_without_attention_there_are_no_attention_parameters():
    assert set(shapes(attention="none")["params"]) == {"backbone", "classifier"}


def test_a_configured_model_runs_at_another_width_and_size():
    model = create_model(ModelConfig(alpha=0.25, pretrained="none"))
    images = jnp.zeros((1, 64, 96, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    features = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, images)
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


def test_images_are_scaled_as_declared():
    images = jnp.array([[[0, 255], [51, 102]]], jnp.uint8)
    paper = scale_images(images, preprocess="paper", backbone="mobilenet_v1")
    native = scale_images(images, preprocess="native", backbone="mobilenet_v1")
    assert paper.shape == native.shape == (1, 2, 2, 3)
    np.testing.assert_allclose(paper[0, :, :, 1], [[0, 1], [0.2, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(native[0, :, :, 2], [[-1, 1], [-0.6, -0.2]], rtol=1e-6)


def test_an_unknown_backbone_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="mobilenet_v1"):
        create_model(ModelConfig(backbone="mobilenet_v9"))
