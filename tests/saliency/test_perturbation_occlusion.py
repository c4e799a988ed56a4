import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compilation import QUICK

from msa_flax.saliency import interface, perturbation
from msa_flax.saliency.perturbation import occlusion

both_targets = pytest.mark.parametrize(("target", "sign"), [("fracture", 1), ("normal", -1)])

WEIGHTS = np.random.default_rng(1).normal(size=(9, 7))


def images(*more):
    return np.random.default_rng(0).integers(0, 256, (3, 9, 7, *more)).astype(np.float32)


def features_fn(x):
    """Four channels that mix neighbouring rows; images have no channels, or three."""
    grey = x if x.ndim == 3 else x[..., 0] - x[..., 1] + 0.5 * x[..., 2]
    mixed = jnp.tanh((grey + jnp.roll(grey, 1, axis=1)) / 300)
    return jnp.stack([mixed, mixed**2, jnp.cos(mixed), grey / 255], axis=-1)


def head_fn(features):
    weighted = (features * jnp.asarray(WEIGHTS, features.dtype)[None, :, :, None]).sum(axis=(1, 2))
    return weighted[:, 0] * weighted[:, 1] + weighted[:, 2] + weighted[:, 3]


def one_channel(x):
    return x[..., None]


def linear_head(features):
    return (features[..., 0] * jnp.asarray(WEIGHTS, features.dtype)[None]).sum(axis=(1, 2))


def explain(x, target="fracture", *, features=features_fn, head=head_fn, **keywords):
    function = lambda x: occlusion(features, head, x, target, **keywords)  # noqa: E731
    return np.asarray(jax.jit(function, compiler_options=QUICK)(x))


@jax.jit
def logits(x):
    return head_fn(features_fn(x))


def by_a_plain_loop(x, *, patch, stride, fill, sign=1):
    """Covers, asks, adds, counts."""
    total, count = np.zeros(x.shape[:3]), np.zeros(x.shape[:3])
    top = 0
    while True:
        left = 0
        while True:
            covered = x.copy()
            covered[:, top : top + patch, left : left + patch] = fill
            drop = sign * np.asarray(logits(x) - logits(covered))
            total[:, top : top + patch, left : left + patch] += drop[:, None, None]
            count[:, top : top + patch, left : left + patch] += 1
            if left + patch >= x.shape[2]:
                break
            left += stride
        if top + patch >= x.shape[1]:
            break
        top += stride
    return total / count


def assert_as_the_loop(x=None, target="fracture", sign=1, **keywords):
    x = images() if x is None else x
    keywords = {"patch": 3, "stride": 2, "fill": 60.0} | keywords
    got = explain(x, target, **keywords)
    keywords.pop("at_once", None)
    expected = by_a_plain_loop(x, sign=sign, **keywords)
    # Differences of float32 logits of about 10, which round to 1e-6.
    np.testing.assert_allclose(got, expected, atol=3e-5)
    assert abs(expected).max() > 1


@both_targets
def test_the_maps_are_those_of_a_plain_loop(target, sign):
    assert_as_the_loop(target=target, sign=sign)


@pytest.mark.parametrize(("patch", "stride"), [(1, 1), (2, 2), (3, 3), (4, 3), (7, 5), (7, 7)])
def test_they_are_so_for_patches_that_overlap_touch_or_do_not_fit(patch, stride):
    assert_as_the_loop(patch=patch, stride=stride)


def test_a_patch_covers_all_channels():
    assert_as_the_loop(images(3))


@pytest.mark.parametrize("at_once", [1, 4, 10, 1000])
def test_what_a_pass_holds_makes_no_difference(at_once):
    assert_as_the_loop(at_once=at_once)


def test_a_pass_holds_no_more_images_than_allowed():
    bound = functools.partial(occlusion, features_fn, head_fn, target="fracture", at_once=7)
    program = str(jax.make_jaxpr(functools.partial(bound, patch=3, stride=2))(images()))
    # 12 patches of 3 images, 2 patches a pass: 6 images with 9 x 7 pixels, never 9 of them.
    assert "f32[2,3,9,7]" in program
    assert "f32[3,3,9,7]" not in program
    assert "f32[12,3,9,7]" not in program


def test_without_counting_the_patches_that_overlap_the_comparison_fails(monkeypatch):
    bands = perturbation._bands

    class Uncounted(np.ndarray):
        def sum(self, axis=None):
            return np.ones(self.shape[1])

    monkeypatch.setattr(perturbation, "_bands", lambda *size: bands(*size).view(Uncounted))
    assert_as_the_loop(patch=1, stride=1)  # nothing overlaps
    with pytest.raises(AssertionError):
        assert_as_the_loop()


