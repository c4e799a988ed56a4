import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compilation import QUICK

from msa_flax.saliency import gradients, interface
from msa_flax.saliency.gradients import integrated_gradients, smoothgrad

METHODS = {
    "integrated_gradients": functools.partial(integrated_gradients, steps=8),
    "smoothgrad": functools.partial(smoothgrad, samples=4),
}
either = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
both_targets = pytest.mark.parametrize(("target", "sign"), [("fracture", 1), ("normal", -1)])


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def images(*shape, dtype=np.float32):
    """Grey values 0..255, whole numbers."""
    return np.random.default_rng(0).integers(0, 256, shape or (3, 6, 6)).astype(dtype)


def quickly(function, *arguments):
    return np.asarray(jax.jit(function, compiler_options=QUICK)(*arguments))


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


KERNEL, HEAD = normal(1, 3, 3, 1, 4), normal(2, 6, 6, 4)


def features_fn(x):
    """A smooth layer of 4 channels, at the resolution of the images [b, 6, 6]."""
    return jnp.tanh(convolve(x[..., None] / 100, jnp.asarray(KERNEL, x.dtype)))


def head_fn(features):
    weighted = features * jnp.asarray(HEAD, features.dtype)[None]
    return jnp.sin(weighted.sum(axis=(1, 2, 3)) / 4) + 0.3


def score(x):
    return head_fn(features_fn(x))


slope = jax.grad(lambda x: score(x).sum())


def linear_head(features):
    """A score that is linear in the image: features are the image with one channel."""
    return (features[..., 0] * jnp.asarray(HEAD[..., 0], features.dtype)[None]).sum((1, 2)) - 0.7


def one_channel(x):
    return x[..., None]


def explain(method, x, target="fracture", *, features=features_fn, head=head_fn, **keywords):
    return quickly(lambda x: method(features, head, x, target, **keywords), x)


@functools.cache
def maps_of(method, target="fracture"):
    return explain(method, images(), target)


def assert_complete(steps=64, sign=1, target="fracture"):
    with jax.enable_x64(True):
        x = images(dtype=np.float64)
        maps = explain(integrated_gradients, x, target, baseline=20.0, steps=steps)
        expected = sign * (quickly(score, x) - quickly(score, np.full_like(x, 20)))
    assert abs(expected).min() > 0.01
    # The score is analytic: 64 nodes leave 1e-9. 36 values, rounded to float32, are added.
    total = maps.astype(np.float64).sum(axis=(1, 2))
    np.testing.assert_allclose(total, expected, atol=36 * 6e-8 * abs(maps).max())


@both_targets
def test_integrated_gradients_add_up_to_what_the_score_gains_over_the_baseline(target, sign):
    assert_complete(sign=sign, target=target)


def test_with_half_the_nodes_dropped_the_completeness_test_fails(monkeypatch):
    leggauss = np.polynomial.legendre.leggauss
    monkeypatch.setattr(
        np.polynomial.legendre, "leggauss", lambda n: tuple(part[::2] for part in leggauss(n))
    )
    with pytest.raises(AssertionError):
        assert_complete()


def test_with_equal_weights_of_the_nodes_the_completeness_test_fails(monkeypatch):
    leggauss = np.polynomial.legendre.leggauss
    monkeypatch.setattr(
        np.polynomial.legendre, "leggauss", lambda n: (leggauss(n)[0], np.full(n, 2 / n))
    )
    with pytest.raises(AssertionError):
        assert_complete()


def test_with_one_sign_for_both_targets_the_completeness_test_fails(monkeypatch):
    monkeypatch.setattr(interface, "SIGNS", {"fracture": 1.0, "normal": 1.0})
    assert_complete()
    with pytest.raises(AssertionError):
        assert_complete(sign=-1, target="normal")


def test_with_too_few_nodes_the_completeness_test_fails():
    with pytest.raises(AssertionError):
        assert_complete(steps=2)


