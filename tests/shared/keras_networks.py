"""Keras networks of every family that is copied here, and what their files hold.

They are of full depth, so that they have every layer, and narrow, so that they take little time.
"""

import functools

import h5py
import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras.src.applications import convnext, efficientnet, resnet

from msa_flax.config import ModelConfig
from msa_flax.files import flatten
from msa_flax.models import convnext_tiny, create_model, efficientnet_b0, resnet50
from msa_flax.models.mobilenet_v2 import divisible_by_8
from msa_flax.weights import KERAS_FAMILIES
from msa_flax.weights.rules import find

OURS = ("attention", "classifier")  # what no Keras file holds
ALPHA = {"mobilenet_v1": 0.25, "mobilenet_v2": 0.35}
WIDTH = 0.25  # of the EfficientNet
BOTTLENECKS = {"conv2": 4, "conv3": 8, "conv4": 12, "conv5": 16}  # channels in the ResNet
CONVNEXT = ((4, 3), (6, 3), (8, 9), (10, 3))  # its stages


def _resnet_stages(x):
    for name, blocks, _, stride in resnet50.STAGES:
        channels = BOTTLENECKS[name]
        x = resnet.stack_residual_blocks_v1(x, channels, blocks, stride1=stride, name=name)
    return x


def _convnext(stages, **fields):
    channels, blocks = zip(*stages, strict=True)
    return convnext.ConvNeXt(blocks, channels, name="convnext_tiny", **fields)


CONSTRUCTORS = {
    "mobilenet_v1": functools.partial(keras.applications.MobileNet, alpha=0.25),
    "mobilenet_v2": functools.partial(keras.applications.MobileNetV2, alpha=0.35),
    "resnet50": functools.partial(resnet.ResNet, _resnet_stages, False, True),
    "efficientnet_b0": functools.partial(efficientnet.EfficientNet, WIDTH, 1.0, 224),
    "convnext_tiny": functools.partial(_convnext, CONVNEXT),
}


def keras_network(backbone, **fields):
    """Returns a narrow Keras network, without top unless asked for, whose numbers all differ."""
    settings = {"weights": None, "include_top": False, "input_shape": (32, 32, 3)} | fields
    network, rng = CONSTRUCTORS[backbone](**settings), np.random.default_rng(0)
    network.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in network.weights])
    return network


def our_network(backbone, monkeypatch):
    """Returns our classifier of the same widths; its module is patched where that takes it."""
    if backbone == "resnet50":
        stages = [(name, n, BOTTLENECKS[name], stride) for name, n, _, stride in resnet50.STAGES]
        monkeypatch.setattr(resnet50, "STAGES", stages)
    elif backbone == "efficientnet_b0":
        for name in ("STEM_CHANNELS", "TOP_CHANNELS"):
            width = divisible_by_8(WIDTH * getattr(efficientnet_b0, name))
            monkeypatch.setattr(efficientnet_b0, name, width)
        stages = [
            (size, blocks, divisible_by_8(WIDTH * channels), *rest)
            for size, blocks, channels, *rest in efficientnet_b0.STAGES
        ]
        monkeypatch.setattr(efficientnet_b0, "STAGES", stages)
    elif backbone == "convnext_tiny":
        monkeypatch.setattr(convnext_tiny, "STAGES", CONVNEXT)
    alpha = ALPHA.get(backbone, 1.0)
    return create_model(ModelConfig(backbone=backbone, alpha=alpha, pretrained="none"))


def zeros(model):
    """Returns a model's variables filled with zeros: no initial value can help a test."""
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


def tensors(network, backbone):
    """Returns a Keras network's tensors by the names that our rules know, in Keras's order."""
    arrays = {"/".join(v.path.split("/")[-2:]): v.numpy() for v in network.weights}
    return KERAS_FAMILIES[backbone].canonical(arrays)


def exported(variables, rules):
    """Returns our variables under their Keras names and in Keras's layout: loading, reversed.

    Left out is what no rule names, as attention and head.
    """
    found = {}
    for path, leaf in flatten(variables, "/").items():
        if named := find(rules, path):
            found[named[0]] = np.array(named[1].to_keras(np.asarray(leaf)), np.float32)
    return found


def strip_names(path):
    """Removes the layer names from a ``.weights.h5``, as in files of older Keras versions."""

    def strip(_, item):
        if "name" in item.attrs:
            del item.attrs["name"]

    with h5py.File(path, "r+") as file:
        file.visititems(strip)


def assert_same(arrays, expected):
    """Compares tensors by name, bit for bit."""
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
