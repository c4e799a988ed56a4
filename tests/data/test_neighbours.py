"""Series whose slices share noise with the next one: they are not copies, and copies stay found."""

import cv2
import numpy as np
import pytest

from msa_flax.data.facts import SIZE
from msa_flax.data.families import find_families
from msa_flax.data.neighbours import differ


def series(number, *, width=1.1, grows=1.0, seed=0):
    """Slices whose noise is a mean over ``width`` slices; the body and a bone change on the way."""
    rng = np.random.default_rng(seed)
    reach = np.arange(-6, 7)
    weights = np.exp(-0.5 * (reach / width) ** 2)
    weights /= np.linalg.norm(weights)
    noise = rng.normal(size=(number + 12, SIZE, SIZE)).astype(np.float32)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    images = []
    for k in range(number):
        body = 110.0 * ((x / (70 + grows * k)) ** 2 + (y / (90 - grows * k)) ** 2 < 1)
        bone = 60.0 * (((x + 28 - 2 * grows * k) / 14) ** 2 + ((y - 20) / 20) ** 2 < 1)
        tissue = cv2.GaussianBlur(body + bone, (0, 0), 1.5) + 30
        shared = np.tensordot(weights, noise[k : k + 13], 1)
        images.append(np.clip(tissue + 9 * shared, 0, 255).astype(np.uint8))
    return np.stack(images)


def noisy(image, sigma):
    noise = np.random.default_rng(9).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("width", "grows"), [(1.1, 1.0), (2.5, 0.25)])
def test_slices_that_share_noise_with_the_next_are_not_copies_and_it_is_said(width, grows):
    found = find_families(series(10, width=width, grows=grows))
    assert found.family.tolist() == list(range(10))
    neighbours = {(k, k + 1) for k in range(9)}
    assert neighbours <= {tuple(pair) for pair in found.unclear.tolist()}


def test_without_the_test_they_would_be_one_family(monkeypatch):
    nothing = lambda images, links, *_: np.zeros(len(links), np.bool_)  # noqa: E731
    monkeypatch.setattr("msa_flax.data.families.doubtful", nothing)
    assert not find_families(series(4)).family.any()


def test_the_noise_alone_tells_where_nothing_changes_along_the_series():
    # No anatomy differs; similarity falls with the distance all the same.
    found = find_families(series(8, width=1.1, grows=0.0))
    assert found.family.tolist() == list(range(8))


def test_copies_of_such_slices_are_joined_with_their_own_slice():
    images = series(9)
    copies = [np.rot90(images[2]), np.flipud(images[5]), noisy(images[7], 3)]
    found = find_families(np.concatenate([images, np.stack(copies)]))
    assert found.family.tolist() == [*range(9), 2, 5, 7]


def test_two_neighbours_alone_are_told_by_their_anatomy():
    for k in (0, 3):
        pair = series(5)[k : k + 2]
        found = find_families(pair)
        assert found.family.tolist() == [0, 1]
        assert found.unclear.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    "change",
    [
        lambda image: noisy(image, 4),
        lambda image: cv2.GaussianBlur(image, (0, 0), 1.0),
        cv2.equalizeHist,
        lambda image: np.clip(1.4 * image + 12, 0, 255).astype(np.uint8),
        lambda image: cv2.imdecode(cv2.imencode(".jpg", image)[1], cv2.IMREAD_GRAYSCALE),
    ],
    ids=["noise", "blur", "equalized", "brighter and clipped", "jpeg"],
)
def test_a_copy_does_not_differ_in_anatomy_and_is_found(change):
    image = series(1, seed=3)[0]
    copy = change(image)
    assert not differ(image, copy)
    assert find_families(np.stack([image, copy])).family.tolist() == [0, 0]
