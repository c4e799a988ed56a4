"""LeNet-5 and AlexNet, side by side, compute what TensorFlow computes from their papers.

The references are written from the papers' formulas. Their weights are such that normalisation,
saturation and every bias matter.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from quick_compilation import QUICK

from msa_flax.models import MINIMUM_SIZE, PARAM_COUNTS, lenet_alexnet, ops
from msa_flax.models.lenet_alexnet import LeNetAlexNet

# Relative to a map's standard deviation; float32 sums of up to 3,456 products in different orders.
# Measured: below 1e-5; the mildest mutation gives 0.3.
TOLERANCE = 1e-4


def conv(x, layer, stride=1, padding="VALID"):
    return tf.nn.conv2d(x, layer["kernel"], stride, padding) + layer["bias"]


def alexnet(images, params):
    """Krizhevsky et al. 2012, Section 3, without groups."""

    def normalise(x):
        return tf.nn.local_response_normalization(x, 2, bias=2, alpha=1e-4, beta=0.75)

    def pool(x):
        return tf.nn.max_pool2d(x, 3, 2, "VALID")

    x = tf.pad(images, [[0, 0], [1, 2], [1, 2], [0, 0]])
    x = pool(normalise(tf.nn.relu(conv(x, params["conv1"], 4))))
    x = pool(normalise(tf.nn.relu(conv(x, params["conv2"], padding="SAME"))))
    for name in ("conv3", "conv4", "conv5"):
        x = tf.nn.relu(conv(x, params[name], padding="SAME"))
    return pool(x)


def lenet(grey, params):
    """LeCun et al. 1998, Section II.B: layers C1 to C5, every map of C3 seeing all of S2."""

    def squash(x):
        return 1.7159 * tf.tanh(2 / 3 * x)

    def subsample(x, layer):
        return 4 * tf.nn.avg_pool2d(x, 2, 2, "VALID") * layer["gain"] + layer["bias"]

    x = squash(subsample(squash(conv(grey, params["c1"])), params["s2"]))
    x = squash(subsample(squash(conv(x, params["c3"])), params["s4"]))
    return squash(conv(x, params["c5"]))


def both(images, params):
    deep = alexnet(images, params["alexnet"])
    size = [28 + 4 * cells for cells in deep.shape[1:3]]
    grey = tf.reduce_mean(images, -1, keepdims=True)
    grey = tf.image.resize(grey, size, "bilinear", antialias=True)
    return deep.numpy(), lenet(grey, params["lenet"]).numpy()


def images(*shape):
    """Returns images of low contrast and a bright corner: no two resizings look alike."""
    rng = np.random.default_rng(shape[0])
    x = rng.uniform(-0.3, 0.3, (2, *shape, 3))
    x[:, : shape[0] // 3, : shape[1] // 2] += 0.7
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def params():
    """Weights such that AlexNet's first two maps are about 100, and LeNet's units saturate."""
    shapes = jax.eval_shape(
        partial(LeNetAlexNet().init, train=False), jax.random.key(0), jnp.zeros((1, 64, 64, 3))
    )
    rng = np.random.default_rng(2)

    def leaf(path, shape):
        network, layer, kind = (key.key for key in path)
        if kind == "gain":
            return rng.uniform(0.2, 0.6, shape.shape).astype(np.float32)
        scale = {"conv1": 300.0, "conv2": 3.0}.get(layer, 1.0)
        if kind == "kernel":
            scale *= np.sqrt(2 / np.prod(shape.shape[:3]))
        elif network == "alexnet":
            scale = 30.0
        else:
            scale = 0.3
        return rng.normal(0, scale, shape.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes["params"])


def run(params, x):
    apply = partial(LeNetAlexNet().apply, train=False)
    found = np.asarray(jax.jit(apply, compiler_options=QUICK)({"params": params}, x))
    return found[..., :256], found[..., 256:]


def error(found, expected):
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.std(expected)


def test_the_reference_is_awake(params):
    deep, shallow = both(images(129, 129), params)
    assert np.std(deep) > 10
    assert 0.1 < np.mean(deep == 0) < 0.9
    assert np.mean(np.abs(shallow) > 1) > 0.1
    assert np.mean(np.abs(shallow) < 0.5) > 0.1


@pytest.mark.parametrize("shape", [(64, 64), (129, 129), (100, 160)])
def test_both_maps_are_those_of_the_papers(params, shape):
    x = images(*shape)
    for found, expected in zip(run(params, x), both(x, params), strict=True):
        assert error(found, expected) < TOLERANCE


def nearest(images, rows, columns):
    grey = jnp.mean(images, -1, keepdims=True)
    return jax.image.resize(grey, (len(grey), 28 + 4 * rows, 28 + 4 * columns, 1), "nearest")


def no_antialiasing(images, rows, columns):
    grey = jnp.mean(images, -1, keepdims=True)
    shape = (len(grey), 28 + 4 * rows, 28 + 4 * columns, 1)
    return jax.image.resize(grey, shape, "linear", antialias=False)


MUTATIONS = [
    pytest.param("lrn", lambda x: x, 0, id="no normalisation"),
    pytest.param(
        "lrn", partial(ops.local_response_norm, size=5, k=1.0, alpha=2e-5), 0, id="Caffe's"
    ),
    pytest.param("AROUND", ((2, 1), (2, 1)), 0, id="padding above and to the left"),
    pytest.param("VALID", ((0, 1), (0, 1)), 0, id="padded pooling"),
    pytest.param("squash", jnp.tanh, 1, id="plain tanh"),
    pytest.param("grey_for_grid", nearest, 1, id="nearest pixel"),
    pytest.param("grey_for_grid", no_antialiasing, 1, id="no antialiasing"),
]


@pytest.mark.parametrize(("name", "value", "part"), MUTATIONS)
def test_a_mutated_network_fails_the_comparison(params, monkeypatch, name, value, part):
    x = images(100, 160)
    monkeypatch.setattr(lenet_alexnet, name, value)
    if name == "VALID":  # LeNet's convolutions pad nothing either
        monkeypatch.setattr(lenet_alexnet, "LeNetFeatures", lambda **_: lambda grey: grey)
        monkeypatch.setattr(lenet_alexnet, "grey_for_grid", lambda x, h, w: x[:, :h, :w, :1])
    found, expected = run(params, x)[part], both(x, params)[part]
    assert found.shape != expected.shape or error(found, expected) > 100 * TOLERANCE


def shapes_at(size):
    """Returns the shapes of every layer's output by (network, layer)."""
    x = jnp.zeros((1, size, size, 3))
    model = LeNetAlexNet()
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), x)
    apply = partial(model.apply, train=False, capture_intermediates=True, mutable=["intermediates"])
    _, state = jax.eval_shape(apply, variables, x)
    found = state["intermediates"]
    return {
        (network, layer): value["__call__"][0].shape[1:]
        for network in ("alexnet", "lenet")
        for layer, value in found[network].items()
        if layer != "__call__"
    } | {(): found["__call__"][0].shape[1:]}


