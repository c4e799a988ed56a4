"""Grey values are equalised, then resized; lines in masks survive resizing."""

import cv2
import numpy as np
import pytest

from msa_flax import config_checks
from msa_flax.data.images import (
    CLIP_LIMIT,
    TILES,
    ImageError,
    equalize_image,
    preprocess,
    resize_mask,
)

EQUALIZE = config_checks.CHOICES["data.equalize"]


def picture(h=48, w=64):
    y, x = np.mgrid[:h, :w]
    smooth = 128 + 60 * np.sin(x / 9) + 50 * np.cos(y / 7)
    return smooth.astype(np.uint8)  # smooth, so that JPEG keeps it


def neck(h=70, w=90):
    """A bright, noisy disc in much air, as in a CT slice: the lowest value is the commonest."""
    y, x = np.mgrid[:h, :w]
    inside = (x - w / 2) ** 2 + (y - h / 2) ** 2 < (h / 3) ** 2
    values = np.random.default_rng(0).normal(110, 25, (h, w))
    return np.where(inside, np.clip(values, 1, 255), 0).astype(np.uint8)


def ranks(image):
    """How many pixels are as bright or darker, for every pixel: equalisation without histograms."""
    return np.searchsorted(np.sort(image.ravel()), image, side="right")


@pytest.mark.parametrize("image", [neck(), picture(), picture(33, 47)])
def test_histogram_equalisation_ranks_pixels_above_the_lowest_value(image):
    lowest = np.sum(image == image.min())
    expected = np.rint(255 * (ranks(image) - lowest) / (image.size - lowest))
    found = equalize_image(image, "histogram")
    # OpenCV multiplies in float32, which may round an exact half the other way.
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.02
    assert (found.min(), found.max()) == (0, 255)


def test_the_other_usual_formula_of_equalisation_would_be_seen():
    image = neck()
    naive = np.rint(255 * ranks(image) / image.size)  # air would become grey
    assert np.abs(equalize_image(image, "histogram") - naive).max() > 100


def test_images_that_differ_in_brightness_and_contrast_only_come_out_equal():
    image = picture() // 2
    assert np.array_equal(
        equalize_image(image, "histogram"), equalize_image(2 * image, "histogram")
    )
    assert np.array_equal(
        equalize_image(image, "histogram"), equalize_image(image + 90, "histogram")
    )


def test_equalising_keeps_the_order_of_grey_values_and_is_done_once():
    once = equalize_image(neck(), "histogram")
    mapping = {int(a): int(b) for a, b in zip(neck().ravel(), once.ravel(), strict=True)}
    mapped = [mapping[value] for value in sorted(mapping)]
    assert mapped == sorted(mapped)
    twice = equalize_image(once, "histogram")
    # Grey values that once were merged by rounding now share a rank: one grey value, and rounding.
    assert np.abs(twice.astype(int) - once).max() <= 2


@pytest.mark.parametrize("value", [0, 7, 255])
def test_an_image_of_one_value_is_equalised_without_error(value):
    image = np.full((40, 56), value, np.uint8)
    assert np.array_equal(equalize_image(image, "histogram"), image)
    assert len(np.unique(equalize_image(image, "clahe"))) == 1


def test_clahe_with_one_tile_and_no_limit_ranks_all_pixels(monkeypatch):
    monkeypatch.setattr("msa_flax.data.images.TILES", (1, 1))
    monkeypatch.setattr("msa_flax.data.images.CLIP_LIMIT", 0.0)  # OpenCV: none
    image = neck()
    expected = np.rint(255 * ranks(image) / image.size)
    assert np.abs(equalize_image(image, "clahe") - expected).max() <= 1  # float32, as above


