import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compilation import QUICK

from msa_flax.config import ModelConfig
from msa_flax.models import MINIMUM_SIZE, MODELS, create_model, scale_images
from msa_flax.saliency import network
from msa_flax.saliency.cam import gradcam
from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.network import at_layer, layer_names


class Block(nn.Module):
    """A residual block."""

    @nn.compact
    def __call__(self, x):
        y = nn.tanh(nn.Conv(4, (3, 3), name="first")(x))
        return x + nn.Conv(4, (3, 3), name="second")(y)


class Tiny(nn.Module):
    """A stem, a block with a way around it, and a head."""

    @nn.compact
    def __call__(self, images):
        x = nn.tanh(nn.Conv(4, (3, 3), (2, 2), name="stem")(images))
        x = Block(name="block")(x)
        x = nn.tanh(nn.Conv(3, (1, 1), name="last")(x))
        x = x.mean(axis=(1, 2)) + x.max(axis=(1, 2))
        return nn.Dense(1, name="logit")(x)[:, 0]


LAYERS = ["stem", "block/first", "block/second", "block", "last"]
CUTS = {"stem": True, "block/first": False, "block/second": False, "block": True, "last": True}
every_layer = pytest.mark.parametrize("layer", LAYERS)


def images(n=3, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(n, 6, 6, 2)).astype(dtype)


