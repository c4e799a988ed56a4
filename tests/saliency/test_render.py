import os
import pathlib
import re

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from msa_flax.saliency import render
from msa_flax.saliency.render import (
    SaliencyError,
    area_share,
    attention_image,
    display,
    mass_inside,
    overlay,
    safe_stem,
    upsample,
    write_explanation,
)

GREY = np.full((16, 16), 100, np.uint8)
RAMP = np.arange(16, dtype=np.float32).reshape(4, 4)
HOSTILE = [
    "../../x",
    "/etc/passwd",
    "a\0b",
    "x" * 300,
    "",
    ".",
    "..",
    "C:\\x",
    "a/../b",
    "-rf",
    "~",
]


def test_upsampling_is_bilinear_with_pixel_centres_aligned():
    got = upsample(np.array([[0.0, 1.0], [2.0, 3.0]]), 4)
    steps = np.array([0, 0.25, 0.75, 1])
    np.testing.assert_array_equal(got, steps[None, :] + 2 * steps[:, None])  # exact in binary
    assert got.dtype == np.float32


@pytest.mark.parametrize("bad", [np.zeros((2, 2, 1)), np.array([[np.nan]]), np.array([[np.inf]])])
def test_what_is_no_finite_map_is_refused(bad):
    with pytest.raises(SaliencyError, match="expected finite values of shape"):
        upsample(bad, 4)


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
        ({"image": GREY[:8]}, "uint8"),
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


ids = st.text(max_size=400) | st.sampled_from(HOSTILE)


@settings(max_examples=100, deadline=None)
@given(example_id=ids)
@example("../../x")
@example("a\0b")
@example("/" + "x" * 300)
def test_a_stem_is_a_short_plain_name_that_stays_in_its_folder(example_id):
    stem = safe_stem(example_id)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", stem)
    assert len(stem) <= 81
    path = pathlib.Path("/out") / f"{stem}.png"
    assert path.parent == pathlib.Path("/out") == pathlib.Path(os.path.normpath(path)).parent


@settings(max_examples=100, deadline=None)
@given(a=ids, b=ids)
@example("a/b", "a-b")
@example("A", "a")
@example("x" * 300, "x" * 301)
@example("../x", "x")
def test_different_ids_get_different_stems_even_where_case_is_ignored(a, b):
    assert (safe_stem(a).lower() == safe_stem(b).lower()) == (a == b)


def test_a_stem_starts_with_what_a_person_can_read_and_is_the_same_everywhere():
    stem = safe_stem("val/fracture/CSFDV1B10 (18)-rotated1.png")
    assert stem.startswith("val-fracture-CSFDV1B10-18-rotated1-png-")
    assert safe_stem("a").endswith("-ca978112ca1bbdca")  # SHA-256 of "a", a published test vector


def test_ids_that_are_not_valid_text_have_a_stem_too():
    assert safe_stem("caf\udce9") != safe_stem("caf\udce8")


SIGNED = RAMP - 8  # what speaks for the target and what speaks against it


def explain(folder, stem="case", **changes):
    arguments = {
        "image": GREY,
        "maps": {
            "gradcam": {"fracture": RAMP, "normal": np.zeros((4, 4), np.float32)},
            "occlusion": {"fracture": SIGNED, "normal": -SIGNED},
        },
        "attention": {k: np.full((4, 4), k / 10, np.float32) for k in (3, 5, 7)},
    }
    return write_explanation(folder, stem, **(arguments | changes))


NAMES = sorted(
    [
        f"case.{method}-{target}.{ending}"
        for method in ("gradcam", "occlusion")
        for target in ("fracture", "normal")
        for ending in ("png", "npy")
    ]
    + [f"case.attention-{k}.{ending}" for k in (3, 5, 7) for ending in ("png", "npy")]
    + ["case.image.png"]
)


def test_an_explanation_is_its_overlays_its_raw_maps_and_its_attention(tmp_path):
    files = explain(tmp_path / "new" / "folder")
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == NAMES
    assert sorted(file.name for file in files) == NAMES
    raw = np.load(tmp_path / "new" / "folder" / "case.gradcam-fracture.npy", allow_pickle=False)
    np.testing.assert_array_equal(raw, RAMP)
    signed = np.load(tmp_path / "new" / "folder" / "case.occlusion-normal.npy", allow_pickle=False)
    np.testing.assert_array_equal(signed, -SIGNED)  # raw, with its sign
    picture = cv2.imread(str(tmp_path / "new" / "folder" / "case.gradcam-fracture.png"))
    np.testing.assert_array_equal(picture[:, :, ::-1], overlay(GREY, RAMP))


def test_the_image_itself_is_written_as_it_is(tmp_path):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    explain(tmp_path, image=image)
    written = cv2.imread(str(tmp_path / "case.image.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written, np.repeat(image[:, :, None], 3, axis=2))


def test_the_same_explanation_has_the_same_bytes(tmp_path):
    for a, b in zip(explain(tmp_path / "a"), explain(tmp_path / "b"), strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_a_network_without_attention_has_no_attention_files(tmp_path):
    explain(tmp_path, attention=None)
    assert sorted(os.listdir(tmp_path)) == [name for name in NAMES if "attention" not in name]


def test_a_map_that_cannot_be_shown_leaves_nothing_behind(tmp_path):
    with pytest.raises(SaliencyError, match=r"expected 0\.\.1"):
        explain(tmp_path / "out", attention={3: np.full((4, 4), 2.0)})
    assert not (tmp_path / "out").exists()


def test_a_failed_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(render.os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        explain(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("example_id", HOSTILE)
def test_a_hostile_id_is_refused_as_a_stem_and_harmless_through_safe_stem(tmp_path, example_id):
    out = tmp_path / "a" / "b" / "out"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", example_id):
        with pytest.raises(SaliencyError, match="safe_stem"):
            explain(out, example_id)
    files = explain(out, safe_stem(example_id))
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(everything) == sorted(files)
    assert {path.parent for path in everything} == {out}
