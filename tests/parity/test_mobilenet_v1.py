"""MobileNetV1 computes what ``keras.applications.MobileNet`` computes, layer by layer.

The reference has random weights, chosen so that a wrong network gives other numbers: BatchNorm is
far from the identity and ReLU6 clips at both ends. Mutated networks must fail the same comparison.
"""

from functools import cache, partial

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from msa_flax.config import ModelConfig
from msa_flax.models import create_model, layers, mobilenet_v1, ops
from msa_flax.models.mobilenet_v1 import MobileNetV1
from msa_flax.weights import KERAS_FAMILIES, load, read
from msa_flax.weights.rules import Rule

RULES = KERAS_FAMILIES["mobilenet_v1"].rules
LAYERS = ["conv1", *(f"conv_{kind}_{i}" for i in range(1, 14) for kind in ("dw", "pw"))]
OURS = ("attention", "classifier")

# Both sides sum in float32, in different orders, through 27 layers of activations in 0..6, where
# one rounding is 5e-7. Measured: below 3e-5. The mildest mutation (epsilon) gives 4e-3 and more.
TOLERANCE = 1e-4


def randomize(model, seed):
    """Sets every tensor so that each layer's activations reach both ends of ReLU6."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        layer, kind = variable.path.split("/")
        shape = variable.shape
        if kind == "kernel":
            # Small enough that a rounding in the stem is not amplified from layer to layer.
            variance = 0.25 / 9 if layer.startswith("conv_dw") else 1 / np.prod(shape[:3])
            variable.assign(rng.normal(0, np.sqrt(variance), shape))
        elif kind == "gamma":
            variable.assign(2.5 * rng.uniform(0.5, 1.5, shape))  # Keras starts with 1
        elif kind in ("beta", "bias"):
            variable.assign(rng.normal(2, 2.5, shape))
        elif kind == "moving_mean":
            variable.assign(rng.normal(0, 0.5, shape))
        elif kind == "moving_variance":
            variable.assign(rng.uniform(0.5, 2, shape))
    return model


def tensors(model):
    return {variable.path: variable.numpy() for variable in model.weights}


def zeros(module, **kwargs):
    """Returns the module's variable tree filled with zeros: no initial value can help a test."""
    shapes = jax.eval_shape(
        partial(module.init, **kwargs), jax.random.key(0), jnp.zeros((1, 64, 64, 3))
    )
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


