import numpy as np
import pytest
from scipy import ndimage, stats

from msa_flax.data import DataError
from msa_flax.data.augment import (
    FLIP_PROBABILITY,
    MAX_DEGREES,
    SCALES,
    Transform,
    augment_batch,
    draw_transform,
    warp,
)

SIZES = [(48, 48), (49, 49), (40, 63), (1, 1)]


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(h=64, w=80):
    y, x = np.mgrid[:h, :w]
    return (128 + 60 * np.sin(x / 9) + 50 * np.cos(y / 7)).astype(np.uint8)


def sampled(image, transform, *, centre=None):
    """The same by homogeneous matrices and SciPy; also True where only the image was sampled."""
    h, w = image.shape
    cx, cy = ((w - 1) / 2, (h - 1) / 2) if centre is None else centre
    angle = np.deg2rad(transform.degrees)
    turn = [[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    there, back = (np.array([[1, 0, s * cx], [0, 1, s * cy], [0, 0, 1]]) for s in (1, -1))
    flip = np.diag([-1.0 if transform.flip else 1.0, 1, 1])
    zoom = np.diag([transform.scale, transform.scale, 1])
    forward = there @ zoom @ np.array(turn) @ flip @ back  # y points down
    y, x = np.mgrid[:h, :w]
    source = np.linalg.inv(forward) @ np.stack([x.ravel(), y.ravel(), np.ones(h * w)])
    places = source[1].reshape(h, w), source[0].reshape(h, w)
    values = ndimage.map_coordinates(image.astype(float), places, order=1, mode="grid-constant")
    inside = (places[0] >= 0) & (places[0] <= h - 1) & (places[1] >= 0) & (places[1] <= w - 1)
    return values, inside


TRANSFORMS = [
    Transform(degrees=13.7),
    Transform(degrees=-8.1, flip=True),
    Transform(scale=0.9),
    Transform(scale=1.1, flip=True),
    Transform(flip=True, degrees=15.0, scale=0.93),
]


@pytest.mark.parametrize("shape", SIZES)
def test_no_transform_is_exactly_the_image_and_a_flip_exactly_its_mirror(shape):
    image = noise(shape)
    assert np.array_equal(warp(image, Transform()), image)
    assert np.array_equal(warp(image, Transform(flip=True)), image[:, ::-1])


@pytest.mark.parametrize("side", [48, 49])
def test_a_quarter_turn_is_counter_clockwise_about_the_centre_of_the_pixels(side):
    image = noise((side, side))
    assert np.array_equal(warp(image, Transform(degrees=90.0)), np.rot90(image))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_transform_is_what_homogeneous_matrices_and_scipy_make_of_it(transform):
    image = smooth()
    values, inside = sampled(image, transform)
    # OpenCV may round places to 1/32 pixel: 1/64 of at most 7 grey values a pixel in x and in y,
    # and half a grey value of rounding.
    assert np.abs(warp(image, transform) - values)[inside].max() <= 0.75
    assert inside.mean() > 0.7


def test_a_centre_half_a_pixel_off_would_be_seen():
    image, transform = smooth(), Transform(flip=True, degrees=5.0)
    values, inside = sampled(image, transform, centre=(image.shape[1] / 2, image.shape[0] / 2))
    assert np.abs(warp(image, transform) - values)[inside].max() > 3


def test_what_comes_from_outside_the_image_is_black():
    white = np.full((64, 64), 255, np.uint8)
    turned = warp(white, Transform(degrees=15.0))
    assert turned[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0] * 4
    shrunk = warp(white, Transform(scale=0.9))
    # 64 * 0.05 = 3.2 pixels a side are empty
    assert shrunk[:3].max() == shrunk[-3:].max() == shrunk[:, :3].max() == 0
    assert shrunk[4:-4, 4:-4].min() == 255
    assert warp(white, Transform(scale=1.1)).min() == 255


def test_draws_are_uniform_in_their_ranges_and_independent():
    drawn = [draw_transform((7, 0, row)) for row in range(3000)]
    flip, degrees, scale = (np.array(values, float) for values in zip(*drawn, strict=True))
    # Fixed seeds: these p-values and frequencies are always the same ones.
    assert stats.kstest(degrees, stats.uniform(-MAX_DEGREES, 2 * MAX_DEGREES).cdf).pvalue > 0.01
    low, high = SCALES
    assert stats.kstest(scale, stats.uniform(low, high - low).cdf).pvalue > 0.01
    # Four standard deviations of a frequency of 3000: 4 * 0.5 / sqrt(3000) = 0.037.
    assert abs(flip.mean() - FLIP_PROBABILITY) < 0.037
    correlation = np.corrcoef([flip, degrees, scale])
    assert np.abs(correlation - np.eye(3)).max() < 4 / np.sqrt(3000)


def test_every_part_of_the_seed_matters_even_a_zero_at_its_end():
    seeds = [(1,), (1, 0), (1, 0, 0), (0, 1), (1, 1), (2, 0), (2**32 - 1, 0, 5)]
    assert len({draw_transform(seed) for seed in seeds}) == len(seeds)
    assert (
        draw_transform((3, 4, 5))
        == draw_transform([3, 4, 5])
        == draw_transform(np.array([3, 4, 5]))
    )


def test_the_draws_of_row_zero_are_not_those_of_the_order():
    order = np.random.default_rng([5, 2])  # the stream of pipeline's order in epoch 2
    order.random()
    assert order.uniform(-MAX_DEGREES, MAX_DEGREES) != draw_transform((5, 2, 0)).degrees


def test_warping_leaves_its_image_alone():
    image = smooth()
    before = image.copy()
    one, again = (warp(image, draw_transform((1, 2, 3))) for _ in range(2))
    assert np.array_equal(one, again)
    assert np.array_equal(image, before)
    assert (one.dtype, one.shape) == (np.uint8, image.shape)
    assert not np.array_equal(one, warp(image, draw_transform((1, 2, 4))))


def test_a_batch_is_augmented_by_rows_wherever_they_stand():
    images = noise((10, 24, 24))
    rows = np.array([[4, 9, 4], [0, 1, 9]])
    found = augment_batch(images[rows], rows, seed=5, epoch=3)
    assert found.shape == (2, 3, 24, 24)
    assert found.dtype == np.uint8
    for place in np.ndindex(rows.shape):
        row = int(rows[place])
        assert np.array_equal(found[place], warp(images[row], draw_transform((5, 3, row))))
    assert np.array_equal(found[0, 0], found[0, 2])


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((4, 4)), r"float64 \[4, 4\]"),
        (np.zeros((4, 4, 3), np.uint8), r"uint8 \[4, 4, 3\]"),
        (np.zeros(4, np.uint8), r"uint8 \[4\]"),
    ],
)
def test_arrays_that_are_not_grey_images_are_refused(image, got):
    with pytest.raises(DataError, match=rf"expected an image of uint8 \[h, w\], got {got}"):
        warp(image, Transform())
