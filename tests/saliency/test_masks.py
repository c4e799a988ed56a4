"""Maps at the size of an image, and their share inside a mask."""

import numpy as np
import pytest

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.masks import area_share, mass_inside, upsample

RAMP = np.arange(16, dtype=np.float32).reshape(4, 4)


def test_upsampling_is_bilinear_with_pixel_centres_aligned():
    got = upsample(np.array([[0.0, 1.0], [2.0, 3.0]]), 4)
    steps = np.array([0, 0.25, 0.75, 1])
    np.testing.assert_array_equal(got, steps[None, :] + 2 * steps[:, None])  # exact in binary
    assert got.dtype == np.float32


@pytest.mark.parametrize("bad", [np.zeros((2, 2, 1)), np.array([[np.nan]]), np.array([[np.inf]])])
def test_what_is_no_finite_map_is_refused(bad):
    with pytest.raises(SaliencyError, match="expected finite values of shape"):
        upsample(bad, 4)


def square_mask():
    mask = np.zeros((16, 16), np.uint8)
    mask[4:8, 4:8] = 1
    return mask


def test_the_mass_of_a_hand_made_map_is_counted_inside_the_mask():
    values = np.zeros((16, 16))
    values[5, 5], values[12, 12], values[4, 7] = 3, 4, 1
    assert mass_inside(values, square_mask(), dilate=0) == 0.5


def test_widening_the_mask_takes_in_what_lies_that_many_pixels_away():
    values = np.zeros((16, 16))
    values[5, 10] = 1  # three pixels right of the mask
    assert [mass_inside(values, square_mask(), dilate=d) for d in (0, 2, 3, 4)] == [0, 0, 1, 1]


def test_a_uniform_map_has_the_share_of_the_area():
    assert area_share(square_mask(), dilate=0) == 16 / 256
    for dilate in (0, 2, 5):
        got = mass_inside(np.full((4, 4), 0.3), square_mask(), dilate=dilate)
        # float32 interpolation of a constant: rounding only.
        assert got == pytest.approx(area_share(square_mask(), dilate=dilate), rel=1e-6)


def test_the_scale_of_a_map_does_not_change_its_share():
    once = mass_inside(RAMP, square_mask(), dilate=1)
    assert mass_inside(4 * RAMP, square_mask(), dilate=1) == once
    assert 0 < once < 1


def test_shares_that_mean_nothing_are_nan():
    empty = np.zeros((16, 16), np.uint8)
    assert np.isnan(mass_inside(np.zeros((4, 4)), square_mask(), dilate=0))
    assert np.isnan(mass_inside(RAMP, empty, dilate=3))
    assert np.isnan(area_share(empty, dilate=3))
