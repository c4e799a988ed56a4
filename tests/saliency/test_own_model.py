"""The lines of the guide for a network of one's own, executed as they are."""

import functools
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import msa_flax.saliency
from msa_flax.saliency import SaliencyError

GUIDE = pathlib.Path(msa_flax.saliency.__file__).with_name("README.md")
MARKED = re.compile(r"<!-- own-model -->\s*```python\n(.*?)```", re.DOTALL)


class Own(nn.Module):
    """Somebody's network: nothing of this project is in it."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), (2, 2), name="first")(x))
        x = nn.relu(nn.Conv(5, (3, 3), (2, 2), name="second")(x))
        return nn.Dense(1, name="last")(x.mean(axis=(1, 2)))[:, 0]


def prepare(images):
    """Grey values to what this network was trained on."""
    return (jnp.asarray(images, jnp.float32) / 127.5 - 1)[..., None]


def lines():
    found = MARKED.search(GUIDE.read_text(encoding="utf-8"))
    assert found, "saliency/README.md: expected a Python block after <!-- own-model -->"
    return found[1]


@functools.cache
def own_variables():
    return jax.jit(Own().init)(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))


@pytest.fixture
def names():
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    variables = own_variables()
    given = {"model": Own(), "variables": variables, "images": images, "prepare": prepare}
    return given | {"layer": "second"}


def test_five_lines_explain_any_network_at_any_of_its_layers(names, capsys):
    exec(lines(), names)
    assert capsys.readouterr().out.strip() == "['first', 'second']"
    maps = np.asarray(names["maps"])
    assert (maps.shape, maps.dtype) == ((3, 4, 4), np.float32)
    assert maps.min() >= 0


def test_the_map_is_grad_cam_of_the_layer_written_out_by_hand(names):
    exec(lines(), names)
    split, images = names["split"], names["images"]
    layer = split.features_fn(images)
    # "second" is what the convolution gives, before the ReLU: the network's rest, by hand.
    last = names["variables"]["params"]["last"]

    def rest(features):
        return nn.relu(features).mean(axis=(1, 2)) @ last["kernel"][:, 0] + last["bias"][0]

    slopes = jax.grad(lambda features: rest(features).sum())(layer)
    weights = slopes.mean(axis=(1, 2), keepdims=True)
    expected = np.maximum((weights * layer).sum(axis=3), 0)
    # float32 sums of five terms
    np.testing.assert_allclose(names["maps"], expected, rtol=1e-4, atol=1e-6 * expected.max())
    logits = Own().apply(names["variables"], prepare(images))
    np.testing.assert_allclose(split.head_fn(layer), logits, rtol=1e-5)


def test_a_misspelt_layer_is_answered_with_the_layers_there_are(names):
    with pytest.raises(SaliencyError, match=r"such as second, first; got 'secnd'"):
        exec(lines(), names | {"layer": "secnd"})


def test_the_lines_use_only_public_names():
    imported = re.search(r"from msa_flax\.saliency import (.*)", lines())
    assert imported
    assert set(imported[1].split(", ")) <= set(msa_flax.saliency.__all__)
