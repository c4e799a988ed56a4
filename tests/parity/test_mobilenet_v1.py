"""MobileNetV1 computes what ``keras.applications.MobileNet`` computes, layer by layer.

The reference has random weights, chosen so that a wrong network gives other numbers: BatchNorm is
far from the identity and ReLU6 clips at both ends. Mutated networks must fail the same comparison.
"""

from functools import cache, partial

import cv2
import flax.linen as nn
import jax
import keras
import numpy as np
import pytest
from keras_networks import tensors, zeros
from quick_compilation import QUICK
from support import Comparison, randomize

from msa_flax.models import layers, mobilenet_v1, ops
from msa_flax.models.mobilenet_v1 import MobileNetV1
from msa_flax.weights import KERAS_FAMILIES, load, read
from msa_flax.weights.rules import Layout, Rule
from msa_flax.weights.rules.table import SAME

LAYERS = ["conv1", *(f"conv_{kind}_{i}" for i in range(1, 14) for kind in ("dw", "pw"))]


WEIGHTS = {
    "norm": lambda name: (2.5, 2, 2.5),  # ReLU6 is met at both ends in every layer
    "depthwise": 0.5,  # a rounding in the stem is not amplified from layer to layer
    "seed": 7,
}


def images(size):
    return np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


def comparison(alpha, sizes):
    return Comparison(
        "mobilenet_v1",
        keras.applications.MobileNet,
        layers={f"{name}_bn": f"{name}_relu" for name in LAYERS},
        weights=WEIGHTS,
        images=images,
        sizes=sizes,
        # Both sides sum in float32, in different orders, through 27 layers. Measured: below 2e-5 of
        # a layer's deviation. The mildest mutation (epsilon) gives 2e-3.
        tolerance=5e-5,
        alpha=alpha,
    )


NARROW, WHOLE = comparison(0.25, (224, 97)), comparison(1.0, (97,))
CASES = [(NARROW, 224), (NARROW, 97), (WHOLE, 97)]
IDS = [f"{pair.fields['alpha']:g}-{size}" for pair, size in CASES]


@pytest.mark.parametrize(("pair", "size"), CASES, ids=IDS)
def test_the_reference_is_awake(pair, size):
    outputs = {name: pair.expected[size][name] for name in pair.layers}
    for name, output in outputs.items():
        assert np.mean(output == 0) > 0.1, name
        assert np.mean(output == 6) > 0.003, name  # most are above 0.1
        assert np.mean((output > 0) & (output < 6)) > 0.1, name
    assert np.mean([np.mean(output == 6) for output in outputs.values()]) > 0.15


@pytest.mark.parametrize(("pair", "size"), CASES, ids=IDS)
def test_every_layer_equals_keras(pair, size):
    pair.assert_parity(size)


def other_epsilon(monkeypatch):
    monkeypatch.setattr(mobilenet_v1, "BatchNorm", partial(layers.BatchNorm, epsilon=1e-5))


def relu(monkeypatch):
    monkeypatch.setattr(
        mobilenet_v1,
        "BatchNorm",
        lambda _, *args, **kwargs: layers.BatchNorm("relu", *args, **kwargs),
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
def test_a_mutated_network_fails_the_comparison(monkeypatch, mutate, size):
    mutate(monkeypatch)
    monkeypatch.setattr(mobilenet_v1, "BLOCKS", mobilenet_v1.BLOCKS[:4])  # compiles sooner
    NARROW.assert_mutation_fails(size)


@pytest.mark.parametrize("vectors", [("gamma", "moving_variance"), ("beta", "moving_mean")])
def test_swapped_vectors_of_a_batch_norm_fail_the_comparison(vectors):
    """Every vector of a BatchNorm has the same shape: only numbers can tell them apart."""
    one, other = (rf"\1/{vector}" for vector in vectors)
    names, rules = {one: other, other: one}, NARROW.family.rules
    swapped = tuple(Rule(r.pattern, names.get(r.keras, r.keras), r.layout) for r in rules)
    assert swapped != rules
    with pytest.raises(AssertionError, match="_bn"):
        NARROW.assert_parity(97, variables=NARROW.loaded(NARROW.tensors, swapped))


# --- the classifier on top ------------------------------------------------------------------------

# Keras has a 1x1 convolution of a 1x1 map there: (1, 1, in, out) and (in, out).
SQUEEZE = Layout(lambda x: x[0, 0], lambda x: x[None, None])
TOP = (
    Rule("params/predictions/kernel", "conv_preds/kernel", SQUEEZE),
    Rule("params/predictions/bias", "conv_preds/bias", SAME),
)
RULES = KERAS_FAMILIES["mobilenet_v1"].rules + TOP


class ImageNetClassifier(nn.Module):
    """The backbone with the 1,000-class top of Keras; returns the logits, before the softmax."""

    backbone: nn.Module

    @nn.compact
    def __call__(self, images, *, train=False):
        features = self.backbone(images, train=False)
        return nn.Dense(1000, name="predictions")(features.mean((1, 2)))


def test_the_classifier_on_top_equals_keras():
    whole = keras.applications.MobileNet(
        weights=None, alpha=0.25, input_shape=(97, 97, 3), classifier_activation=None
    )
    reference = randomize(whole, **WEIGHTS)
    model = ImageNetClassifier(MobileNetV1(alpha=0.25))
    variables, report = load(zeros(model), tensors(reference, "mobilenet_v1"), RULES)
    assert report.kept_initial == ()
    assert report.tensors == len(reference.weights)
    assert report.parameters == reference.count_params()
    logits = np.asarray(jax.jit(model.apply, compiler_options=QUICK)(variables, images(97)))
    expected = np.asarray(reference(images(97)))
    assert np.ptp(expected) > 5  # awake
    # measured below 1e-5: the mean over the pixels averages the features' errors
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


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
