"""What holds for every backbone: one interface, stated sizes, gradients, types, refusals.

Most of it is a matter of shapes, found without computing anything.
"""

import pathlib
import re
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compilation import QUICK

from msa_flax import models
from msa_flax.config import Config, ModelConfig
from msa_flax.models import (
    MINIMUM_SIZE,
    MODELS,
    PARAM_COUNTS,
    WITH_ALPHA,
    WITH_BATCH_NORM,
    ModelError,
    check_network,
    convnext_tiny,
    create_model,
    efficientnet_b0,
    mobilenet_v2,
    resnet50,
    scale_images,
)
from msa_flax.models.layers import BatchNorm, Conv
from msa_flax.weights import KERAS_FAMILIES

# Rows, columns and channels of the last feature map at 224 pixels.
MAPS = {
    "mobilenet_v1": (7, 7, 1024),
    "mobilenet_v2": (7, 7, 1280),
    "resnet50": (7, 7, 2048),
    "efficientnet_b0": (7, 7, 1280),
    "convnext_tiny": (7, 7, 768),
    "googlenet": (7, 7, 1024),
    "lenet_alexnet": (6, 6, 376),
}
NAMES = sorted(MODELS)
HEADS = ("logit", "softmax2", "dense256")
ATTENTION = {"none": 0, "msa": 169, "cbam": 98}  # parameters

# Parameters without a gradient. A BatchNorm subtracts its batch's mean and with it the bias of the
# convolution before, which Keras's ResNet50 has nevertheless: what is left is rounding.
NO_GRADIENT = {"resnet50": r"conv\d_.*conv/bias"}


def build(name, **fields):
    return create_model(ModelConfig(backbone=name, pretrained="none", **fields))


def config_of(name, size):
    config = Config(model=ModelConfig(backbone=name, pretrained="none"))
    config.data.image_size = size
    return config


def images_of(size, dtype=jnp.float32, count=1):
    return jax.ShapeDtypeStruct((count, size, size, 3), dtype)


@cache
def shapes(name):
    """Returns the shapes of a classifier's variables."""
    model = build(name)
    return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images_of(224))


def features(name, variables, images):
    return build(name).apply(variables, images, method="features")