def test_integrated_gradients_agree_with_a_plain_sum_along_the_path():
    with jax.enable_x64(True):
        x, start = images(dtype=np.float64), 30.0
        places = (np.arange(1000) + 0.5) / 1000
        slopes = quickly(jax.vmap(lambda a: slope(start + a * (x - start))), places)
        got = explain(integrated_gradients, x, baseline=start, steps=64)
    expected = (x - start) * slopes.mean(axis=0)
    # The midpoint rule errs by the square of its step of 1e-3, times a second derivative along the
    # path of some tens.
    np.testing.assert_allclose(got, expected, atol=5e-5 * abs(expected).max())


@both_targets
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_of_a_linear_score_they_are_weight_times_departure_whatever_the_steps(target, sign, steps):
    linear = {"features": one_channel, "head": linear_head}
    got = explain(integrated_gradients, images(), target, baseline=17.0, steps=steps, **linear)
    expected = sign * HEAD[..., 0] * (images() - 17)
    np.testing.assert_allclose(got, expected, rtol=2e-6)  # float32 products and sums of weights


def test_a_baseline_may_be_an_image_of_its_own():
    linear = {"features": one_channel, "head": linear_head}
    for baseline in (images(6, 6) / 2, images()[::-1]):
        got = explain(integrated_gradients, images(), baseline=baseline, **linear)
        # Departures are 0..255 and weights about 1; some float32 roundings.
        np.testing.assert_allclose(got, HEAD[..., 0] * (images() - baseline), atol=1e-3)


def test_the_baseline_is_black_by_default():
    got = explain(METHODS["integrated_gradients"], images(), baseline=np.zeros((6, 6)))
    np.testing.assert_array_equal(got, maps_of(METHODS["integrated_gradients"]))


@both_targets
def test_smoothgrad_without_noise_is_the_gradient(target, sign):
    got = explain(smoothgrad, images(), target, noise=0.0, samples=3)
    expected = sign * quickly(slope, images())
    np.testing.assert_allclose(got, expected, atol=1e-6 * abs(expected).max())  # float32 roundings


def averaged_slopes(x, *, samples, noise, seed):
    def of_copy(k):
        key = jax.random.fold_in(jax.random.key(seed), k)
        return slope(x + 255 * noise * jax.random.normal(key, (1, 6, 6)))

    return np.mean([quickly(of_copy, k) for k in range(samples)], axis=0)


def assert_smooth():
    keywords = {"samples": 3, "noise": 0.2, "seed": 3}
    got, expected = explain(smoothgrad, images(), **keywords), averaged_slopes(images(), **keywords)
    np.testing.assert_allclose(got, expected, atol=2e-6 * abs(expected).max())  # float32 roundings


def test_smoothgrad_is_the_mean_of_the_gradients_of_noisy_copies():
    assert_smooth()


def test_with_another_range_of_grey_values_that_test_fails(monkeypatch):
    monkeypatch.setattr(gradients, "GREY_VALUES", 1.0)
    with pytest.raises(AssertionError):
        assert_smooth()


def test_the_noise_has_the_stated_deviation():
    def cubes(features):
        return (features**3).sum(axis=(1, 2, 3))

    black = np.zeros((1, 16, 16), np.float32)
    more = {"features": one_channel, "head": cubes}
    got = explain(smoothgrad, black, samples=50, noise=0.1, **more)
    # The gradient at noise e is 3 e^2. A variance from 12,800 values is known to 1.25 %.
    assert float(got.mean()) == pytest.approx(3 * 25.5**2, rel=0.05)


def test_of_a_linear_score_smoothgrad_is_its_weights_whatever_the_noise():
    linear = {"features": one_channel, "head": linear_head}
    got = explain(smoothgrad, images(), "normal", noise=0.5, **linear)
    expected = np.broadcast_to(-HEAD[None, ..., 0], (3, 6, 6))
    np.testing.assert_allclose(got, expected, rtol=1e-5)  # 32 float32 additions