def filled(shapes):
    """Returns random variables with which a signal stays about as large as it is."""
    draw = np.random.default_rng(1).normal

    def fill(path, leaf):
        name, size = path[-1].key, leaf.shape
        values = {
            "kernel": draw(size=size) * np.sqrt(2 / np.prod(size[:-1])),
            "scale": np.ones(size),
            "var": np.ones(size),
        }
        return jnp.asarray(values.get(name, draw(size=size) / 4), np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@functools.cache
def tiny():
    return Tiny(), filled(jax.eval_shape(Tiny().init, jax.random.key(0), images()))


def split_at(layer, x):
    return at_layer(*tiny(), layer, x)


def quickly(function, *arguments):
    return jax.tree.map(np.asarray, jax.jit(function, compiler_options=QUICK)(*arguments))


def model(**fields):
    return create_model(ModelConfig(pretrained="none", **fields))


@functools.cache
def shapes(name):
    size = MINIMUM_SIZE[name]
    x = jax.ShapeDtypeStruct((2, size, size, 3), np.float32)
    built = model(backbone=name, attention="msa")
    return built, jax.eval_shape(built.init, jax.random.key(0), x), x


def test_layers_are_listed_in_the_order_of_execution_and_a_module_after_its_parts():
    assert layer_names(*tiny(), (3, 6, 6, 2)) == LAYERS


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_network_has_named_layers_and_can_be_split_at_one_in_the_middle(name):
    built, variables, x = shapes(name)
    names = layer_names(built, variables, x.shape)
    assert len(names) == len(set(names))
    maps = [f"attention/conv_{k}" for k in (3, 5, 7)]
    assert names[-5:] == ["backbone", *maps, "attention"]
    assert all(layer.startswith("backbone/") for layer in names[:-5])
    assert len(names) > 12

    def halves(variables, x):
        split = at_layer(built, variables, names[len(names) // 2], x)
        features = split.features_fn(x)
        return features, split.head_fn(features)

    features, logits = jax.eval_shape(halves, variables, x)
    assert features.ndim == 4
    assert logits.shape == (2,)


def test_the_halves_of_a_network_are_the_network():
    name, cuts = "mobilenet_v2", {"block_13_expand": True, "block_14_expand": False}
    built = model(backbone=name, alpha=0.35, attention="msa")
    grey = np.random.default_rng(0).integers(0, 256, (2, 32, 32)).astype(np.uint8)
    prepare = functools.partial(scale_images, preprocess="native", backbone=name)
    shape = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    variables = filled(jax.eval_shape(built.init, jax.random.key(0), shape))
    splits = functools.partial(at_layer, built, prepare=prepare)

    def everything(variables, x):
        found = {}
        for layer, cut in cuts.items():
            split = splits(variables, f"backbone/{layer}", x)
            features = split.features_fn(x)
            # Where nothing leads around the layer, features swapped are images swapped.
            found[layer] = split.head_fn(features[::-1])[::-1] if cut else split.head_fn(features)
        return built.apply(variables, prepare(x)), found

    whole, found = quickly(everything, variables, grey)
    assert abs(whole[0] - whole[1]) > 1e-3
    for layer, cut in cuts.items():
        # Convolutions of many terms, added in another order: float32 roundings.
        np.testing.assert_allclose(found[layer], whole, atol=1e-5, err_msg=layer)
        assert splits(variables, f"backbone/{layer}", grey).is_cut == cut


def test_at_the_backbone_grad_cam_is_that_of_the_classifiers_own_halves(small_classifier):
    built = small_classifier()
    x = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)
    variables = filled(jax.eval_shape(built.init, jax.random.key(0), jnp.asarray(x)))
    bound = functools.partial(built.apply, variables)

    def both(x):
        split = at_layer(built, variables, "backbone", x)
        own = [functools.partial(bound, method=half) for half in ("features", "head")]
        return [
            gradcam(features, head, x, target)
            for features, head in ((split.features_fn, split.head_fn), own)
            for target in ("fracture", "normal")
        ]

    *ours, fracture, normal = quickly(both, x)
    assert max(fracture.max(), normal.max()) > 0
    np.testing.assert_array_equal(ours, [fracture, normal])


@every_layer
def test_the_gradient_of_the_head_agrees_with_finite_differences(layer):
    assert_finite_differences(layer)


def assert_finite_differences(layer):
    with jax.enable_x64(True):
        x, step = images(2, dtype=np.float64), 1e-6
        split = split_at(layer, x)
        features = quickly(split.features_fn, x)
        head = jax.jit(split.head_fn, compiler_options=QUICK)
        slopes = quickly(jax.grad(lambda f: split.head_fn(f).sum()), features)
        directions = np.random.default_rng(2).normal(size=(5, *features.shape))
        rises = [head(features + step * d) - head(features - step * d) for d in directions]
    found = (directions * slopes[None]).sum(axis=(2, 3, 4))
    assert abs(found).min() > 1e-4
    # Central differences err by step^2 and, by roundings of 1e-16 over the step, by 1e-9.
    np.testing.assert_allclose(np.stack(rises) / (2 * step), found, rtol=1e-5, atol=1e-8)


def test_with_a_head_that_forgets_the_features_that_test_fails(monkeypatch):
    monkeypatch.setattr(
        network._Network,
        "logits",
        lambda self, layer, x, features: self.model.apply(self.variables, x),
    )
    with pytest.raises(AssertionError):
        assert_finite_differences("last")


@every_layer
def test_the_head_needs_the_images_where_a_way_leads_around_the_layer(layer):
    """A cut, found without computing anything, is where other images make no difference."""
    split, other = split_at(layer, images()), split_at(layer, images(seed=5))
    features = split.features_fn(images())
    same = np.array_equal(split.head_fn(features), other.head_fn(features))
    assert same == split.is_cut == CUTS[layer]


def test_what_leads_around_the_layer_comes_from_the_images_given():
    stem = quickly(split_at("stem", images()).features_fn, images())
    split = split_at("block/second", images())
    inside = jnp.asarray(np.random.default_rng(3).normal(size=(3, 3, 3, 4)), np.float32)
    by_hand = split_at("block", images()).head_fn(jnp.tanh(stem) + inside)
    # The same sum, once by NumPy: float32 roundings.
    np.testing.assert_allclose(split.head_fn(inside), by_hand, rtol=1e-5)


def test_at_a_cut_the_head_takes_any_number_of_features_elsewhere_only_those_of_the_images():
    many = split_at("block", images(7, seed=4)).features_fn(images(7, seed=4))
    cut, inside = split_at("block", images()), split_at("block/first", images())
    expected = tiny()[0].apply(tiny()[1], images(7, seed=4))
    # Batches of another size: float32 roundings.
    np.testing.assert_allclose(cut.head_fn(many), expected, rtol=1e-5)
    with pytest.raises(
        SaliencyError, match="those of 3 images, got 7: paths lead around block/fir"
    ):
        inside.head_fn(many)


def test_any_number_of_features_of_one_image_may_be_compared_anywhere():
    split = split_at("block/first", images(1))
    features = jnp.asarray(np.random.default_rng(3).normal(size=(4, 3, 3, 4)), np.float32)
    one_by_one = np.concatenate([split.head_fn(features[i : i + 1]) for i in range(4)])
    # Batches of another size: float32 roundings.
    np.testing.assert_allclose(split.head_fn(features), one_by_one, rtol=1e-5)


def test_a_compiled_head_leaves_out_what_its_features_replace():
    def head(x, features):
        return split_at("last", x).head_fn(features)

    def work(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]

    features = np.zeros((3, 3, 3, 3), np.float32)
    whole = work(functools.partial(tiny()[0].apply, tiny()[1]), images())
    # Three convolutions of 3 x 3 pixels are most of the work.
    assert work(head, images(), features) < whole / 10


def test_images_may_be_traced_and_the_result_is_that_without_compiling():
    def explain(x):
        split = split_at("block/first", x)
        return gradcam(split.features_fn, split.head_fn, x, "fracture")

    expected = explain(images())
    # Fused in another way: float32 roundings.
    np.testing.assert_allclose(quickly(explain, images()), expected, atol=1e-5 * expected.max())


def test_the_method_of_the_model_may_be_another_one():
    built, variables = tiny()

    def doubled(module, x, *, scale):
        return scale * module(x)

    method = functools.partial(doubled, scale=2.0)
    split = at_layer(built, variables, "last", images(), method=method)
    expected = 2 * built.apply(variables, images())
    np.testing.assert_allclose(split.head_fn(split.features_fn(images())), expected, rtol=1e-5)
    assert layer_names(built, variables, (3, 6, 6, 2), method=method) == LAYERS


def test_an_unknown_layer_is_refused_in_one_sentence_with_the_closest_names_first():
    built, variables, x = shapes("mobilenet_v1")
    with pytest.raises(SaliencyError) as refusal:
        jax.eval_shape(lambda v: at_layer(built, v, "backbone/conv_dw6", x).shape, variables)
    message = str(refusal.value)
    assert message.startswith(
        "layer: expected one with an output [b, h, w, c], such as backbone/conv_dw_6, "
    )
    assert message.endswith("; got 'backbone/conv_dw6'")
    assert message.count("backbone/") == network.CHOICES + 1
    assert refusal.value.exit_code == 2


def test_layers_without_a_map_are_not_offered():
    with pytest.raises(SaliencyError, match=r"such as block/first, last, .*; got 'logit'"):
        split_at("logit", images())
    dense = nn.Sequential([lambda x: x.reshape(len(x), -1), nn.Dense(1)])
    variables = dense.init(jax.random.key(0), images())
    with pytest.raises(SaliencyError, match=r"\(this network has none\); got 'logit'"):
        at_layer(dense, variables, "logit", images())


def test_a_layer_that_is_used_twice_is_refused_and_not_offered():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            shared = nn.Conv(2, (1, 1), name="shared")
            return nn.Conv(1, (1, 1), name="end")(shared(shared(x))).sum(axis=(1, 2, 3))

    variables = Twice().init(jax.random.key(0), images())
    assert layer_names(Twice(), variables, (3, 6, 6, 2)) == ["end"]
    with pytest.raises(SaliencyError, match="got 'shared', which is used 2 times"):
        at_layer(Twice(), variables, "shared", images())


def test_features_of_another_size_are_refused():
    with pytest.raises(
        SaliencyError, match=r"expected \(3, 3, 3, 4\) at block, got \(3, 3, 3, 5\)"
    ):
        split_at("block", images()).head_fn(jnp.zeros((3, 3, 3, 5)))
