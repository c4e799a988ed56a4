"""Series like those that the quickstart is trained on."""

import cv2
import numpy as np
import pytest
from phantom_series import Series
from phantom_volume import Settings

from msa_flax.data.phantom import draw_slice

SETTINGS = Settings(seed=3, matrix=128)


@pytest.mark.parametrize("fractured", [False, True])
def test_its_slices_look_like_those_of_the_phantom(fractured):
    series = Series(SETTINGS, 5, fractured=fractured)
    assert len(series) == 8
    assert bool(series.levels) == fractured
    for index in range(8):
        drawn = series.draw(index)
        broken = index in series.levels
        image = draw_slice(3, 5, index, fractured=broken).image
        shown = 255 * ((drawn.hounsfield - 399.5) / 1799 + 0.5)  # by the bone window 400/1800
        same = cv2.resize(image, (128, 128), interpolation=cv2.INTER_LINEAR)
        assert np.abs(shown - same).max() <= 0.1  # half a Hounsfield unit is 0.07 grey values
        assert set(np.unique(drawn.mask)) == ({0, index} if broken else {0})


def test_heights_grow_by_the_same_step_and_stay_inside_the_neck():
    series = Series(SETTINGS, 0, fractured=False)
    heights = [series.height(index) for index in range(8)]
    assert np.ptp(np.diff(heights)) < 1e-9  # rounding
    assert 0 < heights[0] < heights[-1] < 147


def test_a_study_is_the_same_whichever_others_are_drawn():
    levels = [Series(SETTINGS, k, fractured=True).levels for k in range(20)]
    assert levels == [Series(SETTINGS, k, fractured=True).levels for k in range(20)]
    assert {len(one) for one in levels} == {1, 2, 3}
    assert set().union(*levels) == set(range(1, 8))
