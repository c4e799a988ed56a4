"""ConvNeXt-Tiny computes what ``keras.applications.ConvNeXtTiny`` computes, block by block.

The reference has random weights, chosen so that a wrong network gives other numbers: LayerScale is
about 1, so that the blocks matter, and the maps before a LayerNorm vary so little that its epsilon
does. Mutated networks must fail the same comparison; they are narrow and shallow, built by Keras's
own constructor of such networks.
"""

import itertools
import re
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras.src.applications.convnext import ConvNeXt
from keras_networks import tensors, zeros
from quick_compilation import QUICK

from msa_flax.models import PARAM_COUNTS, convnext_tiny, layers
from msa_flax.models.convnext_tiny import ConvNeXtTiny
from msa_flax.weights import KERAS_FAMILIES, load

FAMILY = KERAS_FAMILIES["convnext_tiny"]
STAGES = convnext_tiny.STAGES
SMALL = ((8, 1), (12, 2), (16, 1), (20, 1))

# Both sides sum in float32, in different orders, through blocks whose sum grows to about 20, where
# one rounding is 2e-6. Measured: below 4e-5; the mildest mutation (GELU) gives 2e-3, others 1.
TOLERANCE = 2e-4


def randomize(model, seed):
    """Sets every tensor so that every block changes the map and every layer its block."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        layer, kind = variable.path.split("/")[-2:]
        shape = variable.shape
        if kind == "kernel":
            fan_in = np.prod(shape[:-1])
            size = 3e-3 if layer.endswith("depthwise_conv") else 1.5  # there an epsilon is felt
            variable.assign(rng.normal(0, size / np.sqrt(fan_in), shape))
        elif layer.endswith("depthwise_conv"):
            variable.assign(rng.normal(0, 3e-3, shape))
        elif layer.endswith("layer_scale"):
            variable.assign(rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape))
        elif kind == "gamma":
            variable.assign(rng.uniform(0.5, 1.5, shape))
        else:
            assert kind in ("beta", "bias"), variable.path
            variable.assign(rng.normal(0, 0.5, shape))
    return model


def narrow(stages):
    channels, blocks = zip(*stages, strict=True)
    shape = (None, None, 3)
    return ConvNeXt(
        blocks, channels, name="convnext_tiny", include_top=False, weights=None, input_shape=shape
    )


def loaded(network):
    """Returns the variables of our backbone with a Keras network's weights."""
    backbone = {"params": {"backbone": zeros(ConvNeXtTiny())["params"]}}
    variables, report = load(backbone, tensors(network, "convnext_tiny"), FAMILY.rules)
    assert report.parameters == network.count_params()
    return {"params": variables["params"]["backbone"]}


def images(size, count=2):
    rng = np.random.default_rng(size)
    return rng.uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def points(stages):
    """Returns the names of the maps that are compared: before every block, and the last two."""
    blocks = [f"stage_{i}_block_{j}" for i, (_, n) in enumerate(stages) for j in range(n)]
    return [*blocks, "last_block", "output"]


def keras_points(base, stages):
    """Returns a network with those maps as outputs."""
    convolutions = [f"convnext_tiny_{name}_depthwise_conv" for name in points(stages)[:-2]]
    maps = [base.get_layer(name).input for name in convolutions]
    return keras.Model(base.input, [*maps, base.layers[-1].input, base.output])


def expected(base, stages, size):
    maps = keras_points(base, stages)(images(size))
    return dict(zip(points(stages), map(np.asarray, maps), strict=True))


@cache
def compiled(mutation):
    """Returns a function (variables, images) -> our maps, in order.

    Args:
        mutation: of the module at the first call; compiled once for each.
    """
    del mutation
    found = []

    def keep_inputs(call, args, kwargs, context):
        last = context.module.name == "layer_normalization"
        if isinstance(context.module, layers.DepthwiseConv) or last:
            found.append(args[0])
        return call(*args, **kwargs)

    def maps(variables, x):
        found.clear()
        with nn.intercept_methods(keep_inputs):
            output = ConvNeXtTiny().apply(variables, x, train=False)
        return [*found, output]

    return jax.jit(maps, compiler_options=QUICK)


def ours(variables, stages, size, mutation=None):
    """Returns our maps by the same names."""
    values = compiled(mutation)(variables, images(size))
    return dict(zip(points(stages), map(np.asarray, values), strict=True))


def assert_parity(found, reference):
    for name, value in reference.items():
        assert found[name].shape == value.shape, name
        error = np.abs(found[name] - value).max()
        assert error < TOLERANCE, f"{name}: {error}"


@pytest.fixture(scope="module")
def reference():
    base = keras.applications.ConvNeXtTiny(
        weights=None, include_top=False, input_shape=(None, None, 3)
    )
    assert base.count_params() == PARAM_COUNTS["convnext_tiny"]
    return randomize(base, seed=7)


@pytest.fixture(scope="module")
def variables(reference):
    return loaded(reference)


