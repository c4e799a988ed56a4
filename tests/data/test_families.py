import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msa_flax.config import DataConfig
from msa_flax.data import families, inspect
from msa_flax.data.facts import SIZE
from msa_flax.data.families import find_families
from msa_flax.data.folder import list_folder

CENTRE = (SIZE - 1) / 2
SOURCE = re.compile(r"^(CSFDV\d+B\d+ \(\d+\))")


def anatomy(seed):
    """What neighbouring slices share: a body, bones in it and their trabeculae; float64."""
    rng = np.random.default_rng([0, seed])
    rows, columns = np.mgrid[:SIZE, :SIZE] - CENTRE

    def ellipse(x, y, width, height, softness):
        return 1 / (
            1 + np.exp((np.hypot((columns - x) / width, (rows - y) / height) - 1) * softness)
        )

    fine = cv2.GaussianBlur(rng.normal(size=(SIZE, SIZE)), (0, 0), 3)
    tissue = 30 + 40 * fine / fine.std() + 70 * ellipse(0, 0, *rng.uniform(76, 95, 2), 40)
    for _ in range(6):
        tissue += rng.uniform(10, 40) * ellipse(*rng.uniform(-45, 45, 2), *rng.uniform(6, 25, 2), 8)
    return tissue


def scan(tissue, seed):
    """A slice: what is there and the noise of the scanner, of 9 grey levels, as in soft tissue."""
    noise = np.random.default_rng([1, seed]).normal(size=(SIZE, SIZE))
    noise = cv2.GaussianBlur(noise, (0, 0), 0.7)
    return np.clip(np.rint(tissue + 9 * noise / noise.std()), 0, 255).astype(np.uint8)


def rotated(image, degrees):
    """Rotates clockwise: OpenCV's angles count the other way."""
    matrix = cv2.getRotationMatrix2D((CENTRE, CENTRE), -degrees, 1)
    return cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)


def sharpened(image):
    return cv2.addWeighted(image, 1.8, cv2.GaussianBlur(image, (0, 0), 1.5), -0.8, 0)


def blurred(image):
    return cv2.GaussianBlur(image, (0, 0), 0.7)


def brighter(image):
    return np.clip(1.2 * image + 12, 0, 255).astype(np.uint8)


def resized(image, side):
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def compressed(image):
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 70])
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


# How a copy is made, by how much it is rotated clockwise and whether it was reflected before that.
COPIES = {
    "rotated by 5": (lambda image: rotated(image, 5), 5, False),
    "rotated by 37.3": (lambda image: rotated(image, 37.3), 37.3, False),
    "rotated by 211.7": (lambda image: rotated(image, 211.7), 211.7, False),
    "rotated by 90, exactly": (lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE), 90, False),
    "rotated by 180, exactly": (lambda image: cv2.rotate(image, cv2.ROTATE_180), 180, False),
    "rotated by 270, exactly": (np.rot90, 270, False),
    "top to bottom": (np.flipud, 0, True),
    "left to right": (np.fliplr, 180, True),
    "transposed": (np.transpose, 90, True),  # top to bottom, then columns become rows
    "reflected and rotated": (lambda image: rotated(np.flipud(image), 77), 77, True),
    "sharpened": (sharpened, 0, False),
    "blurred": (blurred, 0, False),
    "brighter": (brighter, 0, False),
    "darker": (lambda image: (0.6 * image).astype(np.uint8), 0, False),
    "smaller and back": (lambda image: resized(image, 160), 0, False),
    "larger and back": (lambda image: resized(image, 448), 0, False),
    "compressed": (compressed, 0, False),
    "rotated and sharpened": (lambda image: sharpened(rotated(image, 300)), 300, False),
}
TISSUE = anatomy(0)
IMAGE = scan(TISSUE, 0)


@pytest.fixture(scope="module")
def everything():
    """A source, a copy of each kind, and three neighbouring slices; their families."""
    copies = [copy(IMAGE) for copy, *_ in COPIES.values()]
    images = np.stack([IMAGE, *copies, *(scan(TISSUE, i) for i in (1, 2, 3))])
    return images, find_families(images)


def partition(family):
    """Which images are together, whatever the names of their families."""
    return {frozenset(np.flatnonzero(family == name).tolist()) for name in np.unique(family)}


def comparison(found, i, j):
    """Returns the similarity, degrees and reflection of two images that were compared."""
    (row,) = np.flatnonzero((found.pairs == (i, j)).all(axis=1))
    return float(found.similarity[row]), float(found.degrees[row]), bool(found.mirrored[row])


def apart(degrees, others):
    """How far two directions are apart, 0..180 degrees."""
    return abs((degrees - others + 180) % 360 - 180)


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_joined_with_its_source_and_it_is_told_how_it_was_made(everything, kind):
    _, found = everything
    _, degrees, mirrored = COPIES[kind]
    i = 1 + list(COPIES).index(kind)
    similarity, angle, reflected = comparison(found, 0, i)
    assert found.family[i] == 0
    assert similarity >= found.threshold == families.THRESHOLD
    assert apart(angle, degrees) < 1  # the grid's step is 0.35 degrees
    assert reflected == mirrored


