"""Maps of small networks trained on true labels and on permuted ones."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.saliency import gradcam, label_randomisation
from msa_flax.saliency.interface import SaliencyError

SIDE, CELLS, TRAIN, TEST = 16, 4, 96, 24
STEPS, RATE = 150, 0.3
PERMUTED = range(3, 15)  # seeds: what one network learns from noise may look like anything


def pictures():
    """Noise with a bright square (fracture) or a dark one (normal) in one of the cells."""
    rng = np.random.default_rng(0)
    label = np.arange(TRAIN + TEST) % 2
    images = rng.normal(0, 0.3, (len(label), SIDE, SIDE))
    for image, fracture in zip(images, label, strict=True):
        y, x = 4 * rng.integers(0, CELLS, 2)
        image[y : y + 4, x : x + 4] += 1 if fracture else -1
    return images.astype(np.float32), label


IMAGES, LABEL = pictures()
UNSEEN = IMAGES[TRAIN:]


def features_fn(weights, images):
    """Brightness and two slopes of 4 x 4 cells through a layer of 12 units."""
    cells = images.reshape(-1, CELLS, 4, CELLS, 4).transpose(0, 1, 3, 2, 4)
    slopes = [(cells[..., :2, :] - cells[..., 2:, :]), (cells[..., :2] - cells[..., 2:])]
    planes = jnp.stack([plane.mean(axis=(3, 4)) for plane in (cells, *slopes)], axis=-1)
    hidden = jnp.einsum("bhwc,cd->bhwd", planes, weights["hidden"])
    return jnp.maximum(hidden + weights["bias"][None, None, None], 0)


def head_fn(weights, features):
    return features.mean(axis=(1, 2)) @ weights["last"] + weights["offset"]


def loss(weights, images, label):
    logit = head_fn(weights, features_fn(weights, images))
    return jnp.mean(jnp.logaddexp(0, (1 - 2 * label) * logit))


@jax.jit
def fit(weights, label):
    def descend(weights, _):
        slope = jax.grad(loss)(weights, jnp.asarray(IMAGES[:TRAIN]), label)
        return jax.tree.map(lambda w, s: w - RATE * s, weights, slope), None

    return jax.lax.scan(descend, weights, None, length=STEPS)[0]


def permutation(label, rng):
    """Returns labels in an order that has nothing to do with the true one, not even by chance."""
    found = label.copy()
    for value in (0, 1):
        members = rng.permutation(np.flatnonzero(label == value))
        found[members[: len(members) // 2]] = 1 - value
    return found


@functools.cache
def trained(seed, *, permuted=False):
    rng = np.random.default_rng(seed)
    label = LABEL[:TRAIN].astype(np.float32)
    weights = {
        "hidden": rng.normal(size=(3, 12)),
        "bias": np.zeros(12),
        "last": rng.normal(size=12),
        "offset": np.zeros(()),
    }
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf, np.float32), weights)
    return fit(first, jnp.asarray(permutation(label, rng) if permuted else label))


def explainer(weights):
    def explain(images):
        halves = (functools.partial(half, weights) for half in (features_fn, head_fn))
        return np.asarray(gradcam(*halves, jnp.asarray(images), "fracture"))

    return explain


def accuracy(weights):
    logit = head_fn(weights, features_fn(weights, UNSEEN))
    return float(((np.asarray(logit) > 0) == LABEL[TRAIN:]).mean())


def edges(images):
    """A map that asks no network."""
    return np.abs(np.stack([cv2.Laplacian(image, cv2.CV_32F) for image in images]))


def assert_that_labels_make_the_maps():
    true, again = (explainer(trained(seed)) for seed in (1, 2))
    same = np.nanmean(label_randomisation(true, again, UNSEEN))
    others = [
        np.nanmean(label_randomisation(true, explainer(trained(seed, permuted=True)), UNSEEN))
        for seed in PERMUTED
    ]
    # Twelve networks deviate by 0.2 from each other, their mean by 0.06 from 0; same is 0.5.
    assert same - np.mean(others) > 0.3


def test_maps_of_true_labels_are_alike_and_those_of_permuted_labels_are_not():
    assert min(accuracy(trained(seed)) for seed in (1, 2)) > 0.9
    assert_that_labels_make_the_maps()


def test_with_labels_that_are_not_permuted_that_test_fails(monkeypatch):
    trained.cache_clear()
    monkeypatch.setitem(globals(), "permutation", lambda label, rng: label)
    try:
        with pytest.raises(AssertionError):
            assert_that_labels_make_the_maps()
    finally:
        trained.cache_clear()


def test_a_map_that_asks_no_network_does_not_depend_on_the_labels():
    # A correlation's rounding.
    np.testing.assert_allclose(label_randomisation(edges, edges, UNSEEN), 1, rtol=1e-12)


def test_maps_of_other_resolutions_need_a_size_and_signs_may_be_left_out():
    coarse, fine = explainer(trained(1)), edges
    with pytest.raises(SaliencyError, match="a size where resolutions differ"):
        label_randomisation(coarse, fine, UNSEEN)
    assert label_randomisation(coarse, fine, UNSEEN, size=SIDE).shape == (TEST,)
    opposite = label_randomisation(edges, lambda x: -edges(x), UNSEEN, absolute=True)
    np.testing.assert_allclose(opposite, 1, rtol=1e-12)


def test_an_explanation_with_another_number_of_maps_is_refused():
    with pytest.raises(SaliencyError, match="one of each of 24 images, got 24 and 23"):
        label_randomisation(edges, lambda x: edges(x)[1:], UNSEEN)
