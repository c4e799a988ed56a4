"""Ranking pixels, filling and imputing them, asking in batches."""

import inspect

import numpy as np
import pytest

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.trials import pixels

SIZE = 12
IMAGES = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE)).astype(np.uint8)


def assert_ties_have_no_place():
    """The first tenth of an all-zero map lies anywhere: its mean row is about the middle one."""
    chosen = [
        pixels.most_salient(
            pixels.order(np.zeros((7, 7)), 64, np.random.default_rng(seed)), 0.1, 64
        )
        for seed in range(10)
    ]
    rows, columns = np.nonzero(np.concatenate(chosen, axis=1))[0], np.nonzero(chosen)[2]
    # A uniform place in 0..63 has deviation 18.5; of 4,100 of them the mean has 0.29.
    assert abs(rows.mean() - 31.5) < 1.5
    assert abs(columns.mean() - 31.5) < 1.5


def test_pixels_that_a_map_does_not_tell_apart_go_in_random_order():
    assert_ties_have_no_place()


def test_ties_by_position_fail_the_comparison(monkeypatch):
    class Ordered(np.random.Generator):
        def permutation(self, count):
            return np.arange(count)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Ordered(np.random.PCG64(seed)))
    with pytest.raises(AssertionError):
        assert_ties_have_no_place()


def test_a_map_goes_before_its_ties_and_all_pixels_go_once():
    saliency = np.zeros((8, 8))
    saliency[3, 4], saliency[6, 1] = 2, 1
    ranked = pixels.order(saliency, 8, np.random.default_rng(0))
    assert ranked[:2].tolist() == [3 * 8 + 4, 6 * 8 + 1]
    assert sorted(ranked.tolist()) == list(range(64))


def test_what_fills_up_a_batch_is_cut_off_again():
    pictures = [np.full((2, 2), k) for k in range(7)]
    assert [int(x) for x in pixels.in_batches(lambda x: x.sum(axis=(1, 2)), pictures, 3)] == [
        4 * k for k in range(7)
    ]


def test_imputing_solves_the_equations_exactly_on_the_sides_that_are_known():
    row = np.linspace(20, 200, 15)
    image = np.repeat(row[None], 15, axis=0)  # a ramp is its own mean of neighbours
    removed = np.zeros((15, 15), bool)
    removed[3:12, 4:11] = True
    found = pixels.impute(image, removed, noise=0.0, rng=np.random.default_rng(0))
    # The system is solved to 1e-4 of its right-hand side, here up to 200 grey levels.
    np.testing.assert_allclose(found, image, atol=0.1)
    np.testing.assert_array_equal(found[~removed], image[~removed].astype(np.float32))


def test_every_imputed_pixel_is_the_mean_of_the_neighbours_it_has_at_the_edges_too():
    removed = np.random.default_rng(1).random((SIZE, SIZE)) < 0.8
    found = pixels.impute(IMAGES[0], removed, noise=0.0, rng=np.random.default_rng(0)).astype(float)

    def mean(near):
        values, weights = np.transpose(near)
        return np.average(values, weights=weights)

    for y, x in np.argwhere(removed):
        near = [
            (found[v, u], 1 / (abs(v - y) + abs(u - x)))  # those at its sides count double
            for v in range(max(0, y - 1), min(SIZE, y + 2))
            for u in range(max(0, x - 1), min(SIZE, x + 2))
            if (v, u) != (y, x)
        ]
        # What the solver may leave, as above.
        assert found[y, x] == pytest.approx(mean(near), abs=0.1)


def test_noise_is_added_to_imputed_pixels_only():
    image, removed = np.full((64, 64), 100, np.uint8), np.zeros((64, 64), bool)
    removed[:32] = True
    found = pixels.impute(image, removed, noise=2.5, rng=np.random.default_rng(0))
    # A deviation of 2,048 draws is known to 1.6 % (one standard error).
    assert found[removed].std() == pytest.approx(2.5, rel=0.06)
    assert (found[~removed] == 100).all()


def test_nothing_can_be_imputed_from_nothing():
    with pytest.raises(SaliencyError, match="a pixel that is left"):
        pixels.impute(
            IMAGES[0], np.ones((SIZE, SIZE), bool), noise=0.0, rng=np.random.default_rng(0)
        )


def test_what_fills_in_is_blurred_or_black():
    image = IMAGES[0]
    assert pixels.filled(image, "black").max() == 0
    blurred = pixels.filled(np.kron(image, np.ones((4, 4))), "blur")
    # Blurring keeps the mean but for what is reflected at the edges.
    assert blurred.mean() == pytest.approx(image.mean(), rel=0.05)
    assert blurred.std() < 0.5 * image.std()


def test_another_fill_is_refused():
    unchecked = inspect.unwrap(pixels.filled)  # without the tests' type checker
    with pytest.raises(SaliencyError, match="fill: expected blur or black, got 'white'"):
        unchecked(IMAGES[0], "white")


def test_a_model_without_pictures_has_no_logits():
    assert pixels.logits_of(np.mean, [], 8).shape == (0,)