def test_neighbouring_slices_are_not_copies(everything):
    _, found = everything
    others = list(range(len(COPIES) + 1, len(COPIES) + 4))
    assert found.family[others].tolist() == others
    between = np.isin(found.pairs, others).any(axis=1)
    # Chance: the largest of 2048 correlations, 0.05 measured. What they share adds little: with the
    # frequencies of the anatomy in the band it is 0.17.
    assert found.similarity[between].max() < 0.1


def test_equal_images_are_compared_once_and_all_joined(everything):
    images, found = everything
    twice = find_families(np.concatenate([images, images]))
    assert twice.family.tolist() == 2 * found.family.tolist()
    made, number = len(found.pairs), len(images)
    np.testing.assert_array_equal(twice.pairs[:made], found.pairs)
    repeats = [[i, i + number] for i in range(number)]
    assert twice.pairs[made:].tolist() == repeats
    assert (twice.similarity[made:] == 1).all()
    assert not twice.degrees[made:].any()
    assert not twice.mirrored[made:].any()


def test_of_a_pair_the_second_comes_later_and_no_pair_twice(everything):
    images, found = everything
    assert (found.pairs[:, 0] < found.pairs[:, 1]).all()
    assert len(np.unique(found.pairs, axis=0)) == len(found.pairs)
    # 22 others are fewer than the candidates, so every pair was compared.
    assert len(found.pairs) == len(images) * (len(images) - 1) / 2
    assert np.abs(found.similarity).max() < 1 + 1e-3  # float32 sums of 24,576 terms
    assert ((found.degrees >= 0) & (found.degrees < 360)).all()
    dtypes = [getattr(found, name).dtype for name in ("similarity", "degrees", "mirrored")]
    assert dtypes == [np.float32, np.float32, np.bool_]


@given(
    degrees=st.floats(0, 360, exclude_max=True, width=32),
    mirrored=st.booleans(),
    finish=st.sampled_from([np.asarray, sharpened, blurred, brighter]),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_any_rotation_reflection_and_finish_is_found_and_no_neighbour(
    degrees, mirrored, finish, seed
):
    tissue = anatomy(seed)
    image = scan(tissue, seed)
    copy = finish(rotated(np.flipud(image) if mirrored else image, degrees))
    found = find_families(np.stack([image, scan(tissue, seed + 1000), copy]))
    assert partition(found.family) == {frozenset({0, 2}), frozenset({1})}
    _, angle, reflected = comparison(found, 0, 2)
    assert apart(angle, degrees) < 1
    assert reflected == mirrored


def many_sources():
    """Eight neighbouring slices of two anatomies, with four copies each: 40 images."""
    copies = [copy for copy, *_ in COPIES.values()]
    images, source = [], []
    for i in range(8):
        image = scan(anatomy(i % 2), 50 + i)
        images += [image, *(copies[(i + 5 * k) % len(copies)](image) for k in range(4))]
        source += [i] * 5
    return np.stack(images), np.array(source)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_images_does_not_matter(seed, monkeypatch):
    monkeypatch.setattr(families, "CANDIDATES", 6)  # of 39: these are the right ones
    images, source = many_sources()
    order = np.random.default_rng(seed).permutation(len(images))
    found = find_families(images[order])
    assert partition(found.family) == partition(source[order])
    for name in np.unique(found.family):
        assert name == np.flatnonzero(found.family == name)[0]


def test_exchanging_two_images_reverses_the_rotation_but_not_that_of_a_reflection():
    for mirrored in (False, True):
        copy = rotated(np.flipud(IMAGE) if mirrored else IMAGE, 70)
        there, back = (find_families(np.stack(pair)) for pair in ((IMAGE, copy), (copy, IMAGE)))
        assert apart(there.degrees[0], 70) < 1
        assert apart(back.degrees[0], 70 if mirrored else -70) < 1
        assert there.mirrored[0] == back.mirrored[0] == mirrored


def test_one_candidate_is_enough_and_may_be_an_earlier_or_a_later_image(monkeypatch):
    monkeypatch.setattr(families, "CANDIDATES", 1)
    # The third image is not the likeliest of any, but the first is the third's.
    sources = [scan(TISSUE, i) for i in range(10)]
    copies = [[image, np.flipud(image), blurred(rotated(image, 45))] for image in sources]
    found = find_families(np.concatenate(copies))
    assert found.family.tolist() == [i - i % 3 for i in range(30)]


def test_many_equal_images_do_not_hide_other_copies():
    # 30 equal images are one another's likeliest candidates, more of them than are compared.
    copy = rotated(IMAGE, 30)
    found = find_families(np.stack([IMAGE] * 30 + [copy] * 30 + [scan(TISSUE, 1)] * 2))
    assert found.family.tolist() == [0] * 60 + [60] * 2


@pytest.mark.parametrize("number", [0, 1, 2])
def test_few_images(number):
    images = np.stack([scan(TISSUE, i) for i in range(3)])[:number]
    calls = []
    found = find_families(images, progress=lambda *call: calls.append(call))
    assert found.family.tolist() == list(range(number))
    assert found.pairs.tolist() == ([[0, 1]] if number == 2 else [])
    expected = [
        (what, i, number) for what in ("described", "compared") for i in range(1, number + 1)
    ]
    assert calls == expected


def test_flat_images_are_joined_if_they_are_equal_and_with_nothing_else():
    levels = [0, 255, 0, 7, 7, 8]
    flat = [np.full((SIZE, SIZE), level, np.uint8) for level in levels]
    nearly = np.full((SIZE, SIZE), 8, np.uint8)
    nearly[::40, ::40] = 9
    darker = nearly - 4  # the same dots, which are too few and too weak to tell a source
    framed = np.zeros((SIZE, SIZE), np.uint8)
    framed[:5] = 200  # outside of what is compared
    found = find_families(np.stack([*flat, nearly, darker, framed, IMAGE, rotated(IMAGE, 20)]))
    assert found.family.tolist() == [0, 1, 0, 3, 3, 5, 6, 7, 8, 9, 9]
    assert np.isfinite(found.similarity).all()


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, SIZE, SIZE), np.float32),
        np.zeros((2, SIZE, SIZE), np.int64),
        np.zeros((2, SIZE, SIZE - 1), np.uint8),
        np.zeros((2, SIZE - 1, SIZE), np.uint8),
        np.zeros((SIZE, SIZE), np.uint8),
        np.zeros((2, SIZE, SIZE, 1), np.uint8),
    ],
    ids=lambda images: f"{images.dtype}{images.shape}",
)
def test_images_of_another_type_or_shape_are_refused(images):
    with pytest.raises(ValueError, match=r"expected uint8 \[n, 224, 224\], got") as caught:
        find_families(images)
    assert str(images.dtype) in str(caught.value)
    assert str(images.shape) in str(caught.value)


