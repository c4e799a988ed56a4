"""Grad-CAM alone: class-activation maps, both signs of the logit, raw values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_network import LINEAR, features_fn, images, pooled_head, quick

from msa_flax.saliency import interface
from msa_flax.saliency.cam import gradcam


def explain(target="fracture", head=pooled_head, **fields):
    return np.asarray(quick(gradcam, features_fn, head, **fields)(images(), target))


def class_activation_map():
    return np.einsum("bhwc,c->bhw", np.asarray(features_fn(images())), LINEAR)


def test_pooling_and_a_linear_layer_give_the_class_activation_map_over_its_area():
    cam = class_activation_map()
    assert (cam > 0).any()
    assert (cam < 0).any()
    # Sums of six float32 products: some roundings of 6e-8 of the largest value.
    np.testing.assert_allclose(explain(), np.maximum(cam, 0) / 16, atol=1e-6 * abs(cam).max())


def test_that_map_sums_up_to_the_logit_less_its_bias_where_everything_speaks_for_the_target():
    def positive_head(features):
        return features.mean(axis=(1, 2)) @ jnp.abs(jnp.asarray(LINEAR, features.dtype)) + 0.7

    expected = positive_head(features_fn(images())) - 0.7
    total = explain(head=positive_head).sum(axis=(1, 2))
    np.testing.assert_allclose(total, expected, rtol=1e-5)  # 96 float32 roundings


def assert_the_targets_share_the_evidence():
    """One logit: what speaks for a class speaks against the other, nowhere for both."""
    fracture, normal = explain("fracture"), explain("normal")
    cam = class_activation_map() / 16
    assert fracture.min() >= 0
    assert normal.min() >= 0
    assert not np.any((fracture > 0) & (normal > 0))
    assert fracture.max() > 0
    assert normal.max() > 0
    np.testing.assert_allclose(fracture - normal, cam, atol=1e-6 * abs(cam).max())  # roundings


def test_both_signs_of_the_logit_are_explained_and_share_the_evidence():
    assert_the_targets_share_the_evidence()


def test_without_the_relu_the_sign_test_fails(monkeypatch):
    monkeypatch.setattr(jax.nn, "relu", lambda values: values)

    assert explain().min() < 0
    with pytest.raises(AssertionError):
        assert_the_targets_share_the_evidence()


def test_with_one_sign_for_both_targets_the_sign_test_fails(monkeypatch):
    monkeypatch.setattr(interface, "SIGNS", {"fracture": 1.0, "normal": 1.0})
    with pytest.raises(AssertionError):
        assert_the_targets_share_the_evidence()


def test_without_its_relu_a_map_is_the_evidence_of_both_signs():
    cam = class_activation_map() / 16
    got = explain("normal", relu=False)
    np.testing.assert_allclose(got, -cam, atol=1e-6 * abs(cam).max())  # float32 roundings


def test_maps_are_float32_at_the_resolution_of_the_features_and_raw():
    once = explain()
    assert once.shape == (5, 4, 4)
    assert once.dtype == np.float32
    twice = explain(head=lambda features: 2 * pooled_head(features))
    np.testing.assert_array_equal(twice, 2 * once)  # doubling is exact; a normalised map would stay


def test_it_needs_no_implicit_rank_promotion():
    def strict_head(features):
        return features[:, 0, 0, 0] * features[:, 1, 1, 1]

    with jax.numpy_rank_promotion("raise"):
        assert explain(head=strict_head).shape == (5, 4, 4)
