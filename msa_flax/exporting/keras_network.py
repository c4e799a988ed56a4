"""A trained network as Keras has it: the backbone's weights, and the whole as a functional model.

Keras 3 builds both, so that files and layers are those that a Keras user would have made. It is
asked to compute with JAX; a program that has chosen another backend keeps it.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from msa_flax.files import UserError, flatten, write_atomically
from msa_flax.weights import KERAS_FAMILIES
from msa_flax.weights.rules import find

SUFFIX = ".weights.h5"
_CONSTRUCTORS = {"mobilenet_v1": "MobileNet", "mobilenet_v2": "MobileNetV2", "resnet50": "ResNet50"}
_CONSTRUCTORS |= {"efficientnet_b0": "EfficientNetB0", "convnext_tiny": "ConvNeXtTiny"}
# Of grey values, repeated over three channels: scale and offset, as models.inputs has them.
_SCALES: dict[str, tuple[float, Any]] = {
    "0..1": (1 / 255, 0.0),
    "tf": (1 / 127.5, -1.0),
    "caffe": (1.0, [-103.939, -116.779, -123.68]),
    "none": (1.0, 0.0),
}


class KerasError(UserError):
    """A network cannot be written for Keras."""


def write_keras(
    path: Path, variables: Mapping[str, Any], *, model: Any, image_size: int, scaling: str
) -> Path:
    """Writes the backbone's weights, and beside them the whole network; returns where that is.

    ``keras.applications.<Family>(weights=None, include_top=False).load_weights(path)`` reads the
    first; ``keras.models.load_model`` the second, ``NAME.keras`` beside ``NAME.weights.h5``: grey
    images 0..255 [b, s, s, 1] to logits [b, 1], with the scaling and the attention inside.

    Args:
        path: a new file, ``NAME.weights.h5``.
        variables: of the network, BatchNorm not folded.
        model: the ``ModelConfig`` that describes it.
        image_size: s.
        scaling: "0..1", or a value of ``models.NATIVE_SCALING``.

    Raises:
        KerasError: Keras has no such network or is not there, or a file is there already.
    """
    whole = path.with_name(path.name.removesuffix(SUFFIX) + ".keras")
    _check(path, whole, model.backbone)
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        import keras
    except ImportError as error:
        raise KerasError("--keras needs Keras 3: pip install keras, or leave it out") from error
    backbone = _backbone(keras, model, image_size)
    _fill(backbone, variables, model.backbone)
    network = _network(keras, backbone, model, image_size, scaling)
    _fill_rest(network, flatten(variables["params"], "/"))
    with tempfile.TemporaryDirectory() as folder:
        names = os.path.join(folder, f"x{SUFFIX}"), os.path.join(folder, "x.keras")
        backbone.save_weights(names[0])
        network.save(names[1])
        for place, name in zip((path, whole), names, strict=True):
            write_atomically(place, Path(name).read_bytes())
    return whole


def _check(path: Path, whole: Path, backbone: str) -> None:
    if backbone not in _CONSTRUCTORS:
        raise KerasError(
            f"--keras: Keras has no {backbone}; expected a run of one of "
            f"{', '.join(sorted(_CONSTRUCTORS))}"
        )
    if not path.name.endswith(SUFFIX) or path.name == SUFFIX:
        raise KerasError(f"--keras: expected a name that ends in {SUFFIX}, got {path.name!r}")
    if there := [place for place in (path, whole) if place.exists()]:
        raise KerasError(f"--keras: {there[0]} is there, nothing was overwritten: name another")


def _backbone(keras: Any, model: Any, size: int) -> Any:
    alpha = {"alpha": model.alpha} if model.backbone.startswith("mobilenet") else {}
    construct = getattr(keras.applications, _CONSTRUCTORS[model.backbone])
    return construct(weights=None, include_top=False, input_shape=(size, size, 3), **alpha)


def _fill(backbone: Any, variables: Mapping[str, Any], name: str) -> None:
    """Sets all weights of a Keras backbone; that none is left out is checked."""
    family = KERAS_FAMILIES[name]
    arrays = {}
    for path, leaf in flatten(variables, "/").items():
        if rule := find(family.rules, path):
            # A Keras model without ImageNet's weights takes variances as they are: see
            # weights/rules/efficientnet_b0.py.
            plain = rule[0] == "normalization/variance"
            arrays[rule[0]] = np.asarray(leaf) if plain else rule[1].to_keras(np.asarray(leaf))
    weights: dict[str, Any] = {"/".join(w.path.split("/")[-2:]): w for w in backbone.weights}
    found: dict[str, Any] = dict(family.canonical(weights))
    if set(found) != set(arrays):
        raise KerasError(
            f"--keras: this Keras has other layers in {name}, such as "
            f"{min(set(found) ^ set(arrays))}; use Keras 3"
        )
    for key, weight in found.items():
        weight.assign(arrays[key])
    for layer in backbone.layers:
        if hasattr(layer, "finalize_state"):  # it computes with copies of its weights
            layer.finalize_state()


def _network(keras: Any, backbone: Any, model: Any, size: int, scaling: str) -> Any:
    layers = keras.layers
    images = keras.Input((size, size, 1), name="images")
    scale, offset = _SCALES[scaling]
    grey = layers.Concatenate(name="colours")([images] * 3)
    features = backbone(layers.Rescaling(scale, offset, name="scaling")(grey))
    x = layers.GlobalAveragePooling2D(name="pooled")(_attention(keras, features, model))
    if model.head == "dense256":
        x = layers.Dense(256, activation="relu", name="dense")(x)
    return keras.Model(images, layers.Dense(1, name="logit")(x), name="classifier")


def _attention(keras: Any, features: Any, model: Any) -> Any:
    """Returns the feature map weighted by its attention, see models/attention.py."""
    layers, ops = keras.layers, keras.ops
    if model.attention == "none":
        return features
    pixels = [function(features, axis=-1, keepdims=True) for function in (ops.mean, ops.max)]
    described, weighted = layers.Concatenate(name="descriptors")(pixels), []
    sizes = model.kernel_sizes if model.attention == "msa" else (7,)
    for k in sizes:
        bias = model.attention == "msa"
        conv = layers.Conv2D(1, k, padding="same", use_bias=bias, name=f"conv_{k}")
        found = ops.sigmoid(conv(described))
        if bias and model.refine == "map":
            refine = layers.Conv2D(features.shape[-1], 1, name=f"refine_{k}")
            found = ops.sigmoid(refine(found))
        weighted.append(layers.Multiply(name=f"weighted_{k}")([found, features]))
    total = layers.Add(name="attention")(weighted) if len(weighted) > 1 else weighted[0]
    if model.attention == "msa" and model.refine == "features":
        return layers.Conv2D(features.shape[-1], 1, name="refine")(total)
    return total


def _fill_rest(network: Any, params: Mapping[str, Any]) -> None:
    """Sets the weights of attention and head."""
    for path, leaf in params.items():
        part, name = path.split("/", 1)
        if part != "backbone":
            layer, variable = name.replace("refine_bias", "refine/bias").split("/")
            values = np.asarray(leaf)
            if layer == "scores":  # the logit is the difference of the two
                layer, values = "logit", values[..., 1:] - values[..., :1]
            getattr(network.get_layer(layer), variable).assign(values)
