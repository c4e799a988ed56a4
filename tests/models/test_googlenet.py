"""GoogLeNet computes what Keras layers put together from the paper's table compute.

The table below is a second copy, with the sizes and channels that the paper states for every row.
The reference's weights are such that local response normalisation divides by more than 2.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
import tensorflow as tf
from quick_compilation import QUICK

from msa_flax.models import PARAM_COUNTS, googlenet, layers, ops
from msa_flax.models.googlenet import GoogLeNet

# Table 1: output size at 224 pixels, output channels, then the six columns of an inception module.
TABLE = {
    "inception_3a": (28, 256, 64, 96, 128, 16, 32, 32),
    "inception_3b": (28, 480, 128, 128, 192, 32, 96, 64),
    "inception_4a": (14, 512, 192, 96, 208, 16, 48, 64),
    "inception_4b": (14, 512, 160, 112, 224, 24, 64, 64),
    "inception_4c": (14, 512, 128, 128, 256, 24, 64, 64),
    "inception_4d": (14, 528, 112, 144, 288, 32, 64, 64),
    "inception_4e": (14, 832, 256, 160, 320, 32, 128, 128),
    "inception_5a": (7, 832, 256, 160, 320, 32, 128, 128),
    "inception_5b": (7, 1024, 384, 192, 384, 48, 128, 128),
}

# Relative to a map's standard deviation. Both sides sum up to 2,000 float32 products, in different
# orders, in 21 layers one after the other. Measured: below 1e-5; a mutation gives 1 and more.
TOLERANCE = 1e-4


def reference_network():
    """Returns the Keras network; its outputs are those of the convolutions, before their ReLU."""
    found = {}

    def conv(x, channels, size, name, strides=1):
        found[name] = keras.layers.Conv2D(channels, size, strides, padding="same", name=name)(x)
        return keras.layers.ReLU()(found[name])

    def pool(x, strides):
        return keras.layers.MaxPooling2D(3, strides, padding="same")(x)

    def normalise(x):
        lrn = tf.nn.local_response_normalization
        return keras.layers.Lambda(lambda x: lrn(x, 2, bias=1, alpha=2e-5, beta=0.75))(x)

    images = keras.Input((None, None, 3))
    x = normalise(pool(conv(images, 64, 7, "conv1", strides=2), 2))
    x = normalise(conv(conv(x, 64, 1, "conv2_reduce"), 192, 3, "conv2"))
    size = 56
    for name, (out, _, c1, r3, c3, r5, c5, pooled) in TABLE.items():
        x, size = (x if out == size else pool(x, 2)), out
        a = conv(x, c1, 1, f"{name}_1x1")
        b = conv(conv(x, r3, 1, f"{name}_3x3_reduce"), c3, 3, f"{name}_3x3")
        c = conv(conv(x, r5, 1, f"{name}_5x5_reduce"), c5, 5, f"{name}_5x5")
        d = conv(pool(x, 1), pooled, 1, f"{name}_pool_proj")
        x = keras.layers.Concatenate()([a, b, c, d])
    return keras.Model(images, found | {"output": x})


def randomize(model, seed):
    """Makes activations of about 100, which the normalisation reduces to less than half."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        layer, kind = variable.path.split("/")
        if kind == "kernel":
            gain = {"conv1": 250, "conv2": 2.5}.get(layer, 1)
            fan_in = np.prod(variable.shape[:3])
            variable.assign(rng.normal(0, gain * np.sqrt(2 / fan_in), variable.shape))
        else:
            variable.assign(rng.normal(0, 30, variable.shape))
    return model


@pytest.fixture(scope="module")
def reference():
    return randomize(reference_network(), seed=4)


@pytest.fixture(scope="module")
def expected(reference):
    """size -> the reference's maps by name."""
    return {
        size: {name: np.asarray(x) for name, x in reference(images(size)).items()}
        for size in (64, 75)
    }


def images(size):
    rng = np.random.default_rng(size)
    return rng.uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


def variables_of(model):
    params = {
        layer.name: dict(zip(("kernel", "bias"), layer.get_weights(), strict=True))
        for layer in model.layers
        if layer.weights
    }
    return {"params": params}


def apply(variables, x):
    """Returns our maps by name."""
    is_convolution = lambda m, _: isinstance(m, layers.Conv | layers.PointwiseConv)  # noqa: E731
    output, state = GoogLeNet().apply(
        variables,
        x,
        train=False,
        capture_intermediates=is_convolution,
        mutable=["intermediates"],
    )
    found = {name: value["__call__"][0] for name, value in state["intermediates"].items()}
    return found | {"output": output}


