"""Loading a backbone from a Keras file as a user would: the model itself says which one it has."""

import jax
import numpy as np
import pytest
from keras_networks import assert_same, exported, keras_network, our_network, tensors, zeros

import msa_flax
from msa_flax import initial
from msa_flax.config import Config, ModelConfig
from msa_flax.initial import initial_variables
from msa_flax.models import MODELS
from msa_flax.weights import KERAS_FAMILIES, WeightsError, tensors_hash


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(backbone) -> a narrow Keras network, and the file that Keras has saved it in."""
    folder, found = tmp_path_factory.mktemp("weights"), {}

    def network_and_file(backbone):
        if backbone not in found:
            network, path = keras_network(backbone), folder / f"{backbone}.weights.h5"
            network.save_weights(path)
            found[backbone] = network, path
        return found[backbone]

    return network_and_file


@pytest.fixture
def uncompiled(monkeypatch):
    """Initial values are zeros, which compiles nothing."""
    monkeypatch.setattr(initial, "initialise", lambda model, **_: zeros(model))


def config(pretrained):
    made = Config(model=ModelConfig(alpha=0.25, pretrained=str(pretrained)))
    made.data.root, made.data.image_size = "somewhere", 64
    return made


@pytest.mark.parametrize("backbone", KERAS_FAMILIES)
def test_a_file_of_the_same_network_fills_the_backbone(backbone, saved, uncompiled, monkeypatch):
    network, path = saved(backbone)
    model = our_network(backbone, monkeypatch)
    variables, report = msa_flax.load_keras(model, path)
    arrays = tensors(network, backbone)
    assert_same(exported(variables, KERAS_FAMILIES[backbone].rules), arrays)
    assert (report.tensors, report.hash) == (len(arrays), tensors_hash(arrays))
    assert report.source == path.name
    assert len(report.kept_initial) == 8  # three convolutions and the dense layer, with biases
    assert {kept.split("/")[1] for kept in report.kept_initial} == {"attention", "classifier"}


@pytest.mark.parametrize("backbone", sorted(set(KERAS_FAMILIES) - {"resnet50"}))
def test_a_file_of_another_network_is_refused_with_everything_that_does_not_fit(
    backbone, saved, uncompiled, monkeypatch
):
    network, path = saved("resnet50")
    model = our_network(backbone, monkeypatch)
    with pytest.raises(WeightsError) as refusal:
        msa_flax.load_keras(model, path)
    message = str(refusal.value)
    unexpected = message.partition("unexpected: ")[2]
    assert message.startswith(f"the weights of {path.name} do not fit the model; missing: ")
    assert all(name in unexpected for name in tensors(network, "resnet50"))


@pytest.mark.parametrize("backbone", sorted(set(MODELS) - set(KERAS_FAMILIES)))
def test_a_network_that_keras_has_not_is_refused_with_those_it_has(backbone, saved):
    model = msa_flax.create_model(ModelConfig(backbone=backbone, pretrained="none"))
    with pytest.raises(WeightsError, match=f"^Keras has no {backbone}, and") as refusal:
        msa_flax.load_keras(model, saved("mobilenet_v1")[1])
    assert all(name in str(refusal.value) for name in KERAS_FAMILIES)


def test_a_network_of_ones_own_is_refused_by_the_name_of_its_class(small_classifier):
    with pytest.raises(WeightsError, match=r"^Keras has no SmallBackbone, and"):
        msa_flax.load_keras(small_classifier(), "a.h5")


def test_weights_of_another_width_are_refused(saved, uncompiled):
    model = msa_flax.create_model(ModelConfig(alpha=0.5, pretrained="none"))
    with pytest.raises(WeightsError, match="conv1"):
        msa_flax.load_keras(model, saved("mobilenet_v1")[1])


def test_pretrained_weights_are_the_start_of_training(saved):
    _, path = saved("mobilenet_v1")
    model = msa_flax.create_model(config("none").model)
    loaded, report = initial_variables(model, config(path))
    fresh, none = initial_variables(model, config("none"))
    assert none is None
    assert report.source == path.name
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), loaded["params"], fresh["params"])
    assert all(jax.tree.leaves([same["attention"], same["classifier"]]))
    assert not same["backbone"]["conv_pw_13"]["kernel"]


@pytest.mark.realdata
def test_genuine_weights_are_told_from_a_copy_with_a_flipped_bit(realdata, tmp_path, uncompiled):
    import shutil

    import h5py

    made = config(realdata / "weights/mobilenet_1_0_224_tf_no_top.h5")
    made.model.alpha = 1.0
    model = msa_flax.create_model(made.model)
    assert initial_variables(model, made)[1].note == ""
    made.model.pretrained = str(realdata / "weights/mobilenet_1_0_224_tf.h5")  # with its top
    assert initial_variables(model, made)[1].note == ""
    path = tmp_path / "mine.h5"
    shutil.copyfile(realdata / "weights/mobilenet_1_0_224_tf_no_top.h5", path)
    with h5py.File(path, "r+") as file:
        kernel = file["conv1/conv1/kernel:0"]
        values = kernel[...]
        values.view(np.uint32).flat[7] ^= 1
        kernel[...] = values
    made.model.pretrained = str(path)
    _, report = initial_variables(model, made)
    assert "mine.h5 has the tensors of Keras' mobilenet_1_0_224_tf_no_top.h5" in report.note
    assert report.to_dict()["note"] == report.note
