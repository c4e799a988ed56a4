import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compilation import QUICK

from msa_flax.saliency import controls
from msa_flax.saliency.controls import attention_maps, centre_prior, random_map

either = pytest.mark.parametrize("control", [random_map, centre_prior])


def images(n=6, side=8, dtype=np.float32):
    return np.random.default_rng(0).integers(0, 256, (n, side, side)).astype(dtype)


def quickly(function, *arguments):
    return np.asarray(jax.jit(function, compiler_options=QUICK)(*arguments))


def features_fn(x):
    return jnp.tanh(x[:, ::2, ::2, None])


def head_fn(features):
    return features.sum(axis=(1, 2, 3))


def untouched(_):
    raise AssertionError("a control has asked the network")


def test_a_random_map_has_one_uniform_value_a_cell_of_the_features():
    got = draw(images(200))
    assert got.shape == (200, 4, 4)
    assert got.dtype == np.float32
    assert got.min() >= 0
    assert got.max() < 1
    # 3,200 values: the mean is known to 0.005, the variance 1/12 to 0.0013; four deviations.
    assert got.mean() == pytest.approx(0.5, abs=0.02)
    assert got.var() == pytest.approx(1 / 12, abs=0.006)
    correlations = np.corrcoef(got.reshape(200, 16), rowvar=False) - np.eye(16)
    assert abs(correlations).max() < 0.35  # 240 values of deviation 1 / sqrt(200) = 0.07: five


def draw(x, target="fracture", **keywords):
    return quickly(lambda x: random_map(features_fn, untouched, x, target, **keywords), x)


def assert_the_image_alone_decides():
    """In another order, repeated, and in a smaller batch, maps are the same to the last bit."""
    batch, order = draw(images()), np.array([4, 2, 2, 0])
    assert len(np.unique(batch[:, 0, 0])) == len(batch)
    np.testing.assert_array_equal(draw(images()[order]), batch[order])


def test_a_random_map_depends_on_the_image_and_not_on_its_batch():
    assert_the_image_alone_decides()


def test_with_a_key_of_the_place_in_the_batch_that_test_fails(monkeypatch):
    monkeypatch.setattr(controls, "_hashes", lambda x: jnp.arange(len(x), dtype=jnp.uint32))
    with pytest.raises(AssertionError):
        assert_the_image_alone_decides()


def test_with_one_key_for_all_images_that_test_fails(monkeypatch):
    monkeypatch.setattr(controls, "_hashes", lambda x: jnp.zeros(len(x), jnp.uint32))
    with pytest.raises(AssertionError):
        assert_the_image_alone_decides()


def test_a_random_map_is_that_of_the_grey_values_whatever_their_type_and_of_the_seed():
    expected = draw(images())
    np.testing.assert_array_equal(draw(images(dtype=np.uint8), -jnp.ones(6)), expected)
    assert np.all(draw(images(), seed=1) != expected)


def test_images_that_differ_in_one_grey_value_by_one_have_different_random_maps():
    """A sum of the values, or of their bits, would not tell most of these apart."""
    flat, one = np.full((64, 64), 100, np.float32), np.eye(64, dtype=np.float32)
    hashes = quickly(controls._hashes, np.concatenate([flat + one, flat + 2 * one, flat[:1]]))
    assert len(np.unique(hashes)) == 129


def test_swapped_pixels_and_float_images_have_hashes_of_their_own():
    x = np.random.default_rng(3).normal(size=(500, 16)).astype(np.float32)
    hashes = quickly(controls._hashes, np.concatenate([x, x[:, ::-1], np.round(127 + 9 * x)]))
    # 1,500 hashes of 32 bits: two agree with a chance of 1500^2 / 2^33 = 3e-4.
    assert len(np.unique(hashes)) == 1500
    bits = (hashes[:, None] >> np.arange(32)[None]) & 1
    # A share of 1,500 fair bits has deviation 0.013; five of them.
    assert abs(bits.mean(axis=0) - 0.5).max() < 0.065


def test_a_random_map_computes_no_features():
    bound = functools.partial(random_map, features_fn, untouched, target="fracture")
    assert "tanh" in str(jax.make_jaxpr(features_fn)(images()))
    assert "tanh" not in str(jax.make_jaxpr(bound)(images()))


def test_the_centre_prior_is_a_gaussian_of_the_stated_width():
    got = np.asarray(centre_prior(untouched, untouched, images(2, 224), "fracture"))
    assert got.shape == (2, 224, 224)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[0], got[1])
    share = (np.arange(224) + 0.5) / 224 - 0.5
    expected = np.exp(-(share[:, None] ** 2 + share**2) / (2 * 0.25**2))
    # Up to 4 in the exponent, rounded to float32: 2.4e-7 each time.
    np.testing.assert_allclose(got[0], expected, rtol=2e-6)
    weights = np.asarray(centre_prior(untouched, untouched, images(1, 400), "normal", sigma=0.05))
    x = (np.arange(400) + 0.5) / 400
    mass = weights[0].sum(axis=0) / weights.sum()
    assert (mass * x).sum() == pytest.approx(0.5)
    # The tails beyond the border are 10 deviations away.
    assert np.sqrt((mass * (x - 0.5) ** 2).sum()) == pytest.approx(0.05, rel=1e-4)


def test_the_centre_prior_is_symmetric_and_largest_in_the_middle():
    got = np.asarray(centre_prior(untouched, untouched, images(1, 7), "fracture"))[0]
    # Shares of the side on both sides of the middle are rounded differently, by 6e-8.
    for other in (got[::-1], got[:, ::-1], got.T):
        np.testing.assert_allclose(got, other, rtol=1e-6)
    assert got[3, 3] == got.max() == pytest.approx(1, abs=1e-6)


def test_sides_of_a_centre_prior_count_as_one_each():
    tall = centre_prior(untouched, untouched, jnp.zeros((1, 20, 10, 3)), "fracture")
    assert tall.shape == (1, 20, 10)
    low, high = tall[0, :, 4].sum() / 20, tall[0, 9].sum() / 10
    # The mean over 10 and over 20 pixels of the same curve, off its top by half a pixel.
    assert float(low) == pytest.approx(float(high), rel=0.02)


@either
def test_targets_are_checked_as_everywhere(control):
    with pytest.raises(ValueError, match="one sign per image"):
        control(features_fn, head_fn, images(), jnp.ones(5))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"features: expected \[b, h, w, c\], got \(6, 8, 8\)"):
        random_map(lambda x: x, head_fn, images(), "fracture")
    with pytest.raises(ValueError, match=r"images: expected \[b, h, w\] or \[b, h, w, c\]"):
        centre_prior(features_fn, head_fn, images()[0], "fracture")
    with pytest.raises(ValueError, match="sigma: expected a share of the side above 0, got 0"):
        centre_prior(features_fn, head_fn, images(), "fracture", sigma=0.0)


def attention(features):
    return {k: jax.nn.sigmoid(features[..., 0] * k) for k in (5, 3)}


def test_attention_maps_are_named_and_averaged():
    found = attention(features_fn(images()))
    got = attention_maps(found)
    assert list(got) == ["attention_3", "attention_5", "attention_mean"]
    np.testing.assert_array_equal(got["attention_3"], found[3])
    np.testing.assert_allclose(got["attention_mean"], (found[3] + found[5]) / 2, rtol=1e-6)
    assert attention_maps({}) == {}
    assert attention_maps({7: np.zeros((2, 4, 4))})["attention_mean"].dtype == jnp.float32