def test_without_the_patches_cut_off_at_the_border_the_comparison_fails(monkeypatch):
    bands = perturbation._bands
    monkeypatch.setattr(perturbation, "_bands", lambda *size: bands(*size)[:-1])
    # Pixels that no patch covers have the mean of nothing.
    with pytest.raises((AssertionError, RuntimeWarning)):
        assert_as_the_loop()


def test_with_one_sign_for_both_targets_the_comparison_fails(monkeypatch):
    monkeypatch.setattr(interface, "SIGNS", {"fracture": 1.0, "normal": 1.0})
    assert_as_the_loop()
    with pytest.raises(AssertionError):
        assert_as_the_loop(target="normal", sign=-1)


@both_targets
def test_of_a_linear_score_single_pixels_have_weight_times_departure(target, sign):
    linear = {"features": one_channel, "head": linear_head}
    got = explain(images(), target, patch=1, stride=1, fill=20.0, **linear)
    expected = sign * WEIGHTS * (images() - 20)
    # Logits of some hundreds, in float32, are subtracted: 1e-4.
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_of_a_linear_score_patches_that_touch_add_up_to_the_whole():
    got = explain(images(), patch=3, stride=3, features=one_channel, head=linear_head)
    whole = linear_head(one_channel(images()))
    cells = got[:, ::3, ::3]  # one pixel of each patch; the last column is 1 wide
    np.testing.assert_allclose(cells.sum(axis=(1, 2)), whole, atol=1e-3)  # roundings as above


def test_an_image_that_is_the_fill_everywhere_has_an_all_zero_map():
    got = explain(np.full((2, 9, 7), 60, np.float32), fill=60.0)
    # The same values; another batch may add them in another order: roundings of logits of 10.
    np.testing.assert_allclose(got, 0, atol=1e-5)


@pytest.mark.parametrize(("side", "patch", "stride"), [(35, 5, 2), (14, 2, 1), (6, 1, 1)])
def test_by_default_a_patch_is_a_seventh_of_the_side_and_the_stride_half_of_it(side, patch, stride):
    x = np.random.default_rng(2).integers(0, 256, (1, side, side)).astype(np.float32)
    sines = {
        "features": one_channel,
        "head": lambda features: jnp.sin(features).sum(axis=(1, 2, 3)),
    }
    expected = explain(x, patch=patch, stride=stride, **sines)
    np.testing.assert_array_equal(explain(x, **sines), expected)


@pytest.mark.parametrize("length", range(1, 12))
def test_patches_cover_every_pixel_and_none_begins_beyond_what_is_covered(length):
    for size in range(1, length + 1):
        for step in range(1, size + 1):
            bands = perturbation._bands(length, size, step)
            assert bands.any(axis=0).all()
            assert not bands[:-1, -1].any()  # only the last one reaches the border
            assert np.array_equal(bands.argmax(axis=1), step * np.arange(len(bands)))
            assert (bands[:-1].sum(axis=1) == size).all()


def test_bytes_are_the_floats_that_they_are_and_signs_may_differ_from_image_to_image():
    signs = np.array([1, -1, 1])
    expected = explain(images(), patch=3, stride=3)
    got = explain(images().astype(np.uint8), jnp.asarray(signs), patch=3, stride=3)
    assert got.dtype == np.float32
    # Compiled code may fuse and reorder: roundings of logits of about 10.
    np.testing.assert_allclose(got, signs[:, None, None] * expected, atol=3e-5)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"patch": 0}, "patch: expected 1 to 7 pixels for images of 9 x 7, got 0"),
        ({"patch": 8}, "patch: expected 1 to 7 pixels for images of 9 x 7, got 8"),
        ({"patch": 3, "stride": 4}, "stride: expected 1 to 3 pixels, .*; got 4"),
        ({"patch": 3, "stride": 0}, "stride: expected 1 to 3 pixels, .*; got 0"),
        ({"at_once": 0}, "at_once: expected 1 or more, got 0"),
    ],
)
def test_patches_that_do_not_fit_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        occlusion(features_fn, head_fn, images(), "fracture", **keywords)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected \[b, h, w\] or \[b, h, w, c\]"):
        occlusion(features_fn, head_fn, images()[0], "fracture")
    with pytest.raises(ValueError, match="one logit per image"):
        occlusion(features_fn, lambda f: head_fn(f)[:, None], images(), "fracture")
    with pytest.raises(ValueError, match="one sign per image"):
        occlusion(features_fn, head_fn, images(), jnp.ones(2), patch=7, stride=7)
