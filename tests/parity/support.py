"""What comparisons with ``keras.applications`` share.

The reference is a Keras network with random weights, chosen so that a wrong network of ours gives
other numbers. Compared is every BatchNorm layer, with the activation that ours includes, and the
feature map at the end.
"""

import unittest.mock
from functools import partial

import flax.linen as nn
import h5py
import jax
import jax.numpy as jnp
import keras
import numpy as np

from msa_flax.config import ModelConfig
from msa_flax.models import create_model, layers
from msa_flax.weights import KERAS_FAMILIES, export, load, read

# For networks that are run once: compiles in half the time.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
OURS = ("attention", "classifier")  # what no Keras file holds
END = "features"


def keras_network(constructor, size, **fields):
    """Returns a Keras network without top for images of one size.

    Of a known size: of an unknown one, Keras pads as if it were even.
    """
    return constructor(weights=None, include_top=False, input_shape=(size, size, 3), **fields)


def resized(reference, constructor, size, **fields):
    """Returns the same network, with the same weights, for images of another size."""
    network = keras_network(constructor, size, **fields)
    network.set_weights(reference.get_weights())
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with copies of its weights
    return network


def randomize(network, *, seed, norm):
    """Sets every tensor of a Keras network.

    Args:
        network: changed, and returned.
        seed: of the values.
        norm: layer name -> (typical gamma, mean of beta, deviation of beta) of a BatchNorm layer:
            what decides how the activation after it is met.
    """
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        shapes = [weight.shape for weight in layer.weights]
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, mean, deviation = norm(layer.name)
            values = (
                gamma * rng.uniform(0.5, 1.5, shapes[0]),  # Keras starts with 1
                rng.normal(mean, deviation, shapes[1]),
                rng.normal(0, 0.5, shapes[2]),
                rng.uniform(0.5, 2, shapes[3]),
            )
        elif isinstance(layer, keras.layers.Normalization):
            values = rng.uniform(0.3, 0.6, shapes[0]), rng.uniform(0.1, 0.4, shapes[1]), 7
        elif shapes:
            one_channel = isinstance(layer, keras.layers.DepthwiseConv2D)
            fan_in = np.prod(shapes[0][:2] if one_channel else shapes[0][:3])
            values = [rng.normal(0, fan_in**-0.5, shapes[0])]
            values += [rng.normal(0, 0.5, shape) for shape in shapes[1:]]
        else:
            continue
        for weight, value in zip(layer.weights, values, strict=True):
            weight.assign(value)
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return network


def tensors(network, backbone):
    """Returns a Keras network's tensors by the names that our rules know, in Keras's order."""
    arrays = {variable.path: variable.numpy() for variable in network.weights}
    return KERAS_FAMILIES[backbone].canonical(arrays)


def keras_outputs(network, images, names):
    """Returns a Keras network's outputs by our layer names, and the last one.

    Args:
        network: a Keras network.
        images: [b, h, w, 3].
        names: our BatchNorm layer -> the Keras layer that computes the same.
    """
    wanted = [network.get_layer(name).output for name in names.values()]
    outputs = keras.Model(network.input, [*wanted, network.output])(images)
    return dict(zip([*names, END], map(np.asarray, outputs), strict=True))


def our_network(backbone, *, options=None, **fields):
    """Returns the model as users build it, and a compiled (variables, images) -> outputs by name.

    A network that is mutated must be built, and so compiled, on its own.

    Args:
        backbone: ours.
        options: of the compiler.
        fields: of the model's configuration.
    """
    model = create_model(ModelConfig(backbone=backbone, pretrained="none", **fields))
    is_batch_norm = lambda module, _: isinstance(module, layers.BatchNorm)  # noqa: E731

    def outputs(variables, images):
        last, state = model.apply(
            variables,
            images,
            train=False,
            method="features",
            capture_intermediates=is_batch_norm,
            mutable=["intermediates"],
        )
        found = state["intermediates"]["backbone"]
        return {name: values["__call__"][0] for name, values in found.items()} | {END: last}

    return model, jax.jit(outputs, compiler_options=options)


def zeros(model):
    """Returns the model's variables filled with zeros: no initial value can help a test."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


def loaded(model, backbone, arrays):
    """Returns the model's variables from Keras tensors; strict, as for users."""
    family = KERAS_FAMILIES[backbone]
    return load(zeros(model), arrays, family.rules, initial=OURS, ignore=family.top)[0]


