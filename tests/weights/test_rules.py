"""The table of every family fits every file that Keras writes of such a network."""

import functools
import re

import pytest
from keras_networks import (
    OURS,
    assert_same,
    exported,
    keras_network,
    our_network,
    strip_names,
    tensors,
    zeros,
)

from msa_flax.weights import KERAS_FAMILIES, WeightsError, load, read

WITH_TOP = sorted(name for name, family in KERAS_FAMILIES.items() if family.top)
network = functools.cache(keras_network)  # (family, include_top=...)


@pytest.mark.parametrize("backbone", KERAS_FAMILIES)
def test_no_path_is_matched_by_two_rules(backbone):
    family = KERAS_FAMILIES[backbone]
    layers = [name for _, name in family.layers]
    paths = [
        f"{collection}/{parent}{layer}/{leaf}"
        for collection in ("params", "batch_stats")
        for parent in ("backbone/", "")
        for layer in layers
        for leaf in ("kernel", "bias", "scale", "mean", "var")
    ]
    counts = [sum(bool(re.fullmatch(r.pattern, p)) for r in family.rules) for p in paths]
    assert set(counts) == {0, 1}


def assert_file_gives_the_tensors(network, backbone, path):
    """Writes a Keras network to a file as Keras does, and reads it."""
    (network.save_weights if path.name.endswith(".weights.h5") else network.save)(path)
    if path.name.startswith("nameless"):
        strip_names(path)
    family = KERAS_FAMILIES[backbone]
    arrays = family.canonical(read(path, layers=family.layers))
    assert_same(arrays, tensors(network, backbone))


@pytest.mark.parametrize("name", ["m.h5", "m.keras", "m.weights.h5", "nameless.weights.h5"])
@pytest.mark.parametrize("backbone", KERAS_FAMILIES)
def test_every_kind_of_file_gives_the_tensors(backbone, tmp_path, name):
    assert_file_gives_the_tensors(network(backbone), backbone, tmp_path / name)


@pytest.mark.parametrize("backbone", WITH_TOP)
def test_a_file_without_names_may_have_a_top(backbone, tmp_path):
    whole = network(backbone, include_top=True)
    assert_file_gives_the_tensors(whole, backbone, tmp_path / "nameless.weights.h5")


@pytest.mark.parametrize("backbone", KERAS_FAMILIES)
def test_a_network_fills_ours_and_comes_back_as_it_was(backbone, monkeypatch):
    family, arrays = KERAS_FAMILIES[backbone], tensors(network(backbone), backbone)
    model = our_network(backbone, monkeypatch)
    filled, report = load(zeros(model), arrays, family.rules, initial=OURS)
    assert report.tensors == len(arrays)
    assert report.parameters == network(backbone).count_params()
    assert_same(exported(filled, family.rules), arrays)


@pytest.mark.parametrize("backbone", WITH_TOP)
def test_a_classification_top_is_left_out_and_nothing_else(backbone, monkeypatch):
    family = KERAS_FAMILIES[backbone]
    whole = tensors(network(backbone, include_top=True), backbone)
    variables = zeros(our_network(backbone, monkeypatch))
    _, report = load(variables, whole, family.rules, initial=OURS, ignore=family.top)
    assert report.ignored == tuple(f"{family.top[0]}/{kind}" for kind in ("bias", "kernel"))
    with pytest.raises(WeightsError, match=rf"unexpected: {re.escape(report.ignored[0])}"):
        load(variables, whole, family.rules, initial=OURS)


def test_a_layer_that_keras_numbers_anew_is_recognised():
    network("efficientnet_b0")
    second = keras_network("efficientnet_b0")
    assert any(re.match(r"normalization_\d+/", weight.path) for weight in second.weights)
    assert "normalization/variance" in tensors(second, "efficientnet_b0")
