"""Pictures of maps: what the colours stand for."""

import matplotlib as mpl
import numpy as np
import pytest

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.render import attention_image, display, overlay

GREY = np.full((16, 16), 100, np.uint8)
RAMP = np.arange(16, dtype=np.float32).reshape(4, 4)


def test_an_all_zero_map_gives_the_plain_image_whatever_the_maximum():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for maximum in (None, 1.0):
        got = overlay(image, np.zeros((4, 4)), maximum=maximum)
        np.testing.assert_array_equal(got, np.repeat(image[:, :, None], 3, axis=2))


def test_colours_are_matplotlibs_inferno_from_zero_to_the_maximum():
    values = np.linspace(0, 2, 16, dtype=np.float32)
    got = overlay(GREY, np.tile(values, (16, 1)), maximum=2.0, alpha=1.0)
    expected = mpl.colormaps["inferno"](values / 2)[:, :3] * 255
    # Tables rounded to a byte; the libraries may round a value to neighbouring entries.
    np.testing.assert_allclose(got[0], expected, atol=6)


def test_the_image_shows_through_by_one_minus_alpha():
    top = np.array([252, 255, 164])  # the last colour of inferno
    got = overlay(GREY, np.ones((4, 4)), alpha=0.45)
    np.testing.assert_allclose(got[0, 0], 0.55 * 100 + 0.45 * top, atol=1)  # bytes


def test_by_default_a_map_is_scaled_to_its_own_maximum_and_with_a_maximum_it_is_not():
    np.testing.assert_array_equal(overlay(GREY, RAMP), overlay(GREY, 1000 * RAMP))
    assert np.any(overlay(GREY, RAMP, maximum=15.0) != overlay(GREY, 0.1 * RAMP, maximum=15.0))
    np.testing.assert_array_equal(overlay(GREY, RAMP, maximum=15.0), overlay(GREY, RAMP))


def test_the_scale_starts_at_zero_and_not_at_the_maps_minimum():
    flat = overlay(GREY, np.full((4, 4), 3.0))
    np.testing.assert_array_equal(flat, overlay(GREY, np.ones((4, 4)), maximum=1.0))


def test_what_speaks_against_the_target_is_not_coloured():
    signed = np.where(RAMP > 7, RAMP, -RAMP)
    np.testing.assert_array_equal(overlay(GREY, signed), overlay(GREY, np.maximum(signed, 0)))
    plain = np.repeat(GREY[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(overlay(GREY, -RAMP), plain)


def test_a_map_is_displayed_from_zero_to_its_own_top_value_or_the_one_that_is_given():
    values, top = display(RAMP)
    assert top == 15
    np.testing.assert_array_equal(values, RAMP / 15)
    values, top = display(RAMP, maximum=5.0)
    assert top == 5
    assert values.max() == 1
    assert display(np.zeros((4, 4)))[1] == 0


def test_one_pixel_does_not_hide_all_others_of_a_fine_map():
    fine = np.full((64, 64), 1.0)
    fine[3, 3] = 1000
    values, top = display(fine)
    assert top == 1
    assert values.min() == 1
    coarse = fine[:8, :8]  # where a cell is 1.6 % of the map it is no outlier
    assert display(coarse)[1] == 1000


def test_values_above_the_maximum_get_the_last_colour():
    above, at = (overlay(GREY, np.full((4, 4), value), maximum=1.0) for value in (7.0, 1.0))
    np.testing.assert_array_equal(above, at)


def test_an_overlay_is_rgb_of_the_image_size():
    got = overlay(GREY, RAMP)
    assert got.shape == (16, 16, 3)
    assert got.dtype == np.uint8
    last = got[-1, -1].astype(int)
    assert last[0] > last[2]  # inferno ends in yellow: in BGR this would be blue


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"saliency": RAMP * np.nan}, "expected finite values"),
        ({"maximum": 0.0}, "above 0"),
        ({"maximum": float("nan")}, "above 0"),
        ({"image": GREY.astype(float)}, "uint8"),
        ({"image": GREY[None]}, "uint8"),
    ],
)
def test_an_overlay_of_something_else_is_refused(arguments, message):
    arguments = {"image": GREY, "saliency": RAMP} | arguments
    with pytest.raises(SaliencyError, match=message) as caught:
        overlay(arguments.pop("image"), arguments.pop("saliency"), **arguments)
    assert caught.value.exit_code == 2


def test_attention_is_shown_on_zero_to_one_whatever_its_values():
    half, ones = attention_image(np.full((7, 7), 0.5), 14), attention_image(np.ones((7, 7)), 14)
    assert half.shape == (14, 14, 3)
    np.testing.assert_array_equal(ones[0, 0], [252, 255, 164])
    np.testing.assert_allclose(half[0, 0], [188, 55, 84], atol=6)  # inferno's middle, by matplotlib


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_attention_outside_zero_to_one_is_refused(value):
    with pytest.raises(SaliencyError, match=r"expected 0\.\.1"):
        attention_image(np.full((7, 7), value), 14)


def test_an_overlay_has_the_shape_of_its_image():
    assert overlay(GREY[:8], RAMP).shape == (8, GREY.shape[1], 3)
