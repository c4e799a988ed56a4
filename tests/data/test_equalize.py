"""Equalisation: what it computes, that it comes before resizing, and that no path leaves it out."""

import cv2
import numpy as np
import pytest

from msa_flax import config, data
from msa_flax.data import phantom
from msa_flax.data import preprocess as pp
from msa_flax.data.preprocess import (
    EQUALIZERS,
    ImageError,
    equalize_image,
    preprocess,
    read_image,
)


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
    monkeypatch.setattr(pp, "TILES", (1, 1))
    monkeypatch.setattr(pp, "CLIP_LIMIT", 0.0)  # OpenCV: none
    image = neck()
    expected = np.rint(255 * ranks(image) / image.size)
    assert np.abs(equalize_image(image, "clahe") - expected).max() <= 1  # float32, as above


def test_clahe_is_local_and_its_limit_and_tiles_are_the_stated_ones():
    assert (pp.CLIP_LIMIT, pp.TILES) == (2.0, (8, 8))
    left, right = picture(64, 128) // 8, 128 + picture(64, 128) // 8  # of little contrast
    image = np.hstack([left, right])
    found = equalize_image(image, "clahe")
    assert np.array_equal(found, cv2.createCLAHE(2.0, (8, 8)).apply(image))
    for part in (np.s_[:, :112], np.s_[:, 144:]):  # away from the seam
        assert found[part].std() > 1.2 * image[part].std()
    assert not np.array_equal(found, equalize_image(image, "histogram"))


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (33, 47), (64, 64)])
@pytest.mark.parametrize("equalize", sorted(EQUALIZERS))
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
    for equalize in EQUALIZERS:
        config.Config(data=config.DataConfig(root="somewhere", equalize=equalize)).validate()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    for i, part in enumerate(("train", "val")):
        for k, name in enumerate(("normal", "fracture")):
            path = tmp_path / "set" / part / name
            path.mkdir(parents=True)
            cv2.imwrite(str(path / "a.png"), neck(60 + 4 * i, 70 + 4 * k))
    return tmp_path / "set"


def test_every_door_to_a_folder_equalises_and_one_prepared_copy_serves_all(folder, tmp_path):
    found = {}
    for equalize in [*EQUALIZERS, "none"]:  # again, after the others
        options = config.DataConfig(root=str(folder), image_size=32, equalize=equalize)
        examples = data.load(options)
        expected = [
            preprocess(read_image(folder / name), size=32, equalize=equalize)
            for name in examples.example_id
        ]
        assert np.array_equal(examples.images, expected)
        assert np.array_equal(data.load_external(folder, options).images, expected)
        found[equalize] = examples.fingerprint
    assert len(set(found.values())) == 3
    copies = [path for path in (tmp_path / "cache/datasets/folder").iterdir() if path.is_dir()]
    assert len(copies) == 1  # it holds the pixels of the files


def test_the_phantom_is_equalised_and_its_masks_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path))
    plain, equalised = (
        data.load(
            config.DataConfig(
                source="phantom", phantom_patients=10, image_size=32, equalize=equalize
            )
        )
        for equalize in ("none", "histogram")
    )
    drawn = phantom.draw_slice(0, 0, 3).image
    row = equalised.example_id.tolist().index("phantom/P0000/03")
    expected = preprocess(drawn, size=32, equalize="histogram")
    assert np.array_equal(equalised.images[row], expected)
    assert not np.array_equal(plain.images[row], expected)
    assert np.array_equal(plain.masks, equalised.masks)
