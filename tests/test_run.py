"""The public names, and loading a backbone from a file as a user would."""

import importlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import msa_flax
from msa_flax import weights
from msa_flax.config import Config, ModelConfig
from msa_flax.run import initial_variables


def test_every_public_name_is_there():
    for name in msa_flax.__all__:
        assert getattr(msa_flax, name) is not None
        assert name in dir(msa_flax)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = msa_flax.no_such_name


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, msa_flax; sys.exit(bool({'jax', 'tensorflow', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory):
    """A MobileNet of width 0.25 saved by Keras."""
    keras = importlib.import_module("keras")
    model = keras.applications.MobileNet(
        weights=None, include_top=False, alpha=0.25, input_shape=(64, 64, 3)
    )
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    model.save_weights(path)
    return path


def config(pretrained):
    made = Config(model=ModelConfig(alpha=0.25, pretrained=str(pretrained)))
    made.data.root, made.data.image_size = "somewhere", 64
    return made


def test_load_keras_fills_the_backbone_and_reports_it(keras_file):
    made = config(keras_file)
    model = msa_flax.create_model(made.model)
    variables, report = msa_flax.load_keras(model, keras_file, image_size=64)
    arrays = weights.read(keras_file, layers=weights.KERAS_FAMILIES["mobilenet_v1"].layers)
    np.testing.assert_array_equal(
        variables["params"]["backbone"]["conv1"]["kernel"], arrays["conv1/kernel"]
    )
    assert report.tensors == 135
    assert report.hash == weights.tensors_hash(arrays)
    assert len(report.kept_initial) == 8  # three convolutions and the dense layer, with biases
    assert all(
        path.startswith(("params/attention", "params/classifier")) for path in report.kept_initial
    )


def test_pretrained_weights_are_the_start_of_training(keras_file):
    model = msa_flax.create_model(config("none").model)
    loaded, report = initial_variables(model, config(keras_file))
    fresh, none = initial_variables(model, config("none"))
    assert none is None
    assert report.source == keras_file.name
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), loaded["params"], fresh["params"])
    assert all(jax.tree.leaves([same["attention"], same["classifier"]]))
    assert not same["backbone"]["conv_pw_13"]["kernel"]


def test_weights_of_another_width_are_refused(keras_file):
    model = msa_flax.create_model(ModelConfig(alpha=0.5, pretrained="none"))
    with pytest.raises(weights.WeightsError, match="conv1"):
        msa_flax.load_keras(model, keras_file, image_size=64)
