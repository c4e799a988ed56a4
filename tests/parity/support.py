"""What comparisons with ``keras.applications`` share.

The reference is a Keras network with random weights, chosen so that a wrong network of ours gives
other numbers. Compared is every BatchNorm layer, with the activation that ours includes, and the
feature map at the end.
"""

import functools
import unittest.mock
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras_networks import OURS, exported, tensors, zeros
from quick_compilation import QUICK

from msa_flax.config import ModelConfig
from msa_flax.files import flatten
from msa_flax.models import create_model, layers
from msa_flax.weights import KERAS_FAMILIES, load

END = "features"


class Comparison:
    """A backbone of ours, and the Keras network that it copies, with the same random weights.

    Everything is made when it is first asked for, and kept.

    Attributes:
        sizes: of the images; one is even, one odd.
        tolerance: the largest error of a layer, in standard deviations of what is expected.
    """

    def __init__(
        self, backbone, constructor, *, layers, weights, images, sizes, tolerance, **fields
    ):
        """Says what is compared.

        Args:
            backbone: ours.
            constructor: of the Keras network.
            layers: our BatchNorm layer -> the Keras layer that computes the same.
            weights: the arguments of :func:`randomize`.
            images: size -> [b, h, w, 3].
            sizes: of the images.
            tolerance: of a comparison.
            fields: of the constructor, and of our model's configuration.
        """
        self.backbone, self.constructor, self.fields = backbone, constructor, fields
        self.layers, self.weights, self.images = layers, weights, images
        self.sizes, self.tolerance = sizes, tolerance
        self.family = KERAS_FAMILIES[backbone]

    def keras_network(self, size):
        """Returns a Keras network without top for images of one size.

        Of a known size: of an unknown one, Keras pads as if it were even.
        """
        shape = (size, size, 3)
        return self.constructor(weights=None, include_top=False, input_shape=shape, **self.fields)

    @functools.cached_property
    def fresh(self):
        """The tensors of the Keras network as Keras starts it."""
        return tensors(self._first, self.backbone)

    @functools.cached_property
    def references(self):
        """The randomised Keras network by size; the same weights at all sizes."""
        _ = self.fresh  # before they are changed
        first = randomize(self._first, **self.weights)
        found = {self.sizes[0]: first}
        for size in self.sizes[1:]:
            found[size] = self.keras_network(size)
            found[size].set_weights(first.get_weights())
            finalize(found[size])
        return found

    @functools.cached_property
    def tensors(self):
        """The tensors of the randomised Keras network."""
        return tensors(self.references[self.sizes[0]], self.backbone)

    @functools.cached_property
    def expected(self):
        """What the Keras networks compute, by size and by our names of layers."""
        return {
            size: self.keras_outputs(network, size) for size, network in self.references.items()
        }

    def keras_outputs(self, network, size, names=None):
        """Returns the outputs of layers of a Keras network by our names, and the last one."""
        names = names or self.layers
        wanted = [network.get_layer(name).output for name in names.values()]
        outputs = keras.Model(network.input, [*wanted, network.output])(self.images(size))
        return dict(zip([*names, END], map(np.asarray, outputs), strict=True))

    @functools.cached_property
    def model(self):
        """Our classifier, as users build it."""
        return build(self.backbone, **self.fields)

    @functools.cached_property
    def variables(self):
        """Our variables with the weights of the reference."""
        return self.loaded(self.tensors)

    def loaded(self, arrays, rules=None):
        """Returns our variables from Keras tensors; strict, as for users."""
        rules, top = rules or self.family.rules, self.family.top
        return load(zeros(self.model), arrays, rules, initial=OURS, ignore=top)[0]

    @functools.cached_property
    def outputs(self):
        """Our network as users run it: a compiled (variables, images) -> outputs by name."""
        return compiled(self.model)

    @functools.cached_property
    def quick_outputs(self):
        """The same, compiled with fewer optimisations."""
        return compiled(self.model, QUICK)

    def assert_parity(self, size, variables=None):
        """Compares every layer with Keras's; at an even size our network is as users run it.

        Args:
            size: of the images.
            variables: ours, if they are not those of the reference.
        """
        outputs = self.outputs if size % 2 == 0 else self.quick_outputs
        ours = outputs(variables or self.variables, self.images(size))
        assert ours.keys() == self.expected[size].keys()
        assert_parity(ours, self.expected[size], self.tolerance)

    def assert_mutation_fails(self, size, without=()):
        """The network as its module builds it now gives another number in some layer.

        Args:
            size: of the images.
            without: layers that are not compared, where a network has fewer stages than the
                reference and so another end.
        """
        model, given = build(self.backbone, **self.fields), flatten(self.variables, "/")

        def fill(path, leaf):
            value = given["/".join(key.key for key in path)]
            return value if value.shape == leaf.shape else leaf

        variables = jax.tree_util.tree_map_with_path(fill, zeros(model))
        ours = compiled(model, QUICK)(variables, self.images(size))
        ours = {name: output for name, output in ours.items() if name not in (END, *without)}
        with pytest.raises(AssertionError, match=r"_bn|_BN|bn_Conv1"):
            assert_parity(ours, self.expected[size], self.tolerance)

    def assert_same_updates(self, factor):
        """One step of training moves the running averages as in Keras; ``factor`` times it fails.

        An update is a small difference of two float32 numbers; errors are relative to the largest
        update of a layer. Measured: below 1e-4. Another momentum would change it tenfold, the
        unbiased variance by 1 / 8 where eight values are averaged.
        """
        size = self.sizes[0]
        network, images = self.references[size], self.images(size)
        weights = network.get_weights()
        network(images, training=True)
        after = tensors(network, self.backbone)
        network.set_weights(weights)
        moved = {name: after[name] - self.tensors[name] for name in after if "/moving_" in name}
        ours = our_updates(build(self.backbone, **self.fields), self.family, self.variables, images)
        assert ours.keys() == moved.keys()
        errors = [relative(ours[name], moved[name]) for name in moved]
        assert max(errors) < 1e-3
        assert max(relative(factor * ours[name], moved[name]) for name in moved) > 1e-3

    def assert_initialised_alike(self, layer_names):
        """Compares the spread of kernels with that in a Keras network as Keras starts it.

        Args:
            layer_names: of which layers; drawing them all takes its time.
        """
        draw = initializers(self.model)
        for name in (f"{layer}/kernel" for layer in layer_names):
            ours, theirs = np.asarray(draw[name]()), self.fresh[name]
            assert ours.size == theirs.size, name
            # the deviation of n numbers is known to 1 / sqrt(2 n); two such, and five sigma
            assert abs(ours.std() / theirs.std() - 1) < 5 * ours.size**-0.5, name
            # in deviations, a uniform distribution ends at 1.7, Keras's truncated normal at 2.3
            edges = [np.abs(array).max() / array.std() for array in (ours, theirs)]
            assert abs(edges[0] - edges[1]) < 0.3, f"{name}: {edges}"

    @functools.cached_property
    def _first(self):
        return self.keras_network(self.sizes[0])