@pytest.fixture
def small(monkeypatch):
    """A narrow, shallow reference, ours to match, and our variables with its numbers."""
    monkeypatch.setattr(convnext_tiny, "STAGES", SMALL)
    base = randomize(narrow(SMALL), seed=3)
    return base, loaded(base)


def assert_awake(maps, stages):
    names = points(stages)
    for name, after in itertools.pairwise(names[:-1]):
        assert np.std(maps[name]) > 0.3, name
        if maps[name].shape == maps[after].shape:  # a block, not a downsampling
            assert np.std(maps[after] - maps[name]) > 0.2, name
    assert np.abs(maps["output"] - maps["last_block"]).max() > 0.5


@pytest.mark.parametrize("size", [64, 97])
def test_every_block_equals_keras(reference, variables, size):
    maps = expected(reference, STAGES, size)
    assert_awake(maps, STAGES)
    assert_parity(ours(variables, STAGES, size), maps)


def test_an_odd_size_leaves_out_the_rows_that_no_window_fits_into(reference):
    maps = expected(reference, STAGES, 97)
    assert [maps[f"stage_{i}_block_0"].shape[1] for i in range(4)] == [24, 12, 6, 3]


@pytest.mark.parametrize("size", [64, 97])
def test_a_small_network_passes_the_comparison_that_its_mutations_fail(small, size):
    base, variables = small
    maps = expected(base, SMALL, size)
    assert_awake(maps, SMALL)
    assert_parity(ours(variables, SMALL, size), maps)


def approximate_gelu(monkeypatch):
    monkeypatch.setattr(convnext_tiny, "gelu", partial(nn.gelu, approximate=True))


def epsilon(value):
    def mutate(monkeypatch):
        monkeypatch.setattr(convnext_tiny, "Norm", partial(layers.LayerNorm, epsilon=value))

    return mutate


class Identity(nn.Module):
    def __call__(self, x):
        return x


def no_last_norm(monkeypatch):
    norm = convnext_tiny.Norm
    monkeypatch.setattr(
        convnext_tiny,
        "Norm",
        lambda name: Identity() if name == "layer_normalization" else norm(name=name),
    )


def no_standardisation(monkeypatch):
    monkeypatch.setattr(convnext_tiny, "standardize", lambda images: images / 255)


def same_padding(monkeypatch):
    monkeypatch.setattr(convnext_tiny, "VALID", None)


@pytest.mark.parametrize(
    ("mutate", "size"),
    [
        pytest.param(approximate_gelu, 64, id="tanh's GELU"),
        pytest.param(epsilon(1e-5), 64, id="epsilon of PyTorch's LayerNorm"),
        pytest.param(epsilon(1e-3), 64, id="epsilon of Keras's LayerNormalization"),
        pytest.param(no_standardisation, 64, id="images only divided by 255"),
        pytest.param(same_padding, 97, id="same padding at odd sizes"),
    ],
)
def test_a_mutated_network_fails_the_comparison(small, monkeypatch, mutate, size):
    base, variables = small
    mutate(monkeypatch)
    found = ours(variables, SMALL, size, mutation=mutate)
    with pytest.raises(AssertionError):
        assert_parity(found, expected(base, SMALL, size))


def test_a_network_without_the_last_norm_fails_the_comparison(small, monkeypatch):
    base, variables = small
    no_last_norm(monkeypatch)
    maps = expected(base, SMALL, 64)
    apply = jax.jit(partial(ConvNeXtTiny().apply, train=False), compiler_options=QUICK)
    found = np.asarray(apply(variables, images(64)))
    assert np.abs(found - maps["last_block"]).max() < TOLERANCE
    assert np.abs(found - maps["output"]).max() > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("depthwise_conv/bias", 0),
        ("pointwise_conv_1/bias", 0),
        ("pointwise_conv_2/bias", 0),
        ("stem_conv/bias", 0),
        ("downsampling_conv_1/bias", 0),
        ("layer_scale/gamma", 1),
    ],
)
def test_parameters_at_their_neutral_value_fail_the_comparison(small, pattern, value):
    base, variables = small

    def neutral(path, leaf):
        found = re.search(pattern, "/".join(key.key for key in path))
        return np.full_like(leaf, value) if found else leaf

    mutated = jax.tree_util.tree_map_with_path(neutral, variables)
    with pytest.raises(AssertionError):
        assert_parity(ours(mutated, SMALL, 64), expected(base, SMALL, 64))


def test_a_layer_scale_begins_at_one_millionth_as_in_keras():
    scale = convnext_tiny.LayerScale().init(jax.random.key(0), jnp.zeros((1, 1, 1, 5)))
    np.testing.assert_array_equal(scale["params"]["gamma"], np.full(5, 1e-6, np.float32))
    first = narrow(SMALL).get_layer("convnext_tiny_stage_0_block_0_layer_scale")
    np.testing.assert_array_equal(first.get_weights()[0], np.full(8, 1e-6, np.float32))
