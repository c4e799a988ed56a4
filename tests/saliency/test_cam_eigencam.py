import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_network import BOTH, attention_head, features_fn, images, in_float64, normal, quick, same

from msa_flax.saliency import cam
from msa_flax.saliency.cam import eigen_gradcam, eigencam

MANY, FEW = (3, 2, 3, 11), (3, 4, 5, 4)  # more channels than places, and fewer
both_sides = pytest.mark.parametrize("shape", [MANY, FEW], ids=["many channels", "few channels"])
both_ways = pytest.mark.parametrize("centred", [True, False], ids=["centred", "as it is"])


def squares(features):
    """A head whose slope at F is F k: features times slopes are F^2 k."""
    kernel = jnp.asarray(normal(8, features.shape[3]), features.dtype)
    return (features**2 * kernel[None, None, None]).sum(axis=(1, 2, 3)) / 2


def by_svd(values, centred):
    """The definition in NumPy's float64, with the sign that the docstring promises."""
    maps = []
    for x in np.asarray(values, np.float64).reshape(len(values), -1, values.shape[3]):
        rows = x - x.mean(axis=0) if centred else x
        projection = rows @ np.linalg.svd(rows)[2][0]
        maps.append(projection * np.sign(projection @ rows.sum(axis=1)))
    return np.reshape(maps, values.shape[:3])


def made(shape, seed=6):
    return jnp.asarray(np.abs(normal(seed, *shape)), jnp.float32)


def assert_is_the_projection(shape, centred, seed=6):
    features = made(shape, seed)
    got = quick(eigencam, same, squares, centred=centred, relu=False)(features, "fracture")
    expected = by_svd(features, centred)
    assert got.dtype == jnp.float32
    # float32 products of up to 20 terms, over the gap between the first two squares: above 0.1.
    np.testing.assert_allclose(got, expected, atol=1e-5 * abs(expected).max())


@both_sides
@both_ways
def test_maps_are_the_projection_on_the_first_singular_vector(shape, centred):
    assert_is_the_projection(shape, centred)


@both_sides
@pytest.mark.parametrize(("target", "sign"), BOTH)
@both_ways
def test_with_slopes_they_are_that_of_features_times_slopes(shape, target, sign, centred):
    features = np.asarray(made(shape), np.float64)
    expected = by_svd(sign * features**2 * normal(8, shape[3]), centred)
    for relu in (True, False):
        got = in_float64(
            lambda relu=relu: quick(eigen_gradcam, same, squares, centred=centred, relu=relu)(
                jnp.asarray(features), target
            )
        )
        wanted = np.maximum(expected, 0) if relu else expected
        # The result is rounded to float32.
        np.testing.assert_allclose(got, wanted, atol=2e-7 * abs(expected).max())


@both_sides
def test_mutants_are_noticed(shape, monkeypatch):
    def uncentred(rows, centred):
        return scaled(rows, False)

    def last(products):
        return tuple(values[..., ::-1] for values in eigh(products))

    scaled, eigh = cam._scaled_rows, jnp.linalg.eigh
    with monkeypatch.context() as patch:
        patch.setattr(cam, "_scaled_rows", uncentred)
        with pytest.raises(AssertionError):
            assert_is_the_projection(shape, True)
    with monkeypatch.context() as patch:
        patch.setattr(jnp.linalg, "eigh", last)
        with pytest.raises(AssertionError):
            assert_is_the_projection(shape, True)


def test_without_the_rule_of_signs_the_comparison_fails(monkeypatch):
    monkeypatch.setattr(cam, "_turned", lambda projection, rows: projection)
    features = jnp.concatenate([made(FEW), -made(FEW)])  # one decomposition, two signs
    got, expected = cam._principal_map(features, True, False), by_svd(features, True)
    # As far apart as values and their opposites, where nothing but roundings is allowed above.
    assert abs(got - expected).max() > abs(expected).max()


def test_eigencam_is_the_same_for_both_classes_and_calls_no_head():
    def no_head(features):
        raise AssertionError("called")

    one, other = (quick(eigencam, features_fn, no_head)(images(), target) for target, _ in BOTH)
    np.testing.assert_array_equal(one, other)
    assert np.any(one > 0)


def test_centred_maps_sum_to_zero_and_uncentred_ones_of_positive_features_are_positive():
    features = made(MANY)
    centred, plain = (
        quick(eigencam, same, squares, centred=c, relu=False)(features, "normal")
        for c in (True, False)
    )
    # Sums of six float32 values.
    np.testing.assert_allclose(centred.sum((1, 2)), 0, atol=1e-5 * float(centred.max()))
    assert np.all(plain > 0)


def test_one_varying_channel_is_its_own_principal_component_with_its_own_sign():
    wave = jnp.asarray(normal(3, 1, 3, 4), jnp.float32)
    features = jnp.stack([jnp.full_like(wave, 5.0), wave, jnp.full_like(wave, -2.0)], axis=3)
    got = quick(eigencam, same, squares, relu=False)(features, "fracture")
    # Products of float32, and their root.
    np.testing.assert_allclose(got, wave - wave.mean(), atol=2e-6 * float(abs(wave).max()))
    upside_down = quick(eigencam, same, squares, relu=False)(-features, "fracture")
    np.testing.assert_allclose(upside_down, -got, atol=2e-6 * float(abs(wave).max()))


def test_eigen_gradcam_agrees_with_the_evidence_for_the_target():
    features = features_fn(images())
    for target, sign in BOTH:
        got = quick(eigen_gradcam, features_fn, attention_head, relu=False)(images(), target)
        slopes = jax.jit(jax.grad(lambda f: attention_head(f).sum()))(features)
        evidence = sign * (features * slopes).sum(axis=3)
        evidence = evidence - evidence.mean(axis=(1, 2), keepdims=True)
        assert np.all((got * evidence).sum(axis=(1, 2)) > 0)


@both_sides
@pytest.mark.parametrize("scale", [2.0**-100, 2.0**100])
def test_the_largest_and_the_smallest_features_are_as_good_as_others(shape, scale):
    """Their squares are not float32 numbers; powers of 2 change no digit."""
    got, scaled = (
        quick(eigencam, same, squares)(factor * made(shape), "fracture") for factor in (1.0, scale)
    )
    np.testing.assert_array_equal(np.asarray(scaled, np.float64) / scale, got)


def test_what_is_the_same_everywhere_is_no_component_but_zero():
    """0.1 less the mean of 0.1s is not 0 in float32: without care, noise would become the map."""
    features = jnp.broadcast_to(made((3, 1, 1, 11)), (3, 7, 7, 11)) + 0.1
    assert np.any(features - features.mean(axis=(1, 2), keepdims=True))
    got = quick(eigencam, same, squares, relu=False)(features, "fracture")
    np.testing.assert_array_equal(got, np.zeros((3, 7, 7)))
    plain = quick(eigencam, same, squares, centred=False)(features, "fracture")
    np.testing.assert_allclose(plain, np.full_like(plain, plain[:, :1, :1]), rtol=1e-5)  # roundings
    assert np.all(plain > 0)


def test_the_smaller_of_both_products_is_decomposed(monkeypatch):
    shapes = []

    def seen(products):
        shapes.append(products.shape)
        return eigh(products)

    eigh = jnp.linalg.eigh
    monkeypatch.setattr(jnp.linalg, "eigh", seen)
    for shape in (MANY, FEW):
        quick(eigencam, same, squares)(made(shape), "fracture")
    assert shapes == [(3, 6, 6), (3, 4, 4)]
