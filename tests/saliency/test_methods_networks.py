"""Every method explains every network with every head; shapes are found, nothing is compiled."""

import functools

import jax
import numpy as np
import pytest

from msa_flax.config import ModelConfig
from msa_flax.models import MINIMUM_SIZE, MODELS, create_model, scale_images
from msa_flax.saliency import METHODS, make_explain_step
from msa_flax.saliency.interface import TARGETS

HEADS = ("logit", "softmax2", "dense256")
IMAGES = 2


def model(name, head="logit"):
    return create_model(ModelConfig(backbone=name, head=head, attention="msa", pretrained="none"))


@functools.cache
def backbone(name):
    """Returns features of images, traced once for all heads and methods: jit keeps what it saw."""
    built, size = model(name), MINIMUM_SIZE[name]
    grey = jax.ShapeDtypeStruct((IMAGES, size, size), np.float32)  # one trace less than of uint8

    def features(module, images):
        return module.features(scale_images(images, preprocess="paper", backbone=name))

    init = functools.partial(built.init, method=features)
    variables = jax.eval_shape(init, jax.random.key(0), grey)
    bound = jax.jit(functools.partial(built.apply, method=features))
    return bound, variables, grey, jax.eval_shape(bound, variables, grey)


def explained(name, head):
    """Returns the shapes of all that a network's step gives, and those of features and images."""
    features_fn, variables, grey, features = backbone(name)
    built = model(name, head)
    init = functools.partial(built.init, method="head")
    weights = jax.eval_shape(init, jax.random.key(0), features)
    rest = jax.jit(functools.partial(built.apply, method="head"))
    step = make_explain_step(
        lambda both, images: features_fn(both[0], images),
        lambda both, x: (rest(both[1], x), {}),
        METHODS,
    )
    return jax.eval_shape(step, (variables, weights), grey), features.shape, grey.shape


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_method_works_with_every_network_and_head(name, head):
    found, cells, pixels = explained(name, head)
    assert found.pop("logit").shape == (IMAGES,)
    assert set(found) == {f"{method}/{target}" for method in METHODS for target in TARGETS}
    fine = ("integrated_gradients", "smoothgrad", "occlusion", "centre_prior")
    for key, maps in found.items():
        expected = pixels if key.split("/")[0] in fine else cells[:3]
        assert (maps.shape, maps.dtype) == (expected, np.float32), key
