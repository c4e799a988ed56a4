"""Scores of maps against masks, by hand."""

import numpy as np
import pytest

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.trials import localisation
from msa_flax.saliency.trials.localisation import localise

SIZE = 16
MASK = np.zeros((1, SIZE, SIZE), np.uint8)
MASK[0, 4:8, 4:8] = 255
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def masks_as_they_are(monkeypatch):
    monkeypatch.setattr(localisation, "DILATE_FRACTION", 0.0)


def scores(saliency, masks=MASK):
    found = localise(np.asarray(saliency, float)[None], masks, size=SIZE)
    return {name: float(values[0]) for name, values in found.items()}


def test_a_map_that_is_the_mask_has_every_score_at_its_best():
    assert scores(MASK[0]) == {"pointing game": 1, "mass inside": 1, "IoU": 1}


def test_a_map_beside_the_mask_has_none():
    beside = np.zeros((SIZE, SIZE))
    beside[10:14, 10:14] = 1
    assert scores(beside) == {"pointing game": 0, "mass inside": 0, "IoU": 0}


def assert_half_is_counted():
    half = np.zeros((SIZE, SIZE))
    half[4:8, 6:10] = 1  # 8 of its 16 pixels in the mask
    half[5, 5] = 2
    found = scores(half)
    assert found["pointing game"] == 1
    assert found["mass inside"] == pytest.approx(10 / 18, rel=1e-6)  # float32 sums
    assert found["IoU"] in (8 / 24, 9 / 23)  # the peak, and 15 of 16 equal ones


def test_a_map_half_in_the_mask_has_half_of_it():
    assert_half_is_counted()


def test_a_mask_that_is_widened_unasked_fails_the_comparison(monkeypatch):
    widen = localisation.dilated
    monkeypatch.setattr(localisation, "dilated", lambda mask, pixels: widen(mask, pixels + 1))
    with pytest.raises(AssertionError):
        assert_half_is_counted()


def test_a_map_that_is_the_same_everywhere_scores_as_chance_does():
    area = 16 / SIZE**2
    found = scores(np.full((4, 4), 0.3))
    assert found["pointing game"] == area
    assert found["mass inside"] == pytest.approx(area, rel=1e-6)  # float32 sums
    # 16 random pixels of 256 have one in common with the mask on average, five hardly ever.
    assert found["IoU"] < 5 / 27


def test_of_several_maxima_the_share_in_the_mask_counts():
    peaks = np.zeros((SIZE, SIZE))
    peaks[5, 5] = peaks[6, 6] = peaks[6, 7] = peaks[12, 12] = 3
    assert scores(peaks)["pointing game"] == 0.75


def test_widening_takes_in_what_lies_near(monkeypatch):
    near = np.zeros((SIZE, SIZE))
    near[5, 9] = 1  # two pixels right of the mask
    for pixels, hit in enumerate((0, 0, 1, 1)):
        monkeypatch.setattr(localisation, "DILATE_FRACTION", pixels / SIZE)
        assert scores(near)["pointing game"] == hit


def test_coarse_maps_are_resized_and_negative_values_count_as_nothing():
    coarse = np.full((4, 4), -5.0)
    coarse[1, 1] = 1  # the mask's place
    clipped = np.maximum(coarse, 0)
    assert scores(coarse) == scores(clipped)
    assert scores(coarse)["pointing game"] == 1


def test_what_cannot_be_scored_is_nan():
    empty = np.zeros_like(MASK)
    for saliency, masks in ((np.zeros((4, 4)), MASK), (-1.0 * MASK[0], MASK), (MASK[0], empty)):
        assert all(np.isnan(list(scores(saliency, masks).values())))


def test_the_order_of_images_makes_no_difference():
    maps = np.maximum(RNG.normal(size=(5, 4, 4)), 0)
    masks = RNG.integers(0, 2, (5, SIZE, SIZE)).astype(np.uint8)
    order = np.array([4, 2, 0, 3, 1])
    whole = localise(maps, masks, size=SIZE)
    moved = localise(maps[order], masks[order], size=SIZE)
    for name in whole:
        np.testing.assert_array_equal(moved[name], whole[name][order])


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, SIZE, SIZE), (1, SIZE, 8)])
def test_masks_of_another_size_are_refused_in_a_sentence(shape):
    with pytest.raises(
        SaliencyError, match=r"masks: expected the size of the images, \(1, 16, 16\)"
    ):
        scores(np.ones((4, 4)), np.ones(shape, np.uint8))