def test_maps_have_the_sizes_of_the_papers():
    found = shapes_at(224)
    assert found["alexnet", "conv1"] == (55, 55, 96)
    assert found["alexnet", "conv2"] == (27, 27, 256)
    assert found["alexnet", "conv3"] == found["alexnet", "conv4"] == (13, 13, 384)
    assert found["alexnet", "conv5"] == (13, 13, 256)
    assert found["lenet", "c5"] == (6, 6, 120)
    assert found[()] == (6, 6, 376)


def test_for_one_cell_lenet_has_the_sizes_of_its_paper():
    found = shapes_at(64)
    assert found["lenet", "c1"] == (28, 28, 6)
    assert found["lenet", "s2"] == (14, 14, 6)
    assert found["lenet", "c3"] == (10, 10, 16)
    assert found["lenet", "s4"] == (5, 5, 16)
    assert found["lenet", "c5"] == (1, 1, 120)


def test_a_cell_of_lenet_is_what_it_computes_for_one_window(params):
    module = lenet_alexnet.LeNetFeatures()
    grey = np.random.default_rng(0).uniform(-1, 1, (1, 44, 40, 1)).astype(np.float32)
    apply = jax.jit(module.apply)
    whole = np.asarray(apply({"params": params["lenet"]}, grey))
    assert whole.shape == (1, 4, 3, 120)
    for row, column in [(0, 0), (3, 1), (2, 2)]:
        window = grey[:, 4 * row : 4 * row + 32, 4 * column : 4 * column + 32]
        alone = apply({"params": params["lenet"]}, window)
        # float32 sums in another order
        np.testing.assert_allclose(whole[:, row, column], alone[:, 0, 0], rtol=0, atol=1e-5)


def test_the_count_of_parameters_follows_from_the_papers():
    def conv(size, before, channels):
        return size * size * before * channels + channels

    alex = conv(11, 3, 96) + conv(5, 96, 256) + conv(3, 256, 384)
    alex += conv(3, 384, 384) + conv(3, 384, 256)
    # LeCun et al. state 156, 12, 32 and 48,120 for C1, S2, S4 and C5, and 1,516 for a C3 with 60 of
    # the 96 connections between maps.
    assert conv(5, 1, 6) == 156
    assert conv(5, 16, 120) == 48_120
    assert conv(5, 6, 16) == 1_516 + 36 * 25
    le = 156 + 12 + (1_516 + 36 * 25) + 32 + 48_120
    assert alex + le == PARAM_COUNTS["lenet_alexnet"]


def test_the_smallest_image_is_the_smallest_that_leaves_a_map():
    least = MINIMUM_SIZE["lenet_alexnet"]
    features = lenet_alexnet.AlexNetFeatures()

    def shape(size):
        x = jnp.zeros((1, size, size, 3))
        return jax.eval_shape(features.init_with_output, jax.random.key(0), x)[0].shape[1:]

    assert shape(least) == (1, 1, 256)
    assert shape(least - 1) == (0, 0, 256)


def test_bfloat16_gives_what_float32_gives_to_its_precision(params):
    x = images(64, 64)
    exact, found = run(params, x), run(params, jnp.asarray(x, jnp.bfloat16))
    for wide, narrow in zip(exact, found, strict=True):
        assert narrow.dtype == jnp.bfloat16
        # One rounding of bfloat16 is 4e-3 of a value; five layers, one after the other.
        relative = np.linalg.norm(narrow.astype(np.float32) - wide) / np.linalg.norm(wide)
        assert 1e-4 < relative < 5e-2
