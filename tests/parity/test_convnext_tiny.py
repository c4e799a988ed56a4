"""ConvNeXt-Tiny computes what ``keras.applications.ConvNeXtTiny`` computes, block by block.

The reference has random weights, chosen so that a wrong network gives other numbers: LayerScale is
about 1, so that the blocks matter, and the maps before a LayerNorm vary so little that its epsilon
does. Mutated networks must fail the same comparison; they are narrow and shallow, built by Keras's
own constructor of such networks.
"""

import itertools
import re
from functools import partial

import flax.linen as nn
import h5py
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras.src.applications.convnext import ConvNeXt

from msa_flax.models import PARAM_COUNTS, ConvNeXtTiny, convnext_tiny, layers
from msa_flax.weights import KERAS_FAMILIES, export, load, read
from msa_flax.weights.keras_file import WeightsError

FAMILY = KERAS_FAMILIES["convnext_tiny"]
STAGES = convnext_tiny.STAGES
SMALL = ((8, 1), (12, 2), (16, 1), (20, 1))
NARROW = ((4, 3), (6, 3), (8, 9), (10, 3))  # as deep as the real one, for its table of layers

# Both sides sum in float32, in different orders, through 18 blocks whose sum grows to about 10; one
# rounding of that is 1e-6. Measured: below 1e-4, and a mutation gives 1e-2 and more.
TOLERANCE = 5e-4

# Optimising takes longer than all else here.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


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


def narrow(stages, **kwargs):
    channels, blocks = zip(*stages, strict=True)
    settings = {"include_top": False, "input_shape": (None, None, 3), "weights": None} | kwargs
    return ConvNeXt(blocks, channels, name="convnext_tiny", **settings)


def tensors(model):
    """Returns a network's tensors as a file of it would hold them."""
    return {"/".join(v.path.split("/")[-2:]): v.numpy() for v in model.weights}


def zeros(images=(1, 64, 64, 3)):
    """Returns the backbone's variable tree filled with zeros: no initial value can help a test."""
    init = partial(ConvNeXtTiny().init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros(images))
    return {"params": {"backbone": jax.tree.map(lambda x: np.zeros(x.shape), shapes["params"])}}


def loaded(model):
    variables, report = load(zeros(), FAMILY.canonical(tensors(model)), FAMILY.rules)
    assert report.kept_initial == ()
    assert report.parameters == model.count_params()
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


def ours(variables, stages, size, **attributes):
    """Returns our maps by the same names."""
    found = []

    def keep_inputs(call, args, kwargs, context):
        last = context.module.name == "layer_normalization"
        if isinstance(context.module, layers.DepthwiseConv) or last:
            found.append(args[0])
        return call(*args, **kwargs)

    def maps(variables, x):
        with nn.intercept_methods(keep_inputs):
            output = ConvNeXtTiny(**attributes).apply(variables, x, train=False)
        return [*found, output]

    values = jax.jit(maps, compiler_options=QUICK)(variables, images(size))
    return dict(zip(points(stages), map(np.asarray, values), strict=True))


def infer(variables, x, **attributes):
    apply = partial(ConvNeXtTiny(**attributes).apply, train=False)
    return np.asarray(jax.jit(apply, compiler_options=QUICK)(variables, x))


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
    sizes = [expected(reference, STAGES, 97)[f"stage_{i}_block_0"].shape[1] for i in range(4)]
    assert sizes == [24, 12, 6, 3]


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
    with pytest.raises(AssertionError):
        assert_parity(ours(variables, SMALL, size), expected(base, SMALL, size))


def test_a_network_without_the_last_norm_fails_the_comparison(small, monkeypatch):
    base, variables = small
    no_last_norm(monkeypatch)
    maps = expected(base, SMALL, 64)
    found = infer(variables, images(64))
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