def build(backbone, **fields):
    return create_model(ModelConfig(backbone=backbone, pretrained="none", **fields))


def compiled(model, options=None):
    """Returns a compiled (variables, images) -> outputs of our network by name.

    A network that is mutated must be built, and so compiled, on its own.
    """
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

    return jax.jit(outputs, compiler_options=options)


def assert_parity(ours, expected, tolerance):
    """Compares our outputs by name; errors are in standard deviations of what is expected."""
    assert ours.keys() <= expected.keys()
    for name in (name for name in expected if name in ours):
        assert ours[name].shape == expected[name].shape, name
        error = np.abs(ours[name] - expected[name]).max() / expected[name].std()
        assert error < tolerance, f"{name}: {error}"


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def randomize(network, *, norm, seed=3, depthwise=1.0):
    """Sets every tensor of a Keras network.

    Args:
        network: changed, and returned.
        seed: of the values.
        depthwise: deviation of depthwise kernels, in units of what keeps the size of a map.
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
            deviation = (depthwise if one_channel else 1) * fan_in**-0.5
            values = [rng.normal(0, deviation, shapes[0])]
            values += [rng.normal(0, 0.5, shape) for shape in shapes[1:]]
        else:
            continue
        for weight, value in zip(layer.weights, values, strict=True):
            weight.assign(value)
    finalize(network)
    return network


def finalize(network):
    """Tells layers that compute with copies of their weights that these have changed."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def our_updates(model, family, variables, images):
    """Returns by how much one call in training moves each running average, by Keras names."""

    @partial(jax.jit, compiler_options=QUICK)
    def train(variables, images):
        kwargs = {"train": True, "method": "features", "rngs": {"dropout": jax.random.key(0)}}
        return model.apply(variables, images, mutable=["batch_stats"], **kwargs)[1]

    after = exported(jax.device_get(train(variables, images)), family.rules)
    before = exported({"batch_stats": variables["batch_stats"]}, family.rules)
    return {name: after[name] - before[name] for name in before if "/moving_" in name}


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