def assert_computes_in(dtype, backbone):
    """Every layer gives what it is given, in training too; statistics stay float32."""
    model = create_model(ModelConfig(backbone=backbone, pretrained="none"))
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), dtype)
    for train in (False, True):
        features = partial(
            model.apply,
            train=train,
            method="features",
            rngs={"dropout": jax.random.key(0)},
            capture_intermediates=True,
            mutable=["batch_stats", "intermediates"],
        )
        last, state = jax.eval_shape(features, zeros(model), images)
        for leaf in jax.tree.leaves((last, state["intermediates"])):
            assert leaf.dtype == dtype
        for leaf in jax.tree.leaves(state["batch_stats"]):
            assert leaf.dtype == jnp.float32


def assert_parity(ours, expected, tolerance):
    """Compares outputs by name; errors are in standard deviations of what is expected."""
    assert ours.keys() == expected.keys()
    for name, reference in expected.items():
        assert ours[name].shape == reference.shape, name
        error = np.abs(ours[name] - reference).max() / reference.std()
        assert error < tolerance, f"{name}: {error}"


# --- training -------------------------------------------------------------------------------------


def updates_of_keras(network, backbone, images):
    """Returns by how much one call in training moves each running average; undone afterwards."""
    before, weights = tensors(network, backbone), network.get_weights()
    network(images, training=True)
    after = tensors(network, backbone)
    network.set_weights(weights)
    return {name: after[name] - before[name] for name in before if "/moving_" in name}


def our_updates(model, backbone, variables, images):
    """Returns the same of our network, by Keras names."""
    rules = KERAS_FAMILIES[backbone].rules

    @partial(jax.jit, compiler_options=QUICK)
    def train(variables, images):
        kwargs = {"train": True, "method": "features", "rngs": {"dropout": jax.random.key(0)}}
        return model.apply(variables, images, mutable=["batch_stats"], **kwargs)[1]

    after = export(jax.device_get(train(variables, images)), rules)
    before = export({"batch_stats": variables["batch_stats"]}, rules)
    return {name: after[name] - before[name] for name in before if "/moving_" in name}


def assert_same_updates(ours, expected):
    """Compares updates; errors are relative to the largest update of the layer.

    An update is a small difference of two float32 numbers. Measured: below 1e-4. Another momentum
    would change it tenfold, the unbiased variance by 1 / 8 where eight values are averaged.
    """
    assert ours.keys() == expected.keys()
    for name, reference in expected.items():
        error = np.abs(ours[name] - reference).max() / np.abs(reference).max()
        assert error < 1e-3, f"{name}: {error}"


# --- files ----------------------------------------------------------------------------------------

FILES = ("m.h5", "m.keras", "m.weights.h5", "nameless.weights.h5")


def assert_file_gives_the_tensors(network, backbone, path):
    """Writes a Keras network to a file as Keras does, and reads it; one of ``FILES``."""
    if path.name.endswith(".weights.h5"):
        network.save_weights(path)
    else:
        network.save(path)
    if path.name.startswith("nameless"):
        strip_names(path)
    expected, family = tensors(network, backbone), KERAS_FAMILIES[backbone]
    arrays = family.canonical(read(path, layers=family.layers))
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def strip_names(path):
    """Removes the layer names from a ``.weights.h5``, as in files of older Keras versions."""

    def strip(_, item):
        if "name" in item.attrs:
            del item.attrs["name"]

    with h5py.File(path, "r+") as file:
        file.visititems(strip)


# --- initial values -------------------------------------------------------------------------------


def initializers(model):
    """Returns Keras's name of every parameter of the backbone -> a function that draws it."""
    found, original, key = {}, nn.Module.param, jax.random.key(0)

    def param(self, name, init_fn, *args, **kwargs):
        if self.path[0] == "backbone":
            found[f"{self.name}/{name}"] = partial(init_fn, key, *args)
        return original(self, name, init_fn, *args, **kwargs)

    with unittest.mock.patch.object(nn.Module, "param", param):
        jax.eval_shape(model.init, key, jnp.zeros((1, 64, 64, 3)))
    return found


def assert_initialised_alike(backbone, fresh, layer_names):
    """Compares the spread of kernels with that in a Keras network as Keras starts it.

    Args:
        backbone: ours.
        fresh: tensors of the Keras network.
        layer_names: of which layers; drawing them all takes its time.
    """
    draw = initializers(create_model(ModelConfig(backbone=backbone, pretrained="none")))
    for name in (f"{layer}/kernel" for layer in layer_names):
        ours, theirs = np.asarray(draw[name]()), fresh[name]
        assert ours.size == theirs.size, name
        # the deviation of n numbers is known to 1 / sqrt(2 n); two such, and five sigma
        assert abs(ours.std() / theirs.std() - 1) < 5 * ours.size**-0.5, name
        # in deviations, a uniform distribution ends at 1.7, Keras's truncated normal at 2.3
        edges = [np.abs(array).max() / array.std() for array in (ours, theirs)]
        assert abs(edges[0] - edges[1]) < 0.3, f"{name}: {edges}"