def test_bfloat16_gives_what_float32_gives_to_its_precision(small):
    _, variables = small
    x = images(64)
    exact, found = infer(variables, x), infer(variables, x.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    # One rounding of bfloat16 is 4e-3; the blocks before the last norm add theirs.
    error = np.linalg.norm(found.astype(np.float32) - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 5e-2


# --- stochastic depth -----------------------------------------------------------------------------


@pytest.fixture
def three_blocks(monkeypatch):
    """One stage of three blocks, random variables of order 1, and a thousand small images."""
    monkeypatch.setattr(convnext_tiny, "STAGES", ((4, 3),))
    x = images(8, count=1000)
    init = partial(ConvNeXtTiny().init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(0, 1, leaf.shape).astype(np.float32), shapes), x


@jax.jit
def run_in_training(variables, x, seed):
    """Returns the input and the output of every block's stochastic depth, rates 0, 0.25 and 0.5."""
    pairs = []

    def keep(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if isinstance(context.module, nn.Dropout):
            pairs.append((args[0], output))
        return output

    with nn.intercept_methods(keep):
        ConvNeXtTiny(drop_path_rate=0.5).apply(
            variables, x, train=True, rngs={"dropout": jax.random.key(seed)}
        )
    return pairs


def test_blocks_are_skipped_at_linearly_rising_rates_image_by_image(three_blocks):
    pairs = jax.device_get(run_in_training(*three_blocks, 0))
    for rate, (before, after) in zip([0.0, 0.25, 0.5], pairs, strict=True):
        dropped = (after == 0).all((1, 2, 3))
        kept = after[~dropped]
        np.testing.assert_allclose(kept, before[~dropped] / (1 - rate), rtol=1e-6)  # one rounding
        deviation = np.sqrt(rate * (1 - rate) / len(dropped))
        assert abs(dropped.mean() - rate) <= 5 * deviation


def test_stochastic_depth_keeps_the_expectation(three_blocks):
    variables, x = three_blocks
    same = np.broadcast_to(x[:1], x.shape)
    before, after = jax.device_get(run_in_training(variables, same, 1))[1]  # the block of rate 1/4
    # the mean of n values of 0 or 4/3, whose standard deviation is sqrt(1/3)
    ratio = after.mean(0).sum() / before[0].sum()
    assert abs(ratio - 1) < 5 * np.sqrt(1 / 3 / len(x))


def test_stochastic_depth_is_the_identity_in_inference(three_blocks):
    variables, x = three_blocks
    outputs = [infer(variables, x[:4], drop_path_rate=rate) for rate in (0.0, 0.5)]
    np.testing.assert_array_equal(*outputs)


def test_without_a_rate_training_needs_no_randomness_and_skips_nothing(three_blocks):
    variables, x = three_blocks
    trained = jax.jit(partial(ConvNeXtTiny().apply, train=True), compiler_options=QUICK)
    np.testing.assert_array_equal(trained(variables, x[:4]), infer(variables, x[:4]))


def test_a_layer_scale_begins_at_one_millionth_as_in_keras():
    scale = convnext_tiny.LayerScale().init(jax.random.key(0), jnp.zeros((1, 1, 1, 5)))
    np.testing.assert_array_equal(scale["params"]["gamma"], np.full(5, 1e-6, np.float32))
    first = narrow(SMALL).get_layer("convnext_tiny_stage_0_block_0_layer_scale")
    np.testing.assert_array_equal(first.get_weights()[0], np.full(8, 1e-6, np.float32))


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture
def deep(monkeypatch):
    """A narrow network of full depth, and the tensors that every file of it must give."""
    monkeypatch.setattr(convnext_tiny, "STAGES", NARROW)
    base = randomize(narrow(NARROW), seed=5)
    return base, FAMILY.canonical(tensors(base))


def write_keras2(path, arrays, last):
    """Writes the layout and the names of Keras 2, whose LayerScale had a nameless variable."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            layer, variable = name.replace("layer_normalization/", f"{last}/").split("/")
            if layer.endswith("layer_scale"):
                variable = "Variable"
            file[f"{layer}/{layer}/{variable}:0"] = array
        file.create_group("convnext_tiny_prestem_normalization")


def strip_names(path):
    """Removes the layer names from a ``.weights.h5``, as in files of older Keras versions."""
    with h5py.File(path, "r+") as file:

        def strip(_, item):
            if "name" in item.attrs:
                del item.attrs["name"]

        file.visititems(strip)


def write(base, arrays, path):
    if path.name == "keras2.h5":
        write_keras2(path, arrays, "layer_normalization")
    elif path.name == "keras2_again.h5":
        write_keras2(path, arrays, "layer_normalization_3")
    elif path.name == "nameless.weights.h5":
        base.save_weights(path)
        strip_names(path)
    else:
        (base.save_weights if path.name.endswith(".weights.h5") else base.save)(path)


FILES = [
    "m.weights.h5",
    "m.keras",
    "m.h5",
    "keras2.h5",
    "keras2_again.h5",
    "nameless.weights.h5",
]


@pytest.mark.parametrize("name", FILES)
def test_every_layout_that_keras_writes_loads(deep, tmp_path, name):
    base, arrays = deep
    write(base, arrays, tmp_path / name)
    found = FAMILY.canonical(read(tmp_path / name, layers=FAMILY.layers))
    assert found.keys() == arrays.keys()
    for tensor, array in found.items():
        np.testing.assert_array_equal(array, arrays[tensor], err_msg=tensor)
    filled, report = load(zeros(), found, FAMILY.rules)
    assert report.tensors == len(base.weights) == 2 * (4 * 2 + 4 * 18 + 1) + 18
    exported = export(filled, FAMILY.rules)
    assert exported.keys() == arrays.keys()
    for tensor, array in exported.items():
        np.testing.assert_array_equal(array, arrays[tensor], err_msg=tensor)


def test_a_network_with_another_automatic_name_loads_as_well(deep):
    base, arrays = deep
    again = narrow(NARROW)  # in this process the name is taken
    again.set_weights(base.get_weights())
    names = {name for name in tensors(again) if name not in arrays}
    assert any(re.match(r"layer_normalization_\d+/", name) for name in names)
    assert FAMILY.canonical(tensors(again)).keys() == arrays.keys()


def test_the_table_of_layers_is_keras_order(deep):
    base, _ = deep
    found, groups = [], []
    for layer in base.layers:
        if isinstance(layer, keras.Sequential):
            groups.append(f"sequential_{len(groups)}" if groups else "sequential")
            found.append(("Sequential", layer.name))
            found += [(f"{groups[-1]}/{type(part).__name__}", part.name) for part in layer.layers]
        elif layer.weights:
            found.append(
                (type(layer).__name__, re.sub("(layer_normalization)_.*", r"\1", layer.name))
            )
    assert found == list(FAMILY.layers)


@pytest.mark.parametrize(
    "other",
    ["layer_normalization_1/gamma", "convnext_tiny_stage_0_block_0_layer_scale/variable_4"],
)
def test_two_tensors_that_could_be_one_are_refused(deep, other):
    _, arrays = deep
    with pytest.raises(WeightsError, match=rf"found \S+ and {other}; save the backbone by itself"):
        FAMILY.canonical(arrays | {other: np.zeros(1)})


def test_a_file_with_a_top_is_refused_with_what_it_lacks_and_what_it_has(deep):
    top = narrow(NARROW, include_top=True, input_shape=(64, 64, 3), classes=3)
    with pytest.raises(WeightsError) as error:
        load(zeros(), FAMILY.canonical(tensors(top)), FAMILY.rules)
    message = str(error.value)
    assert "missing: layer_normalization/beta" in message
    assert "unexpected: convnext_tiny_head_dense/bias" in message
