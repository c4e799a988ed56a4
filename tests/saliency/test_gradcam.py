import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_network import LINEAR, attention_head, features_fn, images, pooled_head

from msa_flax.saliency import interface
from msa_flax.saliency.gradcam import gradcam


def test_pooling_and_a_linear_layer_give_the_class_activation_map_over_its_area():
    features = np.asarray(features_fn(images()))
    cam = np.einsum("bhwc,c->bhw", features, LINEAR)
    got = gradcam(features_fn, pooled_head, images(), "fracture")
    assert (cam > 0).any()
    assert (cam < 0).any()
    # Sums of six float32 products: some roundings of 6e-8 of the largest value.
    np.testing.assert_allclose(got, np.maximum(cam, 0) / 16, atol=1e-6 * abs(cam).max())


def test_that_map_sums_up_to_the_logit_less_its_bias_where_everything_speaks_for_the_target():
    def positive_head(features):
        return features.mean(axis=(1, 2)) @ jnp.abs(jnp.asarray(LINEAR, features.dtype)) + 0.7

    got = gradcam(features_fn, positive_head, images(), "fracture")
    expected = positive_head(features_fn(images())) - 0.7
    np.testing.assert_allclose(got.sum(axis=(1, 2)), expected, rtol=1e-5)  # 96 float32 roundings


def maps_by_finite_differences(sign):
    """Equations 1 and 2 with each weight from shifting a whole channel of one image."""
    step, area, weights = 1e-5, 16, []
    head, features = jax.jit(attention_head), features_fn(images(dtype=np.float64))
    for channel in np.eye(6).reshape(6, 1, 1, 1, 6):
        rise = head(features + step * channel) - head(features - step * channel)
        weights.append(sign * rise / (2 * step) / area)
    return np.maximum(np.einsum("bhwc,cb->bhw", features, np.stack(weights)), 0)


@pytest.mark.parametrize(("target", "sign"), [("fracture", 1), ("normal", -1)])
def test_the_maps_agree_with_finite_differences_in_float64(target, sign):
    with jax.enable_x64(True):
        got = np.asarray(gradcam(features_fn, attention_head, images(dtype=np.float64), target))
        expected = maps_by_finite_differences(sign)
    assert expected.max() > 1e-3
    # The result is rounded to float32 (6e-8); central differences err by step^2 = 1e-10.
    np.testing.assert_allclose(got, expected, atol=2e-7 * expected.max())


def assert_the_targets_share_the_evidence(method):
    """One logit: what speaks for a class speaks against the other, nowhere for both."""
    fracture = np.asarray(method(features_fn, pooled_head, images(), "fracture"))
    normal_ = np.asarray(method(features_fn, pooled_head, images(), "normal"))
    cam = np.einsum("bhwc,c->bhw", np.asarray(features_fn(images())), LINEAR) / 16
    assert fracture.min() >= 0
    assert normal_.min() >= 0
    assert not np.any((fracture > 0) & (normal_ > 0))
    assert fracture.max() > 0
    assert normal_.max() > 0
    np.testing.assert_allclose(fracture - normal_, cam, atol=1e-6 * abs(cam).max())  # roundings


def test_both_signs_of_the_logit_are_explained_and_share_the_evidence():
    assert_the_targets_share_the_evidence(gradcam)


def test_without_the_relu_the_sign_test_fails(monkeypatch):
    monkeypatch.setattr(jax.nn, "relu", lambda values: values)

    assert gradcam(features_fn, pooled_head, images(), "fracture").min() < 0
    with pytest.raises(AssertionError):
        assert_the_targets_share_the_evidence(gradcam)


def test_with_one_sign_for_both_targets_the_sign_test_fails(monkeypatch):
    monkeypatch.setattr(interface, "SIGNS", {"fracture": 1.0, "normal": 1.0})
    with pytest.raises(AssertionError):
        assert_the_targets_share_the_evidence(gradcam)


def test_without_its_relu_a_map_is_the_evidence_of_both_signs():
    cam = np.einsum("bhwc,c->bhw", np.asarray(features_fn(images())), LINEAR) / 16
    got = gradcam(features_fn, pooled_head, images(), "normal", relu=False)
    np.testing.assert_allclose(got, -cam, atol=1e-6 * abs(cam).max())  # float32 roundings


def test_signs_may_differ_from_image_to_image():
    signs = jnp.array([1, -1, -1, 1, -1])
    got = gradcam(features_fn, attention_head, images(), signs)
    for target, sign in (("fracture", 1), ("normal", -1)):
        expected = gradcam(features_fn, attention_head, images(), target)
        np.testing.assert_array_equal(got[signs == sign], expected[signs == sign])


def test_a_batch_gives_what_its_images_give_one_by_one():
    batch = gradcam(features_fn, attention_head, images(), "fracture")
    single = [
        gradcam(features_fn, attention_head, images()[i : i + 1], "fracture")[0] for i in range(5)
    ]
    # A convolution may add in another order for another batch size: float32 roundings.
    np.testing.assert_allclose(batch, np.stack(single), atol=1e-5 * float(batch.max()))


def test_changing_one_image_leaves_the_maps_of_the_others_as_they_were():
    before = gradcam(features_fn, attention_head, images(), "fracture")
    after = gradcam(features_fn, attention_head, images().at[2].multiply(3.0), "fracture")
    np.testing.assert_array_equal(np.delete(before, 2, axis=0), np.delete(after, 2, axis=0))
    assert np.any(before[2] != after[2])


def test_it_compiles_with_the_target_fixed_or_given_as_signs():
    expected = gradcam(features_fn, attention_head, images(), "normal")
    method = functools.partial(gradcam, features_fn, attention_head)
    fixed = jax.jit(method, static_argnums=1)(images(), "normal")
    traced = jax.jit(method)(images(), -jnp.ones(5))
    for got in (fixed, traced):
        # Compiled code may fuse and reorder: float32 roundings.
        np.testing.assert_allclose(got, expected, atol=1e-5 * float(expected.max()))


def test_maps_are_float32_at_the_resolution_of_the_features_and_raw():
    def doubled_head(features):
        return 2 * pooled_head(features)

    once = gradcam(features_fn, pooled_head, images(), "fracture")
    assert once.shape == (5, 4, 4)
    assert once.dtype == jnp.float32
    twice = gradcam(features_fn, doubled_head, images(), "fracture")
    np.testing.assert_array_equal(twice, 2 * once)  # doubling is exact; a normalised map would stay


def test_it_needs_no_implicit_rank_promotion():
    def strict_head(features):
        return features[:, 0, 0, 0] * features[:, 1, 1, 1]

    with jax.numpy_rank_promotion("raise"):
        assert gradcam(features_fn, strict_head, images(), "fracture").shape == (5, 4, 4)


def test_an_unknown_target_is_refused():
    signs = inspect.unwrap(interface.signs)  # without the tests' type checker, which would be first
    with pytest.raises(ValueError, match="expected one of fracture, normal; got 'tumour'"):
        signs("tumour", jnp.zeros(5))


def test_signs_for_another_number_of_images_are_refused():
    with pytest.raises(ValueError, match="one sign an image"):
        gradcam(features_fn, pooled_head, images(), jnp.ones(3))


def test_a_head_with_a_column_of_logits_is_refused():
    with pytest.raises(ValueError, match="expected one logit an image"):
        gradcam(features_fn, lambda f: pooled_head(f)[:, None], images(), "fracture")
