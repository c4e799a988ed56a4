import cv2
import numpy as np
import pytest
from corruptions import CORRUPTIONS, SEVERITIES, corrupt, describe
from PIL import Image
from scipy import ndimage

from msa_flax.data import DataError
from msa_flax.data.augment import Transform, warp
from msa_flax.data.phantom import draw_slice

NAMES = sorted(CORRUPTIONS)


@pytest.fixture(scope="module")
def images():
    slices = [draw_slice(0, patient, 4).image for patient in range(3)]
    return np.stack([cv2.resize(image, (112, 112)) for image in slices])


def distance(a, b):
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


def test_there_are_five_kinds_of_five_severities_with_units():
    assert set(CORRUPTIONS) == {"noise", "blur", "contrast", "rotation", "jpeg"}
    assert list(SEVERITIES) == [0, 1, 2, 3, 4, 5]
    for chosen in CORRUPTIONS.values():
        assert len(chosen.levels) == len(set(chosen.levels)) == 5
        assert chosen.unit
    assert describe()[0].startswith("noise: 5, 10, 20, 30, 45 (grey values of 255")
    assert len(describe()) == 5


@pytest.mark.parametrize("name", NAMES)
def test_a_higher_severity_is_further_from_every_image(images, name):
    for i, image in enumerate(images):
        found = [corrupt(images, name, severity, seed=1)[i] for severity in SEVERITIES]
        distances = [distance(one, image) for one in found]
        assert distances[0] == 0
        assert distances == sorted(set(distances))


@pytest.mark.parametrize("name", NAMES)
def test_a_corruption_is_a_pure_function_of_its_arguments(images, name):
    before = images.copy()
    for severity in SEVERITIES:
        found = corrupt(images, name, severity, seed=1)
        assert (found.dtype, found.shape) == (np.uint8, images.shape)
        assert np.array_equal(found, corrupt(images, name, severity, seed=1))
        assert np.array_equal(found[:2], corrupt(images[:2], name, severity, seed=1))
        assert not np.shares_memory(found, images)
    assert np.array_equal(images, before)
    assert corrupt(images[:0], name, 3, seed=1).shape == (0, 112, 112)


def test_the_seed_changes_what_is_random_and_nothing_else(images):
    for name in NAMES:
        one, other = (corrupt(np.tile(images, (4, 1, 1)), name, 3, seed=seed) for seed in (1, 2))
        assert np.array_equal(one, other) == (name not in ("noise", "rotation"))


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_noise_has_the_stated_standard_deviation_and_is_new_for_every_image(severity):
    grey = np.full((2, 224, 224), 128, np.uint8)  # no value is cut off at these levels
    added = corrupt(grey, "noise", severity, seed=0).astype(float) - 128
    level = CORRUPTIONS["noise"].levels[severity - 1]
    # The standard error of a deviation is 1 / sqrt(2 * 50176) = 0.3 %; rounding adds under 0.2 %.
    assert added[0].std() == pytest.approx(level, rel=0.015)
    assert abs(added.mean()) < 0.02 * level
    assert abs(np.corrcoef(added[0].ravel(), added[1].ravel())[0, 1]) < 0.02
    lower = corrupt(grey, "noise", 1, seed=0).astype(float) - 128
    # The same noise, stronger; rounding of the weaker one is what keeps them from being parallel.
    assert np.corrcoef(added[0].ravel(), lower[0].ravel())[0, 1] > 0.99


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("side", [112, 224])
def test_blur_is_a_gaussian_whose_width_grows_with_the_image(images, severity, side):
    image = cv2.resize(images[0], (side, side))
    sigma = CORRUPTIONS["blur"].levels[severity - 1] * side / 224
    radius = (round(6 * sigma + 1) | 1) // 2  # OpenCV's, for 8 bits
    expected = ndimage.gaussian_filter(image.astype(float), sigma, mode="mirror", radius=radius)
    found = corrupt(image[None], "blur", severity, seed=0)[0]
    # OpenCV's weights are multiples of 1/256 and so may be off by 1/512 each; half a grey value
    # of rounding.
    assert np.abs(found - expected).max() <= 3
    assert np.abs(found - expected).mean() <= 0.5


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_contrast_shrinks_about_the_mean_of_each_image(images, severity):
    level = CORRUPTIONS["contrast"].levels[severity - 1]
    for image, found in zip(images, corrupt(images, "contrast", severity, seed=0), strict=True):
        assert np.abs(found - (image.mean() + level * (image - image.mean()))).max() <= 0.5
        assert found.std() == pytest.approx(level * image.std(), rel=0.02)  # rounding


def test_rotation_turns_each_image_one_way_and_further_with_severity(images):
    many, senses = np.tile(images, (8, 1, 1)), []
    for severity in (1, 5):
        level = CORRUPTIONS["rotation"].levels[severity - 1]
        found = corrupt(many, "rotation", severity, seed=3)
        sense = []
        for image, turned in zip(many, found, strict=True):
            both = [
                np.array_equal(turned, warp(image, Transform(degrees=s * level))) for s in (1, -1)
            ]
            assert sum(both) == 1
            sense.append(both[0])
        senses.append(sense)
    assert senses[0] == senses[1]
    assert 0 < sum(senses[0]) < len(many)


@pytest.mark.parametrize("severity", [1, 5])
def test_jpeg_is_what_another_encoder_makes_of_the_same_quality(images, severity, tmp_path):
    quality = int(CORRUPTIONS["jpeg"].levels[severity - 1])
    Image.fromarray(images[0]).save(tmp_path / "a.jpg", quality=quality)
    other = np.asarray(Image.open(tmp_path / "a.jpg"))
    found = corrupt(images, "jpeg", severity, seed=0)[0]
    # Both round the inverse transform; a coefficient on the edge of a bin may be rounded otherwise.
    assert np.abs(found.astype(float) - other).mean() < 0.1
    assert np.abs(found.astype(float) - images[0]).mean() > 0.5


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [
        ("fog", 1, "corruption: expected one of noise, blur, contrast, rotation, jpeg; got 'fog'"),
        ("noise", 6, "severity: expected a whole number from 0 to 5, got 6"),
        ("noise", -1, "severity: expected a whole number from 0 to 5, got -1"),
        ("noise", 2.5, "severity: expected a whole number from 0 to 5, got 2.5"),
    ],
)
def test_unknown_names_and_severities_are_refused_in_a_sentence(images, name, severity, message):
    with pytest.raises(DataError) as caught:
        corrupt(images, name, severity, seed=0)
    assert str(caught.value) == message


@pytest.mark.parametrize("wrong", [np.zeros((2, 4, 4)), np.zeros((4, 4), np.uint8)])
def test_arrays_that_are_not_a_stack_of_images_are_refused(wrong):
    with pytest.raises(DataError, match=r"images: expected uint8 \[n, h, w\], got "):
        corrupt(wrong, "noise", 1, seed=0)