@cache
def feature_map(name, size=224, dtype=jnp.float32):
    """Returns shape and type of a backbone's feature map."""
    return jax.eval_shape(partial(features, name), shapes(name), images_of(size, dtype))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_every_backbone_has_a_stated_map():
    assert set(MAPS) == set(MODELS)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_as_many_as_stated(name):
    parts = shapes(name)
    total = count(parts["params"]["backbone"]) + count(parts.get("batch_stats", {}))
    assert total == PARAM_COUNTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_guide_states_how_many_parameters_a_network_has(name):
    guide = pathlib.Path(models.__file__).with_name("README.md").read_text()
    (row,) = (line for line in guide.splitlines() if line.startswith(f"| `{name}` |"))
    assert f"| {PARAM_COUNTS[name]:,} |" in row
    assert row.endswith("| yes |") == (name in KERAS_FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_feature_maps_have_the_stated_size(name):
    assert feature_map(name).shape == (1, *MAPS[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("head", HEADS)
def test_every_attention_and_every_head_fit_every_backbone(name, attention, head):
    model = build(name, attention=attention, head=head)
    channels = MAPS[name][-1]
    expected = {
        "logit": channels + 1,
        "softmax2": 2 * channels + 2,
        "dense256": 256 * channels + 256 + 257,
    }
    init = partial(model.init_with_output, method="head")
    logits, variables = jax.eval_shape(init, jax.random.key(0), feature_map(name))
    assert (logits.shape, logits.dtype) == ((1,), jnp.float32)
    parts = {part: count(tree) for part, tree in variables["params"].items()}
    assert parts.pop("attention", 0) == ATTENTION[attention]
    assert parts == {"classifier": expected[head]}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_layer_computes_in_the_type_of_the_images(name, train):
    """Statistics and parameters stay float32, and so do the logits."""
    run = partial(
        build(name).apply,
        train=train,
        rngs={"dropout": jax.random.key(0)},
        capture_intermediates=True,
        mutable=["batch_stats", "intermediates"],
    )
    images = images_of(MINIMUM_SIZE[name], jnp.bfloat16, count=2)
    logits, state = jax.eval_shape(run, shapes(name), images)
    assert logits.dtype == jnp.float32
    layers = state["intermediates"]
    for leaf in jax.tree.leaves((layers["backbone"], layers["attention"])):
        assert leaf.dtype == jnp.bfloat16
    for leaf in jax.tree.leaves((shapes(name), state.get("batch_stats", {}))):
        assert leaf.dtype == jnp.float32


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_image_leaves_a_map_and_a_smaller_one_is_refused(name):
    least = MINIMUM_SIZE[name]
    check_network(config_of(name, least))
    assert min(feature_map(name, least).shape) >= 1
    message = refusal(check_network, config_of(name, least - 1))
    assert f"{name} needs {least} pixels or more, got {least - 1}" in message


def first_convolution(name, variables, images):
    """Returns the first convolution's output in a classifier; nothing after it is computed."""

    class Found(Exception):
        pass

    def stop(call, arguments, keywords, context):
        output = call(*arguments, **keywords)
        if isinstance(context.module, Conv):
            raise Found(output)
        return output

    with nn.intercept_methods(stop), pytest.raises(Found) as found:
        features(name, variables, images)
    return found.value.args[0]


@pytest.mark.parametrize("name", NAMES)
def test_one_channel_stands_for_three_equal_ones(name):
    rng, size = np.random.default_rng(0), MINIMUM_SIZE[name]
    grey = jnp.asarray(rng.uniform(-1, 1, (2, size, size, 1)), jnp.float32)
    parts = jax.tree.map(jnp.asarray, random_variables(shapes(name)))
    variables = {key: {"backbone": x} for key, x in parts.items()}
    one, three = (
        first_convolution(name, variables, x) for x in (grey, jnp.repeat(grey, 3, axis=-1))
    )
    np.testing.assert_allclose(one, three, rtol=1e-4, atol=1e-5)  # float32 sums of 9 to 363 terms


# --- gradients ------------------------------------------------------------------------------------


# Networks that repeat blocks: their module, the place of that number in a stage, and how many tell
# all: one block that makes the map smaller (in ConvNeXt a layer apart does) and one that does not.
REPEATED = {
    "convnext_tiny": (convnext_tiny, 1, 1),
    "efficientnet_b0": (efficientnet_b0, 1, 2),
    "mobilenet_v2": (mobilenet_v2, 2, 2),
    "resnet50": (resnet50, 1, 2),
}


@pytest.fixture
def short(monkeypatch):
    """A function: name of a network -> shapes of its variables; it repeats few blocks from now."""

    def shorten(name):
        if name in REPEATED:
            module, place, most = REPEATED[name]
            stages = [list(stage) for stage in module.STAGES]
            for stage in stages:
                stage[place] = min(stage[place], most)
            monkeypatch.setattr(module, "STAGES", [tuple(stage) for stage in stages])
        return shapes.__wrapped__(name)

    return shorten


AT_FIRST = {"scale": 1.0, "var": 1.0, "gamma": 1.0, "gain": 0.25}  # and 0 for what is no kernel


def random_variables(shapes):
    """Returns a backbone's variables with random kernels; making Keras's takes long to compile."""
    rng = np.random.default_rng(0)

    def leaf(path, shape):
        kind = path[-1].key
        if kind == "kernel":
            deviation = np.sqrt(2 / np.prod(shape.shape[:3]))  # keeps what a ReLU halves
            return rng.normal(0, deviation, shape.shape).astype(np.float32)
        return np.full(shape.shape, AT_FIRST.get(kind, 0.0), np.float32)

    parts = jax.tree_util.tree_map_with_path(leaf, shapes)
    return {key: parts.get(key, {}).get("backbone", {}) for key in ("params", "batch_stats")}


def gradients(name, shapes):
    """Returns the gradient of a loss for every parameter of a backbone in training, by path.

    The variables have these shapes. The images are of the smallest size, and differ: a BatchNorm of
    equal values passes none on.
    """
    model, rng, size = build(name).backbone, np.random.default_rng(1), MINIMUM_SIZE[name]
    grey = jnp.asarray(rng.integers(0, 256, (4, size, size)), jnp.uint8)
    images = scale_images(grey, preprocess="native", backbone=name)
    weights = rng.normal(size=(4, 1, 1, MAPS[name][-1])).astype(np.float32)

    def loss(params, stats):
        features, _ = model.apply(
            {"params": params, "batch_stats": stats},
            images,
            train=True,
            rngs={"dropout": jax.random.key(1)},
            mutable=["batch_stats"],
        )
        return jnp.sum(features * weights)

    found = jax.jit(jax.grad(loss), compiler_options=QUICK)(*random_variables(shapes).values())
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(found))
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(name, short):
    expected = short(name)
    found = gradients(name, expected)
    assert len(found) == len(jax.tree.leaves(expected["params"]["backbone"]))
    without = re.compile(NO_GRADIENT.get(name, "nothing"))
    for path, gradient in found.items():
        assert np.all(np.isfinite(gradient)), path
        if not without.fullmatch(path):
            assert np.any(gradient != 0), path
    assert any(without.fullmatch(path) for path in found) == (name in NO_GRADIENT)


# --- refusals -------------------------------------------------------------------------------------


def refusal(call, *args, **kwargs):
    """Returns the message of the ModelError that a call raises: one sentence, exit code 2."""
    with pytest.raises(ModelError) as error:
        call(*args, **kwargs)
    assert error.value.exit_code == 2
    message = str(error.value)
    assert "\n" not in message
    assert not message.endswith(".")
    return message


def test_an_unknown_backbone_is_refused_with_the_known_ones():
    message = refusal(build, "mobilenet_v9")
    assert "'mobilenet_v9'" in message
    assert all(name in message for name in MODELS)


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(WITH_ALPHA)))
def test_another_width_of_a_backbone_with_one_is_refused_with_those_that_have_more(name):
    message = refusal(build, name, alpha=0.5)
    assert message.startswith(f"model.alpha: {name} has one width, got 0.5;")
    assert all(other in message for other in WITH_ALPHA)