def test_clahe_is_local_and_its_limit_and_tiles_are_the_stated_ones():
    assert (CLIP_LIMIT, TILES) == (2.0, (8, 8))
    left, right = picture(64, 128) // 8, 128 + picture(64, 128) // 8  # of little contrast
    image = np.hstack([left, right])
    found = equalize_image(image, "clahe")
    assert np.array_equal(found, cv2.createCLAHE(2.0, (8, 8)).apply(image))
    for part in (np.s_[:, :112], np.s_[:, 144:]):  # away from the seam
        assert found[part].std() > 1.2 * image[part].std()
    assert not np.array_equal(found, equalize_image(image, "histogram"))


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (33, 47), (64, 64)])
@pytest.mark.parametrize("equalize", EQUALIZE)
def test_an_image_of_any_size_keeps_it_and_its_pixels_are_left_alone(shape, equalize):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before = image.copy()
    assert equalize_image(image, equalize).shape == shape
    assert preprocess(image, size=40, equalize=equalize).shape == (40, 40)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("equalize", ["histogram", "clahe"])
@pytest.mark.parametrize("shape", [(70, 90), (70, 90, 1), (70, 90, 3)])
def test_grey_values_are_equalised_first_and_then_resized(equalize, shape):
    image = np.broadcast_to(neck()[..., None], (70, 90, 3))[..., : (*shape, 1)[2]]
    image = np.ascontiguousarray(image).reshape(shape)
    expected = cv2.resize(equalize_image(neck(), equalize), (40, 40))
    found = preprocess(image, size=40, equalize=equalize)
    assert np.array_equal(found, expected)
    other_way_round = equalize_image(cv2.resize(neck(), (40, 40)), equalize)
    assert not np.array_equal(found, other_way_round)


def test_no_equalisation_is_the_default_and_changes_nothing():
    assert np.array_equal(preprocess(neck(), size=40), cv2.resize(neck(), (40, 40)))
    assert np.array_equal(preprocess(neck(), size=40), preprocess(neck(), size=40, equalize="none"))


def test_an_unknown_equalisation_is_refused_and_the_configuration_offers_what_there_is():
    with pytest.raises(
        ImageError, match="equalize: expected one of none, histogram, clahe; got 'x"
    ):
        preprocess(neck(), size=40, equalize="x")
    assert ", ".join(EQUALIZE) == "none, histogram, clahe"


def test_halving_averages_four_pixels():
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    means = image.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    # Bilinear sampling at the centre of each block is its mean; half a grey value is rounding.
    assert np.abs(preprocess(image, size=32) - means).max() <= 0.5
    assert np.abs(image[::2, ::2] - means).max() > 50  # nearest-neighbour would be seen


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1), (48, 64, 3)])
def test_every_accepted_shape_gives_the_same_square(shape):
    image = np.broadcast_to(picture()[..., None], (48, 64, 3))[..., : (*shape, 1)[2]]
    resized = preprocess(np.ascontiguousarray(image).reshape(shape), size=40)
    assert resized.dtype == np.uint8
    assert np.array_equal(resized, cv2.resize(picture(), (40, 40)))


def test_an_image_of_the_right_size_is_unchanged():
    image = picture(48, 48)
    assert np.array_equal(preprocess(image, size=48), image)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((64, 64), np.uint16), "expected uint8 pixels, got uint16"),
        (np.zeros((64, 64)), "expected uint8 pixels, got float64"),
        (np.zeros(64, np.uint8), r"got \(64,\)"),
        (np.zeros((64, 64, 4), np.uint8), r"got \(64, 64, 4\)"),
        (np.zeros((0, 64), np.uint8), r"got \(0, 64\)"),
    ],
)
def test_arrays_that_are_not_images_are_refused(image, reason):
    with pytest.raises(ImageError, match=reason):
        preprocess(image, size=32)


def test_a_line_one_pixel_wide_survives_shrinking():
    mask = np.zeros((512, 512), np.uint8)
    mask[:, 301] = 1
    small = resize_mask(mask, size=16)
    assert small.dtype == np.uint8
    assert np.array_equal(small.sum(axis=0), 16 * (np.arange(16) == 301 // 32))
    nearest = cv2.resize(mask, (16, 16), interpolation=cv2.INTER_NEAREST)
    assert nearest.sum() == 0  # what the rule is there to prevent


def test_a_mask_is_not_thickened_by_enlarging():
    mask = np.eye(32, dtype=np.uint8) * 255
    source = np.arange(80) * 32 // 80
    assert np.array_equal(resize_mask(mask, size=80), np.eye(32)[np.ix_(source, source)])
