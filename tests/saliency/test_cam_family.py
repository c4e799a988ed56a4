"""What all class-activation maps have in common, and those that differ from Grad-CAM in weights."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_network import (
    AREA,
    BOTH,
    CHANNELS,
    LINEAR,
    QUICK,
    attention_head,
    features_fn,
    images,
    in_float64,
    normal,
    pooled_head,
    quick,
    same,
)

from msa_flax.saliency import cam, interface
from msa_flax.saliency.cam import (
    eigen_gradcam,
    eigencam,
    gradcam,
    gradcam_plus_plus,
    hirescam,
    layercam,
    xgradcam,
)
from msa_flax.saliency.perturbation import ablation_cam, score_cam

GRADIENT = [gradcam, gradcam_plus_plus, hirescam, xgradcam, layercam]
ALL = [*GRADIENT, eigencam, eigen_gradcam, score_cam, ablation_cam]
ODD = [eigen_gradcam, ablation_cam, gradcam, hirescam, xgradcam]  # -map for the other target
gradient_methods = pytest.mark.parametrize("method", GRADIENT, ids=lambda f: f.__name__)
# Of the first five, which share everything but their weights, one is enough here.
DISTINCT = [xgradcam, eigen_gradcam, score_cam, ablation_cam]
distinct_methods = pytest.mark.parametrize("method", DISTINCT, ids=lambda f: f.__name__)
all_methods = pytest.mark.parametrize("method", ALL, ids=lambda f: f.__name__)


@functools.cache
def compiled(method):
    """Returns (images, signs, strength of the head) -> maps without ReLU: compiled once."""

    def maps(pictures, signs, strength):
        head = lambda features: strength * attention_head(features)  # noqa: E731
        return method(features_fn, head, pictures, signs, relu=False)

    run = jax.jit(maps, compiler_options=QUICK)
    return lambda pictures, signs, strength=1.0: run(pictures, signs, jnp.float32(strength))


FRACTURE, NORMAL = jnp.ones(5), -jnp.ones(5)


@functools.cache
def features_and_slopes():
    """Features, and the gradient of every logit by a central difference for each value: float64."""
    steps = 1e-5 * np.eye(AREA * CHANNELS).reshape(-1, 1, 4, 4, CHANNELS)

    def differences():
        return jax.lax.map(
            lambda step: attention_head(features + step) - attention_head(features - step), steps
        )  # [values, b]

    features = in_float64(lambda: features_fn(images(dtype=np.float64)))
    return features, (in_float64(differences) / 2e-5).T.reshape(features.shape)


def by_the_papers(name, features, gradient):
    """One image's map [h, w] without ReLU, written out from the papers' formulas in NumPy."""
    total = np.zeros(features.shape[:2])
    for c in range(features.shape[2]):
        f, g = features[:, :, c], gradient[:, :, c]
        if name == "gradcam":
            weights = g.mean()
        elif name == "gradcam_plus_plus":
            below = 2 * g**2 + f.sum() * g**3
            alpha = np.divide(g**2, below, out=np.zeros_like(g), where=g != 0)
            weights = (alpha * np.maximum(g, 0)).sum()
        elif name == "hirescam":
            weights = g
        elif name == "xgradcam":
            weights = (f * g).sum() / f.sum() if f.any() else 0
        elif name == "layercam":
            weights = np.maximum(g, 0)
        total += weights * f
    return total


def assert_follows_the_paper(method, target, sign, relu=True):
    expected = np.stack(
        [
            by_the_papers(method.__name__, f, sign * g)
            for f, g in zip(*features_and_slopes(), strict=True)
        ]
    )
    got = in_float64(
        lambda: quick(method, features_fn, attention_head, relu=relu)(
            images(dtype=np.float64), target
        )
    )
    wanted = np.maximum(expected, 0) if relu else expected
    assert wanted.max() > 1e-3
    # The result is rounded to float32 (6e-8); central differences err by step^2 = 1e-10.
    np.testing.assert_allclose(got, wanted, atol=2e-7 * abs(expected).max())


@gradient_methods
@pytest.mark.parametrize(("target", "sign"), BOTH)
def test_each_follows_its_paper_with_finite_differences_in_float64(method, target, sign):
    assert_follows_the_paper(method, target, sign)
    assert_follows_the_paper(method, target, sign, relu=False)


def summed_with_mean_weights(weights, features, *, relu):
    values = (weights.mean((1, 2), keepdims=True) * features).sum(axis=3)
    return (jax.nn.relu(values) if relu else values).astype(jnp.float32)


@pytest.mark.parametrize(
    ("method", "name", "mutant"),
    [
        (gradcam, "_mean_slopes", lambda f, g: g.sum((1, 2), keepdims=True)),
        (gradcam_plus_plus, "_plus_plus_weights", lambda f, g: cam._mean_slopes(f, abs(g)) * 8),
        (
            gradcam_plus_plus,
            "_plus_plus_weights",
            lambda f, g: (g / (2 + f.sum((1, 2), keepdims=True) * g)).sum((1, 2), keepdims=True),
        ),
        (hirescam, "weighted_sum", summed_with_mean_weights),
        (xgradcam, "_active_slopes", lambda f, g: (f * g).sum((1, 2), keepdims=True)),
        (xgradcam, "_active_slopes", cam._mean_slopes),
        (layercam, "_rising_slopes", lambda f, g: g),
    ],
)
def test_with_other_weights_the_comparison_fails(method, name, mutant, monkeypatch):
    monkeypatch.setattr(cam, name, mutant)
    with pytest.raises(AssertionError):
        assert_follows_the_paper(method, "fracture", 1)


@gradient_methods
def test_without_the_last_relu_the_comparison_fails(method, monkeypatch):
    before = cam.weighted_sum
    monkeypatch.setattr(cam, "weighted_sum", lambda w, f, *, relu: before(w, f, relu=not relu))
    if method in (gradcam_plus_plus, layercam):  # never negative with features after a ReLU
        assert_follows_the_paper(method, "fracture", 1)
    else:
        with pytest.raises(AssertionError):
            assert_follows_the_paper(method, "fracture", 1)


@gradient_methods
def test_with_one_sign_for_both_targets_the_comparison_fails(method, monkeypatch):
    monkeypatch.setattr(interface, "SIGNS", {"fracture": 1.0, "normal": 1.0})
    with pytest.raises(AssertionError):
        assert_follows_the_paper(method, "normal", -1)


def test_with_pooling_and_a_linear_layer_three_are_the_class_activation_map():
    features = np.asarray(features_fn(images()))
    expected = np.einsum("bhwc,c->bhw", features, LINEAR) / AREA
    for method in (gradcam, hirescam, xgradcam):
        got = quick(method, features_fn, pooled_head, relu=False)(images(), "fracture")
        # Sums of six float32 products, and a ratio of sums of 16: some roundings of 6e-8.
        np.testing.assert_allclose(got, expected, atol=2e-6 * abs(expected).max())


def test_with_pooling_and_a_linear_layer_the_other_two_take_the_positive_kernel():
    features = np.asarray(features_fn(images()), np.float64)
    kernel = np.maximum(LINEAR, 0) / AREA
    sums = features.sum(axis=(1, 2), keepdims=True)
    layer = (kernel * features).sum(axis=-1)
    plus_plus = (AREA * kernel / (2 + sums * kernel) * features).sum(axis=-1)
    for method, expected in ((layercam, layer), (gradcam_plus_plus, plus_plus)):
        got = quick(method, features_fn, pooled_head)(images(), "fracture")
        np.testing.assert_allclose(got, expected, atol=2e-6 * expected.max())  # as above


def test_xgradcam_conserves_the_sum_of_hirescam_which_is_the_score_of_a_linear_head():
    kernel = jnp.asarray(normal(9, 4, 4, CHANNELS), jnp.float32)

    def head(features):
        return (features * kernel[None]).sum(axis=(1, 2, 3)) + 5.0

    score = head(features_fn(images())) - 5.0
    for method in (hirescam, xgradcam):
        got = quick(method, features_fn, head, relu=False)(images(), "fracture").sum(axis=(1, 2))
        # Sums of 96 float32 products that cancel in part.
        np.testing.assert_allclose(got, score, atol=1e-5 * float(abs(score).max()))
    averaged = quick(gradcam, features_fn, head, relu=False)(images(), "fracture").sum(axis=(1, 2))
    assert np.abs(averaged - score).max() > 0.1 * np.abs(score).max()


def test_layercam_is_hirescam_where_no_slope_is_negative():
    def head(features):
        return (features**2).mean(axis=(1, 2, 3))

    got, expected = (
        quick(m, features_fn, head)(images(), "fracture") for m in (layercam, hirescam)
    )
    np.testing.assert_array_equal(got, expected)
    assert np.any(quick(layercam, features_fn, attention_head)(images(), "fracture") != expected)


def test_gradcam_plus_plus_does_not_depend_on_a_small_constant():
    """A mean over many positions has small slopes; then all weights are near g/2."""
    small = 1e-6
    once, got, twice = (
        quick(gradcam_plus_plus, features_fn, lambda f, s=s: s * pooled_head(f))(
            images(), "fracture"
        )
        for s in (1.0, small, 2 * small)
    )
    assert np.any(got > 0)
    np.testing.assert_allclose(twice, 2 * got, rtol=1e-5)  # S g, here 1e-6 of 2, and roundings
    assert not np.allclose(once, got / small, rtol=1e-2)  # with larger slopes S g counts


def test_gradcam_plus_plus_bears_features_whose_sum_is_negative():
    features = jnp.full((1, 2, 2, 1), -0.5)  # their sum times a slope of 1 is -2: 2 + S g = 0
    summed = lambda f: f.sum((1, 2, 3))  # noqa: E731
    got = quick(gradcam_plus_plus, same, summed, relu=False)(features, "fracture")
    np.testing.assert_array_equal(got, 4 / 2 * features[..., 0])  # four slopes of 1, S cut at 0


def test_xgradcam_gives_a_channel_whose_sum_is_lost_no_weight():
    features = jnp.array([1.0, -1.0, 0.1 + 0.2, -0.3]).reshape(1, 2, 2, 1)
    squares = lambda f: (f**2).sum((1, 2, 3))  # noqa: E731
    got = quick(xgradcam, same, squares, relu=False)(features, "fracture")
    np.testing.assert_array_equal(got, np.zeros((1, 2, 2)))
    assert np.isfinite(got).all()


@all_methods
def test_targets_may_differ_from_image_to_image(method):
    chosen = jnp.array([1.0, -1, -1, 1, -1])
    got = compiled(method)(images(), chosen)
    for signs in (FRACTURE, NORMAL):
        expected = compiled(method)(images(), signs)
        np.testing.assert_array_equal(got[chosen == signs], expected[chosen == signs])


@all_methods
def test_without_relu_what_speaks_for_one_target_speaks_against_the_other(method):
    one, other = (compiled(method)(images(), signs) for signs in (FRACTURE, NORMAL))
    if method in ODD:
        np.testing.assert_array_equal(one, -other)
        assert np.any(one > 0)
        assert np.any(one < 0)
    elif method is eigencam:
        np.testing.assert_array_equal(one, other)
    else:  # their weights are never negative
        assert np.all(one >= 0)
        assert np.any(one != other)


@distinct_methods
def test_a_batch_gives_what_its_images_give_one_by_one(method):
    batch = compiled(method)(images(), FRACTURE)
    single = [compiled(method)(images()[i : i + 1], FRACTURE[:1])[0] for i in range(5)]
    # Sums in another order for another batch size: float32 roundings, which the root of a principal
    # direction's small gap to the next one multiplies by about ten.
    np.testing.assert_allclose(batch, np.stack(single), atol=1e-5 * float(batch.max()))


@all_methods
def test_changing_one_image_leaves_the_maps_of_the_others_as_they_were(method):
    before = compiled(method)(images(), FRACTURE)
    after = compiled(method)(images().at[2].multiply(3.0), FRACTURE)
    np.testing.assert_array_equal(np.delete(before, 2, axis=0), np.delete(after, 2, axis=0))
    assert np.any(before[2] != after[2])


@distinct_methods
def test_compiled_or_not_by_name_or_by_sign_a_map_is_the_same_and_the_relu_comes_last(method):
    got = method(features_fn, attention_head, images(), "normal")
    assert got.shape == (5, 4, 4)
    assert got.dtype == jnp.float32
    expected = np.maximum(compiled(method)(images(), NORMAL), 0)
    # Compiled code may fuse and reorder: float32 roundings.
    np.testing.assert_allclose(got, expected, atol=1e-5 * expected.max())


@all_methods
def test_dead_features_give_zero(method):
    got = compiled(method)(0 * images(), FRACTURE)  # the features have no biases here
    np.testing.assert_array_equal(got, np.zeros((5, 4, 4)))


@all_methods
def test_a_head_that_does_not_look_gives_zero_unless_the_method_does_not_look_at_it(method):
    got = compiled(method)(images(), FRACTURE, 0.0)
    assert np.isfinite(got).all()
    assert np.any(got) == (method in (eigencam, score_cam))


@all_methods
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 1)])
def test_the_smallest_features_give_finite_maps(method, shape):
    features = jnp.asarray(np.abs(normal(5, 1, *shape)), jnp.float32)
    got = jax.jit(method, static_argnums=(0, 1), compiler_options=QUICK)(
        lambda x: features * x.mean(axis=(1, 2))[:, None, None, None],
        lambda f: f.sum(axis=(1, 2, 3)),
        jnp.ones((2, 4, 4)),
        jnp.array([1.0, -1.0]),
    )
    assert got.shape == (2, *shape[:2])
    assert np.isfinite(got).all()


@pytest.mark.parametrize("method", [xgradcam, ablation_cam])
def test_features_of_16_bits_are_summed_in_32(method):
    def head(features):
        return attention_head(features.astype(jnp.bfloat16))

    features = features_fn(images()).astype(jnp.bfloat16)
    run = jax.jit(functools.partial(method, same, head), compiler_options=QUICK)
    got, expected = run(features, FRACTURE), run(features.astype(jnp.float32), FRACTURE)
    assert got.dtype == jnp.float32
    # The same numbers enter; slopes and logits that leave the head are of 16 bits in both.
    np.testing.assert_allclose(got, expected, atol=1e-5 * float(expected.max()))


@all_methods
def test_bad_targets_and_heads_are_refused(method):
    with pytest.raises(ValueError, match="one sign per image"):
        method(features_fn, pooled_head, images(), jnp.ones(3))
    if method is not eigencam:  # it does not call the head
        with pytest.raises(ValueError, match="expected one logit per image"):
            method(features_fn, lambda f: pooled_head(f)[:, None], images(), "fracture")


@pytest.mark.parametrize("method", [eigencam, ablation_cam, score_cam])
def test_features_that_are_no_batch_of_maps_are_refused(method):
    unchecked = inspect.unwrap(method)  # without the tests' type checker, which would be first
    with pytest.raises(ValueError, match=r"features: expected \[b, h, w, c\]"):
        unchecked(lambda x: features_fn(x)[0], pooled_head, images(), "fracture")