def test_the_absolute_map_is_the_size_of_the_signed_one_and_the_same_for_both_targets():
    signed = maps_of(METHODS["smoothgrad"])
    assert signed.min() < 0 < signed.max()
    for target in ("fracture", "normal"):
        got = explain(METHODS["smoothgrad"], images(), target, absolute=True)
        np.testing.assert_array_equal(got, abs(signed))


def test_another_seed_is_other_noise():
    got = explain(METHODS["smoothgrad"], images(), seed=1)
    assert np.all(got != maps_of(METHODS["smoothgrad"]))


@either
def test_a_batch_gives_what_its_images_give_one_by_one(method):
    batch = maps_of(method)
    single = explain(method, images()[1:2])
    # Sums may run in another order for another batch: float32 roundings.
    np.testing.assert_allclose(single, batch[1:2], atol=1e-5 * abs(batch).max())


@either
def test_signs_may_differ_from_image_to_image_and_be_traced(method):
    signs = np.array([1, -1, 1])
    got = quickly(functools.partial(method, features_fn, head_fn), images(), signs)
    np.testing.assert_array_equal(got, signs[:, None, None] * maps_of(method))


@either
def test_bytes_are_explained_as_the_floats_that_they_are(method):
    got = explain(method, images(dtype=np.uint8))
    np.testing.assert_array_equal(got, maps_of(method))
    assert got.dtype == jnp.float32
    assert got.shape == (3, 6, 6)


@either
def test_the_maps_of_the_channels_are_summed(method):
    weights, x = normal(5, 1, 6, 6, 3).astype(np.float32), images(3, 6, 6, 3)

    def head(features):
        return (features * weights).sum(axis=(1, 2, 3))

    got = explain(method, x, features=lambda x: x, head=head)
    change = x if method is METHODS["integrated_gradients"] else np.ones_like(x)
    expected = (weights * change).sum(axis=-1)
    np.testing.assert_allclose(got, expected, atol=1e-5 * abs(expected).max())  # roundings


def test_without_compiling_it_gives_the_same():
    method = METHODS["integrated_gradients"]
    got, expected = method(features_fn, head_fn, images(), "normal"), -maps_of(method)
    # Compiled code may fuse and reorder: float32 roundings.
    np.testing.assert_allclose(got, expected, atol=1e-5 * abs(expected).max())


@either
def test_the_network_sees_one_batch_at_a_time(method):
    name = "steps" if method is METHODS["integrated_gradients"] else "samples"
    bound = functools.partial(method, features_fn, head_fn, target="fracture", **{name: 99})
    program = str(jax.make_jaxpr(bound)(images()))
    assert "f32[3,6,6" in program
    assert "[99,3,6,6" not in program


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="steps: expected 1 or more, got 0"):
        integrated_gradients(features_fn, head_fn, images(), "fracture", steps=0)
    for keywords in ({"samples": 0}, {"noise": -0.1}):
        with pytest.raises(ValueError, match="expected 1 or more and 0 or more, got"):
            smoothgrad(features_fn, head_fn, images(), "fracture", **keywords)
    baseline = np.zeros(5)
    with pytest.raises(ValueError, match=r"Incompatible.*\[5\]"):
        integrated_gradients(features_fn, head_fn, images(), "fracture", baseline=baseline)


@either
def test_images_and_logits_of_other_shapes_are_refused(method):
    with pytest.raises(ValueError, match=r"expected \[b, h, w\] or \[b, h, w, c\], got \(6, 6\)"):
        method(features_fn, head_fn, images(6, 6), "fracture")
    with pytest.raises(ValueError, match="one logit per image"):
        method(features_fn, lambda f: head_fn(f)[:, None], images(), "fracture")
    with pytest.raises(ValueError, match="one sign per image"):
        method(features_fn, head_fn, images(), jnp.ones(2))