@pytest.mark.parametrize("name", WITH_ALPHA)
def test_a_backbone_with_several_widths_takes_another(name):
    model = build(name, alpha=0.5)
    narrow = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images_of(32))
    assert count(narrow["params"]["backbone"]) < count(shapes(name)["params"]["backbone"]) / 2


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(WITH_BATCH_NORM)))
def test_a_momentum_is_refused_where_there_is_no_batch_norm(name):
    message = refusal(build, name, batch_norm_momentum=0.9)
    assert message.startswith(f"model.batch_norm_momentum: {name} has no BatchNorm, got 0.9;")


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_every_batch_norm_takes_the_momentum_that_is_asked_for(name):
    def momenta(asked):
        found = set()

        def note(call, arguments, keywords, context):
            if isinstance(context.module, BatchNorm):
                found.add(context.module.momentum)
            return call(*arguments, **keywords)

        init = partial(build(name, batch_norm_momentum=asked).init, train=False)
        with nn.intercept_methods(note):
            jax.eval_shape(init, jax.random.key(0), images_of(32))
        return found

    assert momenta(0.0) == {0.999 if name == "mobilenet_v2" else 0.99}  # Keras's
    assert momenta(0.5) == {0.5}


def test_a_size_too_small_for_one_backbone_is_refused_with_those_it_is_enough_for():
    message = refusal(check_network, config_of("lenet_alexnet", 40))
    assert "lenet_alexnet needs 64 pixels or more, got 40" in message
    assert "googlenet" in message.split(";")[1]
    assert ";" not in refusal(check_network, config_of("googlenet", 8))  # enough for none
