import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_network import (
    BOTH,
    CHANNELS,
    LINEAR,
    QUICK,
    attention_head,
    features_fn,
    images,
    in_float64,
    linear_head,
    normal,
    pooled_head,
    quick,
    same,
)

from msa_flax.saliency import perturbation
from msa_flax.saliency.cam import weighted_sum
from msa_flax.saliency.perturbation import SMALLEST_LOGIT, ablation_cam, score_cam


def shifted_head(features):
    """Its logits of these images are of both signs."""
    return attention_head(features) - 0.45


network = jax.jit(lambda x: shifted_head(features_fn(x)), compiler_options=QUICK)
head = jax.jit(shifted_head, compiler_options=QUICK)


def unit(values):
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread else np.zeros_like(values)


@functools.cache
def masked_logits():
    """Features, and the logit of each image seen through each channel, in NumPy and OpenCV."""
    pictures = np.asarray(images(), np.float64)
    features = in_float64(lambda: features_fn(jnp.asarray(pictures)))
    masks = np.stack(
        [
            [unit(cv2.resize(f[:, :, c], (8, 8), interpolation=cv2.INTER_LINEAR)) for f in features]
            for c in range(CHANNELS)
        ]
    )
    return features, np.stack(
        [in_float64(lambda m=m: network(jnp.asarray(pictures * m[..., None]))) for m in masks], 1
    )


@functools.cache
def logits_without():
    """Features, logits, and the logit of each image without each channel."""
    features = in_float64(lambda: features_fn(images(dtype=np.float64)))
    without = [features * (np.arange(CHANNELS) != c) for c in range(CHANNELS)]
    logits = [in_float64(lambda f=f: head(jnp.asarray(f))) for f in (features, *without)]
    return features, logits[0], np.stack(logits[1:], 1)


def by_the_paper(method, sign):
    """Maps without ReLU."""
    if method is score_cam:
        features, masked = masked_logits()
        scores = np.exp(sign * masked)
        weights = scores / scores.sum(axis=1, keepdims=True)
    else:
        features, logits, without = logits_without()
        weights = sign * (logits[:, None] - without) / abs(logits[:, None])
    return np.einsum("bc,bhwc->bhw", weights, features)


def assert_follows_the_paper(method, target, sign):
    expected = by_the_paper(method, sign)
    got = in_float64(
        lambda: quick(method, features_fn, shifted_head)(images(dtype=np.float64), target)
    )
    # Rounded to float32 (6e-8); OpenCV's interpolation has float32 weights, exact here: quarters.
    np.testing.assert_allclose(got, np.maximum(expected, 0), atol=2e-7 * abs(expected).max())


both_methods = pytest.mark.parametrize("method", [score_cam, ablation_cam])
both_targets = pytest.mark.parametrize(("target", "sign"), BOTH)


@both_methods
@both_targets
def test_maps_follow_the_paper_in_float64(method, target, sign):
    assert_follows_the_paper(method, target, sign)


def test_logits_of_both_signs_are_among_those_compared():
    _, logits, _ = logits_without()
    assert logits.min() < -0.01
    assert logits.max() > 0.01


@pytest.mark.parametrize(
    ("method", "name", "mutant"),
    [
        (score_cam, "_unit_range", lambda maps: maps),
        (score_cam, "_unit_range", lambda maps: maps / maps.max((-2, -1), keepdims=True)),
        (score_cam, "signs", lambda target, logits: jnp.ones_like(logits)),
        (ablation_cam, "signs", lambda target, logits: jnp.ones_like(logits)),
        (ablation_cam, "SMALLEST_LOGIT", 1.0),
        (ablation_cam, "weighted_sum", lambda w, f, relu: weighted_sum(w, f, relu=False)),
    ],
)
def test_mutants_are_noticed(method, name, mutant, monkeypatch):
    monkeypatch.setattr(perturbation, name, mutant)
    with pytest.raises(AssertionError):
        assert_follows_the_paper(method, "normal", -1)


def test_without_its_softmax_score_cam_fails_the_comparison(monkeypatch):
    monkeypatch.setattr(jax.nn, "softmax", lambda scores, axis: scores)
    with pytest.raises(AssertionError):
        assert_follows_the_paper(score_cam, "fracture", 1)


def test_dividing_by_the_signed_score_fails_the_comparison(monkeypatch):
    monkeypatch.setattr(jnp, "abs", lambda logits: -logits)
    with pytest.raises(AssertionError):
        assert_follows_the_paper(ablation_cam, "normal", -1)