def run(reference, size):
    def traced_anew(variables, x):  # a mutated module's function is the same to JAX
        return apply(variables, x)

    quick = jax.jit(traced_anew, compiler_options=QUICK)
    return jax.device_get(quick(variables_of(reference), images(size)))


def assert_parity(found, maps):
    for name in found:
        error = np.abs(found[name] - maps[name]).max() / np.std(maps[name])
        assert error < TOLERANCE, f"{name}: {error}"


def test_the_reference_is_awake(reference, expected):
    for name, x in expected[64].items():
        assert 10 < np.std(x) < 1000, name
        assert 0.1 < np.mean(x <= 0) < 0.9, name
    norms = [layer for layer in reference.layers if isinstance(layer, keras.layers.Lambda)]
    both = keras.Model(reference.input, [(layer.input, layer.output) for layer in norms])
    for before, after in both(images(64)):
        assert np.mean(np.asarray(after)[before > 0] < np.asarray(before)[before > 0] / 2) > 0.25


@pytest.mark.parametrize("size", [64, 75])
def test_every_convolution_equals_keras(reference, expected, size):
    found = run(reference, size)
    assert found.keys() == expected[size].keys()
    assert len(found) == 3 + 9 * 6 + 1
    assert_parity(found, expected[size])


def changed_lrn(**settings):
    def mutate(monkeypatch):
        lrn = partial(ops.local_response_norm, **({"size": 5, "k": 1.0, "alpha": 2e-5} | settings))
        monkeypatch.setattr(googlenet, "lrn", lrn)

    return mutate


def no_lrn(monkeypatch):
    monkeypatch.setattr(googlenet, "lrn", lambda x: x)


def other_pool(size):
    def mutate(monkeypatch):
        pool = layers.max_pool
        monkeypatch.setattr(googlenet, "max_pool", lambda x, _, stride: pool(x, size, stride))

    return mutate


def average_pool(monkeypatch):
    monkeypatch.setattr(
        googlenet,
        "max_pool",
        lambda x, size, stride: nn.avg_pool(x, (size, size), (stride, stride), "SAME"),
    )


def no_relu(monkeypatch):
    monkeypatch.setattr(googlenet.nn, "relu", lambda x: x)


MUTATIONS = [
    pytest.param(no_lrn, id="no normalisation"),
    pytest.param(changed_lrn(k=2.0), id="AlexNet's k"),
    pytest.param(changed_lrn(alpha=1e-4), id="alpha for the sum"),
    pytest.param(changed_lrn(size=3), id="three channels"),
    pytest.param(other_pool(2), id="pooling of 2 x 2"),
    pytest.param(average_pool, id="average pooling"),
    pytest.param(no_relu, id="no ReLU"),
]


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_a_mutated_network_fails_the_comparison(reference, expected, monkeypatch, mutate):
    mutate(monkeypatch)
    monkeypatch.setattr(googlenet, "STAGES", googlenet.STAGES[:1])
    found = run(reference, 64)
    del found["output"]  # of the first stage only
    with pytest.raises(AssertionError):
        assert_parity(found, expected[64])


def test_the_count_of_parameters_follows_from_the_table(reference):
    def conv(size, before, channels):
        return size * size * before * channels + channels

    total = conv(7, 3, 64) + conv(1, 64, 64) + conv(3, 64, 192)
    before = 192
    for _, out, c1, r3, c3, r5, c5, pooled in TABLE.values():
        total += conv(1, before, c1) + conv(1, before, pooled)
        total += conv(1, before, r3) + conv(3, r3, c3)
        total += conv(1, before, r5) + conv(5, r5, c5)
        before = c1 + c3 + c5 + pooled
        assert before == out  # what the paper states for the row
    assert total == PARAM_COUNTS["googlenet"] == reference.count_params()


def test_maps_have_the_sizes_of_the_table():
    init = partial(GoogLeNet().init, train=False)
    x = jnp.zeros((1, 224, 224, 3))
    variables = jax.eval_shape(init, jax.random.key(0), x)
    found = jax.eval_shape(apply, variables, x)
    assert found["conv1"].shape[1:] == (112, 112, 64)
    assert found["conv2"].shape[1:] == (56, 56, 192)
    for name, (size, *_) in TABLE.items():
        assert found[f"{name}_1x1"].shape[1:3] == (size, size)
    assert found["output"].shape == (1, 7, 7, 1024)