# Mutations: what must not hold if a part of the method is taken away.


def test_above_a_similarity_of_one_nothing_but_equal_images_is_joined(everything):
    images, found = everything
    changed = find_families(np.concatenate([images, images[3:4]]), threshold=1.01)
    assert changed.family.tolist() == [*range(len(images)), 3]
    assert changed.threshold == 1.01
    np.testing.assert_array_equal(changed.similarity[:-1], found.similarity)


def test_without_whitening_neighbouring_slices_look_like_copies(everything, monkeypatch):
    images, found = everything
    others = slice(len(COPIES) + 1, None)
    monkeypatch.setattr(families, "_whitened", lambda image: image.astype(np.float32))
    changed = find_families(images)
    assert partition(changed.family) != partition(found.family)
    assert (changed.family[others] == 0).all()


def test_without_equal_frequencies_a_sharp_and_a_blurred_copy_are_not_alike(monkeypatch):
    kernel = np.array([[-1, -1, -1], [-1, 9, -1], [-1, -1, -1]], np.float32)
    pair = np.stack([cv2.filter2D(IMAGE, -1, kernel), cv2.GaussianBlur(IMAGE, (0, 0), 1)])
    assert find_families(pair).family.tolist() == [0, 0]
    monkeypatch.setattr(families._GRID, "in_ring", np.full(families._GRID.in_ring.shape, np.inf))
    assert find_families(pair).family.tolist() == [0, 1]


def test_without_the_polar_grid_no_rotation_is_found(everything, monkeypatch):
    images, found = everything
    side = np.linspace(20, 200, families._ANGLES), np.linspace(20, 200, families._RADII)
    y, x = (axis.astype(np.float32) for axis in np.meshgrid(*side, indexing="ij"))
    monkeypatch.setattr(families._GRID, "x", x)
    monkeypatch.setattr(families._GRID, "y", y)
    changed = find_families(images)
    for i, (kind, (_, degrees, mirrored)) in enumerate(COPIES.items(), 1):
        moved = degrees > 0 or mirrored
        assert (changed.family[i] == 0) != (moved and kind != "top to bottom"), kind
    assert partition(changed.family) != partition(found.family)


@pytest.mark.realdata
def test_the_public_data_set_has_the_families_that_its_file_names_tell(realdata):
    options = DataConfig(family_pattern="", group_pattern="")
    listing = list_folder(realdata / "data/spine-fracture-ct", options, layout="any")
    examples = inspect(listing)
    names = [name.rpartition("/")[2] for name in examples.example_id.tolist()]
    _, source = np.unique([SOURCE.match(name)[1] for name in names], return_inverse=True)
    family = find_families(examples.images).family
    assert len(family) == 4200
    both, number = np.unique(np.stack([source, family]), axis=1, return_counts=True)
    largest = np.array([number[both[0] == one].max() for one in range(source.max() + 1)])
    shared = [name for name in np.unique(family) if (both[1] == name).sum() > 1]
    # All and none were measured: the pixels tell the 199 sources as the names do.
    assert largest.sum() / len(family) >= 0.95
    assert np.isin(family, shared).mean() < 0.01