@both_methods
@pytest.mark.parametrize("at_once", [1, 7, 30, 1000])
def test_how_many_are_computed_at_once_changes_nothing_but_roundings(method, at_once):
    expected = by_the_paper(method, 1)
    got = quick(method, features_fn, shifted_head, at_once=at_once, relu=False)(
        images(), "fracture"
    )
    # float32 throughout: sums of up to 96 terms, and a drop is a difference of like numbers.
    np.testing.assert_allclose(got, expected, atol=2e-5 * abs(expected).max())


@both_methods
def test_no_pass_holds_more_than_at_once(method):
    sizes = []

    def counted(features):
        sizes.append(len(features))
        return shifted_head(features)

    method(features_fn, counted, images(), "fracture", at_once=4)
    own = [] if method is score_cam else [5]  # the logits of the images as they are
    assert sizes[: len(own)] == own
    assert set(sizes[len(own) :]) == {4}


@both_methods
@pytest.mark.parametrize("at_once", [0, -1])
def test_passes_of_nothing_are_refused(method, at_once):
    with pytest.raises(ValueError, match="at_once: expected 1 or more, got"):
        method(features_fn, shifted_head, images(), "fracture", at_once=at_once)


def test_ablation_cam_of_pooling_and_a_linear_layer_has_a_closed_form():
    features = np.asarray(features_fn(images()), np.float64)
    means = features.mean(axis=(1, 2))
    logits = means @ LINEAR
    for target, sign in BOTH:
        got = quick(ablation_cam, features_fn, linear_head, relu=False)(images(), target)
        weights = sign * LINEAR * means / abs(logits[:, None])
        expected = np.einsum("bc,bhwc->bhw", weights, features)
        # Differences of float32 sums, relative to logits that are up to 20 times smaller.
        np.testing.assert_allclose(got, expected, atol=2e-5 * abs(expected).max())


def test_a_drop_relative_to_a_logit_of_zero_is_relative_to_the_smallest_one():
    features = jnp.ones((1, 2, 2, 2)) * jnp.array([1.0, 2.0])[None, None, None]
    balanced = lambda f: f.mean((1, 2)) @ jnp.array([2.0, -1.0])  # noqa: E731  (0 for both)
    got = ablation_cam(same, balanced, features, "fracture", relu=False)
    expected = (2 * 1 - 2 * 2) / SMALLEST_LOGIT
    np.testing.assert_allclose(got, np.full((1, 2, 2), expected), rtol=1e-6)  # float32


def test_score_cam_sees_a_channel_that_is_the_same_everywhere_as_a_black_image():
    picture = jnp.asarray(np.abs(normal(1, 1, 8, 8)), jnp.float32)
    wave = jnp.asarray(np.abs(normal(2, 1, 4, 4)), jnp.float32)
    seen = []

    def features_of(x):
        return jnp.stack([x.mean((1, 2))[:, None, None] * wave, jnp.full((len(x), 4, 4), 0.1)], 3)

    def recording(features):
        jax.debug.callback(lambda f: seen.append(np.asarray(f)), features, ordered=True)
        return features[..., 0].mean(axis=(1, 2))

    got = score_cam(features_of, recording, picture, "fracture", at_once=1)
    jax.effects_barrier()
    assert np.any(seen[0][..., 0] > 0)
    assert not np.any(seen[1][..., 0])
    assert np.isfinite(got).all()


def test_score_cam_takes_8_bits_and_floats_alike_and_rounds_neither():
    stored = np.random.default_rng(0).integers(0, 256, (2, 8, 8), np.uint8)
    types = []

    def scaled(x):
        types.append(x.dtype)
        return features_fn(x.astype(jnp.float32) / 255)

    maps = [
        quick(score_cam, scaled, pooled_head)(x, "normal") for x in (stored, stored.astype("f4"))
    ]
    np.testing.assert_array_equal(*maps)
    assert types == [jnp.uint8, jnp.float32, jnp.float32, jnp.float32]


def test_score_cam_takes_images_with_and_without_colours():
    maps = [
        score_cam(features_fn, shifted_head, x, "fracture") for x in (images(), images()[..., 0])
    ]
    np.testing.assert_array_equal(*maps)
    with pytest.raises(ValueError, match=r"images: expected \[b, h, w\]"):
        score_cam(features_fn, shifted_head, images()[0, :, 0], "fracture")


def test_score_cam_is_a_mean_of_the_channels_where_the_head_does_not_look():
    features = features_fn(images())
    got = score_cam(features_fn, lambda f: 0 * f.sum((1, 2, 3)), images(), "fracture")
    np.testing.assert_allclose(got, features.mean(axis=3), rtol=1e-5)  # float32 sums of six
