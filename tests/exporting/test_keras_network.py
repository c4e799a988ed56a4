"""What is written for Keras is loaded by Keras, and gives our logits there."""

import functools

import jax
import keras
import numpy as np
import pytest
from keras_networks import ALPHA, CONSTRUCTORS, OURS, our_network, zeros
from quick_compilation import QUICK

from msa_flax.config import ModelConfig
from msa_flax.exporting import keras_network
from msa_flax.exporting.keras_network import KerasError, write_keras
from msa_flax.models import MODELS, NATIVE_SCALING, create_model, scale_images, shapes
from msa_flax.weights import KERAS_FAMILIES, load, read

SIZE = 64
SETTINGS = [  # every backbone; every attention, head and scaling once
    ("mobilenet_v1", {"refine": "map", "head": "softmax2"}, "paper"),
    ("mobilenet_v2", {"refine": "features", "head": "dense256"}, "native"),
    ("resnet50", {"attention": "cbam"}, "native"),
    ("efficientnet_b0", {"attention": "none"}, "native"),
    ("convnext_tiny", {"kernel_sizes": (3,)}, "native"),
]


def awake(model):
    """Variables of a network whose logits differ from image to image, and by all of its layers."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        fan = max(np.prod(leaf.shape[:-1], dtype=int), 1)
        name = path[-1].key
        if name in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        if name == "count":  # a whole number in Keras
            return np.float32(7)
        if name == "gamma":
            return rng.uniform(0.1, 0.3, leaf.shape).astype(np.float32)
        spread = 0.2 if len(leaf.shape) < 2 else (2 / fan) ** 0.5
        return rng.normal(0, spread, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes(model))


def narrow_network(backbone, shape):
    return CONSTRUCTORS[backbone](weights=None, include_top=False, input_shape=shape)


def test_the_networks_that_keras_has_are_those_that_weights_are_read_of():
    assert set(keras_network._CONSTRUCTORS) == set(KERAS_FAMILIES)
    for name in keras_network._CONSTRUCTORS.values():
        assert callable(getattr(keras.applications, name))


@pytest.mark.parametrize(("backbone", "fields", "preprocess"), SETTINGS)
def test_keras_loads_both_files_and_gives_our_logits(
    backbone, fields, preprocess, tmp_path, monkeypatch
):
    alpha = ALPHA.get(backbone, 1.0)
    config = ModelConfig(backbone=backbone, pretrained="none", alpha=alpha, **fields)
    if backbone not in ALPHA:  # narrow, which takes little time
        our_network(backbone, monkeypatch)
        monkeypatch.setattr(
            keras_network, "_backbone", lambda *_: narrow_network(backbone, (SIZE, SIZE, 3))
        )
    model = create_model(config)
    variables = awake(model)
    scaling = "0..1" if preprocess == "paper" else NATIVE_SCALING[backbone]
    path = tmp_path / "net.weights.h5"
    whole = write_keras(path, variables, model=config, image_size=SIZE, scaling=scaling)
    images = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE), dtype=np.uint8)
    images //= np.array([1, 2, 4, 8], np.uint8)[:, None, None]
    scale = functools.partial(scale_images, preprocess=preprocess, backbone=backbone)
    ours = np.asarray(
        jax.jit(lambda v, x: model.apply(v, scale(x), train=False), compiler_options=QUICK)(
            variables, images
        )
    )
    loaded = keras.models.load_model(whole)
    theirs = np.asarray(loaded(images[..., None].astype(np.float32)))[:, 0]
    error = np.abs(theirs - ours).max()
    # float32 sums in other orders; and a network that took images for one another would be noticed
    assert error < 1e-4 * max(1, np.abs(ours).max())
    assert error < 0.02 * ours.std()
    family = KERAS_FAMILIES[backbone]
    arrays = family.canonical(read(path, layers=family.layers))
    again, report = load(zeros(model), arrays, family.rules, initial=OURS)
    assert report.ignored == ()
    jax.tree.map(
        np.testing.assert_array_equal,
        *(
            {kind: tree.get(kind, {}).get("backbone", {}) for kind in ("params", "batch_stats")}
            for tree in (again, variables)
        ),
    )


def test_what_keras_does_not_have_and_what_is_there_is_refused(tmp_path):
    given = {"image_size": SIZE, "scaling": "0..1"}
    for backbone in set(MODELS) - {setting[0] for setting in SETTINGS}:
        config = ModelConfig(backbone=backbone)
        with pytest.raises(KerasError, match=f"Keras has no {backbone}"):
            write_keras(tmp_path / "x.weights.h5", {}, model=config, **given)
    with pytest.raises(KerasError, match=r"ends in \.weights\.h5, got 'x\.h5'"):
        write_keras(tmp_path / "x.h5", {}, model=ModelConfig(), **given)
    for name in ("x.weights.h5", "x.keras"):
        (tmp_path / name).touch()
        with pytest.raises(KerasError, match="nothing was overwritten"):
            write_keras(tmp_path / "x.weights.h5", {}, model=ModelConfig(), **given)
        (tmp_path / name).unlink()
