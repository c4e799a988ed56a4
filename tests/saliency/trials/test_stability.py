"""Infidelity and sensitivity on linear models, whose exact maps are known."""

import numpy as np
import pytest

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.trials import stability
from msa_flax.saliency.trials.removal import Settings
from msa_flax.saliency.trials.stability import infidelity, sensitivity_max

SIZE, COUNT, BATCH = 12, 4, 8
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(1, 256, (COUNT, SIZE, SIZE)).astype(np.uint8)
WEIGHTS = RNG.normal(size=(SIZE, SIZE)) / 1000
SIGNS = np.array([1, -1, 1, -1])
CONTRIBUTIONS = WEIGHTS[None] * SIGNS[:, None, None] * IMAGES  # where removed pixels are black
RANDOM = RNG.normal(size=(COUNT, SIZE, SIZE))
SETTINGS = Settings(fill="black", samples=10, batch_size=BATCH)
ASK = {"signs": SIGNS, "settings": SETTINGS}


def linear(pictures):
    assert pictures.shape == (BATCH, SIZE, SIZE)
    return (np.asarray(pictures, np.float64) * WEIGHTS[None]).sum(axis=(1, 2))


def found(maps):
    return infidelity(linear, IMAGES, {"map": maps}, **ASK)["map"]


def test_the_exact_map_of_a_linear_model_has_no_infidelity():
    # Falls of the logit are about 0.1; maps and pictures are rounded to float32, so their sums
    # agree to about 1e-7 of 20, and squares to far below 1e-9.
    assert found(CONTRIBUTIONS).max() < 1e-9
    assert found(RANDOM).min() > 1e-4


def assert_the_exact_map_has_none():
    assert found(CONTRIBUTIONS).max() < 1e-9


def test_patches_in_the_wrong_place_fail_the_comparison(monkeypatch):
    squares = stability._squares
    calls = []

    def drifting(*arguments):
        calls.append(1)
        return np.roll(squares(*arguments), len(calls), axis=1)

    monkeypatch.setattr(stability, "_squares", drifting)
    with pytest.raises(AssertionError):
        assert_the_exact_map_has_none()


def test_the_scale_of_a_map_makes_no_difference_but_its_sign_does():
    np.testing.assert_allclose(found(8 * RANDOM), found(RANDOM), rtol=1e-6)  # float32 maps
    np.testing.assert_allclose(found(-CONTRIBUTIONS), 1)  # no better than an all-zero map
    np.testing.assert_allclose(found(np.zeros((COUNT, 3, 3))), 1)
    assert (found(RANDOM) <= 1).all()


def test_a_model_that_never_answers_leaves_it_undefined():
    silent = infidelity(lambda x: np.zeros(len(x)), IMAGES, {"map": RANDOM}, **ASK)["map"]
    assert np.isnan(silent).all()


def test_all_maps_share_the_passes_of_the_model():
    calls = []

    def counted(pictures):
        calls.append(1)
        return linear(pictures)

    maps = {"one": RANDOM, "two": CONTRIBUTIONS, "coarse": RANDOM[:, :3, :3]}
    together = infidelity(counted, IMAGES, maps, **ASK)
    assert len(calls) == -(-COUNT * 11 // BATCH)
    np.testing.assert_array_equal(together["one"], found(RANDOM))


def test_the_order_of_images_makes_no_difference():
    order = np.array([2, 0, 3, 1])
    moved = infidelity(
        linear, IMAGES[order], {"map": RANDOM[order]}, **(ASK | {"signs": SIGNS[order]})
    )["map"]
    np.testing.assert_array_equal(moved, found(RANDOM)[order])
    steps = sensitivity_max(square, IMAGES[order], batch_size=BATCH)
    np.testing.assert_array_equal(steps, sensitivity_max(square, IMAGES, batch_size=BATCH)[order])


def test_squares_lie_in_the_image_and_reach_its_corners():
    drawn = stability._squares(6, 2, 500, np.random.default_rng(0))
    assert (drawn.sum(axis=(1, 2)) == 4).all()
    assert drawn.any(axis=0).all()


def square(pictures):
    assert pictures.shape == (BATCH, SIZE, SIZE)
    return pictures.astype(np.float64) ** 2


def test_a_map_that_is_always_the_same_has_no_sensitivity():
    constant = np.arange(9.0).reshape(1, 3, 3).repeat(BATCH, axis=0)
    got = sensitivity_max(lambda x: constant[: len(x)], IMAGES, batch_size=BATCH)
    np.testing.assert_array_equal(got, 0)


def test_the_sensitivity_of_a_map_that_is_the_image_is_the_noise_over_it():
    got = sensitivity_max(lambda x: x, IMAGES, samples=50, batch_size=BATCH)
    norms = np.linalg.norm(IMAGES.reshape(COUNT, -1).astype(float), axis=1)
    # Uniform noise of 144 pixels has the norm RADIUS sqrt(144 / 3), give or take 4 %; the largest
    # of 50 is up to three times that above, and none is above RADIUS sqrt(144).
    typical = stability.RADIUS * np.sqrt(SIZE * SIZE / 3) / norms
    assert (got > typical).all()
    assert (got < 1.12 * typical).all()


def test_a_wider_ball_and_more_samples_show_more(monkeypatch):
    ask = {"images": IMAGES, "batch_size": BATCH}
    more = [sensitivity_max(square, **ask, samples=samples) for samples in (1, 5, 20)]
    assert (np.diff(more, axis=0) >= 0).all()
    wider = []
    for radius in (0.5, 2.0, 8.0):
        monkeypatch.setattr(stability, "RADIUS", radius)
        wider.append(sensitivity_max(square, **ask))
    assert (np.diff(wider, axis=0) >= 0).all()


def test_a_map_of_nothing_has_no_sensitivity_that_could_be_told():
    got = sensitivity_max(np.zeros_like, IMAGES, batch_size=BATCH)
    assert np.isnan(got).all()


def test_maps_that_do_not_belong_to_the_images_are_refused():
    with pytest.raises(SaliencyError, match=r"maps: expected \[4, h, w\]"):
        found(RANDOM[:2])