def images(size, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def references():
    """alpha -> the randomised Keras network, with the output of every activation layer."""

    def randomized(alpha):
        base = keras.applications.MobileNet(
            weights=None, include_top=False, alpha=alpha, input_shape=(None, None, 3)
        )
        randomize(base, seed=7)
        return keras.Model(base.input, [base.get_layer(f"{name}_relu").output for name in LAYERS])

    return {alpha: randomized(alpha) for alpha in (0.25, 1.0)}


@pytest.fixture(scope="module")
def expected(references):
    """(alpha, size) -> Keras' activations by layer name."""
    cases = [(0.25, 224), (0.25, 97), (1.0, 97)]
    return {
        (alpha, size): dict(
            zip(LAYERS, map(np.asarray, references[alpha](images(size))), strict=True)
        )
        for alpha, size in cases
    }


def build(alpha):
    """Returns the model as users build it and a function to its activations by layer name."""
    model = create_model(ModelConfig(alpha=alpha, pretrained="none"))
    is_batch_norm = lambda module, _: isinstance(module, layers.BatchNorm)  # noqa: E731

    @jax.jit
    def activations(variables, x):
        last, state = model.apply(
            variables,
            x,
            train=False,
            method="features",
            capture_intermediates=is_batch_norm,
            mutable=["intermediates"],
        )
        found = state["intermediates"]["backbone"]
        return last, {name: found[f"{name}_bn"]["__call__"][0] for name in LAYERS}

    return model, activations


as_it_is = cache(build)  # a network that is mutated must be built and compiled on its own


def run(network, reference, size, rules=RULES):
    """Returns our activations by layer name, with the reference's weights."""
    model, activations = network
    variables, _ = load(zeros(model), tensors(reference), rules, initial=OURS)
    last, outputs = jax.device_get(activations(variables, images(size)))
    np.testing.assert_array_equal(last, outputs["conv_pw_13"])
    return outputs


def assert_parity(ours, keras_outputs):
    for name in LAYERS:
        assert ours[name].shape == keras_outputs[name].shape, name
        error = np.abs(ours[name] - keras_outputs[name]).max()
        assert error < TOLERANCE, f"{name}: {error}"


@pytest.mark.parametrize(("alpha", "size"), [(0.25, 224), (0.25, 97), (1.0, 97)])
def test_the_reference_is_awake(expected, alpha, size):
    for name, output in expected[alpha, size].items():
        assert np.mean(output == 0) > 0.1, name
        assert np.mean(output == 6) > 0.003, name  # most are above 0.1
        assert np.mean((output > 0) & (output < 6)) > 0.1, name
    assert np.mean([np.mean(output == 6) for output in expected[alpha, size].values()]) > 0.15


@pytest.mark.parametrize(("alpha", "size"), [(0.25, 224), (0.25, 97), (1.0, 97)])
def test_every_layer_equals_keras(references, expected, alpha, size):
    ours = run(as_it_is(alpha), references[alpha], size)
    assert_parity(ours, expected[alpha, size])


def other_epsilon(monkeypatch):
    monkeypatch.setattr(mobilenet_v1, "BatchNorm", partial(layers.BatchNorm, epsilon=1e-5))


def relu(monkeypatch):
    monkeypatch.setattr(
        mobilenet_v1, "BatchNorm", lambda _, **kwargs: layers.BatchNorm("relu", **kwargs)
    )


def padded(padding):
    def mutate(monkeypatch):
        def depthwise(size, stride, given, **kwargs):
            return layers.DepthwiseConv(size, stride, given and padding, **kwargs)

        monkeypatch.setattr(mobilenet_v1, "DepthwiseConv", depthwise)

    return mutate


def symmetric_stem(monkeypatch):
    same = ops.same_padding
    monkeypatch.setattr(
        ops,
        "same_padding",
        lambda h, w, size, stride: ((1, 1), (1, 1)) if stride == 2 else same(h, w, size, stride),
    )


@pytest.mark.parametrize(
    ("mutate", "size"),
    [
        pytest.param(other_epsilon, 97, id="BatchNorm epsilon 1e-5"),
        pytest.param(relu, 97, id="ReLU for ReLU6"),
        pytest.param(padded(None), 97, id="same padding at odd sizes"),
        pytest.param(padded(((1, 1), (1, 1))), 224, id="PyTorch's padding"),
        pytest.param(padded(((1, 0), (1, 0))), 224, id="padding on the other side"),
        pytest.param(symmetric_stem, 224, id="PyTorch's padding of the stem"),
    ],
)
def test_a_mutated_network_fails_the_comparison(references, expected, monkeypatch, mutate, size):
    mutate(monkeypatch)
    ours = run(build(0.25), references[0.25], size)
    with pytest.raises(AssertionError):
        assert_parity(ours, expected[0.25, size])


@pytest.mark.parametrize(
    ("ours", "keras_name"),
    [
        ("params/backbone/(.*_bn)/scale", r"\1/moving_variance"),
        ("params/backbone/(.*_bn)/bias", r"\1/moving_mean"),
    ],
)
def test_swapped_vectors_of_a_batch_norm_fail_the_comparison(
    references, expected, ours, keras_name
):
    """Every vector of a BatchNorm has the same shape: only numbers can tell them apart."""
    other = {r"\1/moving_variance": r"\1/gamma", r"\1/moving_mean": r"\1/beta"}[keras_name]
    names = {keras_name: other, other: keras_name}
    swapped = tuple(Rule(r.pattern, names.get(r.keras, r.keras), r.layout) for r in RULES)
    assert swapped != RULES
    outputs = run(as_it_is(0.25), references[0.25], 97, swapped)
    with pytest.raises(AssertionError):
        assert_parity(outputs, expected[0.25, 97])


class ImageNetClassifier(nn.Module):
    """The backbone with the 1,000-class top of Keras; returns the logits, before the softmax."""

    backbone: nn.Module

    @nn.compact
    def __call__(self, images):
        features = self.backbone(images, train=False)
        return nn.Dense(1000, name="predictions")(features.mean((1, 2)))


def test_the_classifier_on_top_equals_keras():
    reference = randomize(
        keras.applications.MobileNet(
            weights=None, alpha=0.25, input_shape=(97, 97, 3), classifier_activation=None
        ),
        seed=8,
    )
    model = ImageNetClassifier(MobileNetV1(alpha=0.25))
    variables, report = load(zeros(model), tensors(reference), RULES)
    assert report.kept_initial == ()
    assert report.tensors == len(reference.weights)
    assert report.parameters == reference.count_params()
    logits = np.asarray(jax.jit(model.apply)(variables, images(97)))
    expected = np.asarray(reference(images(97)))
    assert np.ptp(expected) > 5  # awake
    # measured below 1e-5: the mean over the pixels averages the features' errors
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)


# --- the published weights ------------------------------------------------------------------------


@cache
def published(path):
    """Ours and Keras' network, both from the file with the published weights."""
    model = ImageNetClassifier(MobileNetV1())
    variables, report = load(zeros(model), read(path), RULES, source=path.name)
    assert (report.tensors, report.parameters) == (137, 4_253_864)
    reference = keras.applications.MobileNet(weights=str(path), classifier_activation=None)
    return jax.jit(partial(model.apply, variables)), reference


def central_square(image):
    height, width, _ = image.shape
    size = min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("photograph", "classes"),
    [
        ("coffee", {967}),  # espresso
        ("chelsea", {281, 282, 285}),  # tabby, tiger cat, Egyptian cat
        ("rocket", {657}),  # missile
    ],
)
def test_the_published_network_sees_what_keras_sees(realdata, photograph, classes):
    data = pytest.importorskip("skimage.data")
    ours, reference = published(realdata / "weights" / "mobilenet_1_0_224_tf.h5")
    image = central_square(getattr(data, photograph)())  # squeezed, the rocket is a drilling rig
    image = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
    x = image[None].astype(np.float32) / 127.5 - 1  # as the weights were trained
    logits, expected = np.asarray(ours(x))[0], np.asarray(reference(x))[0]
    assert np.argmax(logits) in classes
    assert np.argmax(logits) == np.argmax(expected)
    # logits span 20 to 30; float32 sums in another order were seen to differ by 2e-5
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)
