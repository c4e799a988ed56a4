"""Copies that are not in place: shifted, zoomed, cropped, padded, inverted; and what is no copy."""

import cv2
import numpy as np
import pytest

from msa_flax.data import moved
from msa_flax.data.facts import comparable
from msa_flax.data.families import find_families
from msa_flax.data.phantom import draw_patient

SLICES = [one.image for one in (*draw_patient(5, 0), *draw_patient(5, 1))]


def shifted(image, x=8, y=5):
    return cv2.warpAffine(image, np.float32([[1, 0, x], [0, 1, y]]), image.shape[::-1])


def turned_about(image, scale=1.0):
    side = len(image)
    matrix = cv2.getRotationMatrix2D((0.4 * side, 0.55 * side), -40, scale)
    return cv2.warpAffine(image, matrix, image.shape[::-1])


KINDS = {
    "shifted": shifted,
    "zoomed": lambda image: cv2.resize(image[10:-10, 10:-10], image.shape[::-1]),
    "cropped": lambda image: image[12:-12, 12:-12],
    "cropped on one side": lambda image: image[:, 25:],
    "padded": lambda image: cv2.copyMakeBorder(image, 20, 20, 20, 20, cv2.BORDER_CONSTANT),
    "padded below": lambda image: cv2.copyMakeBorder(image, 0, 30, 0, 0, cv2.BORDER_CONSTANT),
    "inverted": lambda image: 255 - image,
    "turned elsewhere and smaller": lambda image: turned_about(image, 0.9),
    "mirrored and shifted": lambda image: shifted(np.ascontiguousarray(image[:, ::-1])),
    "inverted and cropped": lambda image: 255 - image[12:-12, 12:-12],
    "inverted, mirrored and shifted": lambda image: (
        255 - shifted(np.ascontiguousarray(image[::-1]))
    ),
}


@pytest.fixture(scope="module")
def found():
    """Every slice of two patients, then one copy of each kind, each of another slice."""
    copies = [change(SLICES[k]) for k, change in enumerate(KINDS.values())]
    return find_families(np.stack([comparable(image) for image in [*SLICES, *copies]]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_moved_copy_is_joined_with_its_source_and_nothing_else(found, kind):
    k = list(KINDS).index(kind)
    assert found.family[len(SLICES) + k] == k
    assert (k, len(SLICES) + k) in {tuple(pair) for pair in found.moved.tolist()}


def test_slices_of_one_patient_and_of_one_level_are_not_joined(found):
    assert found.family[: len(SLICES)].tolist() == list(range(len(SLICES)))
    assert len(found.moved) == len(KINDS)


def test_it_is_told_how_a_moved_copy_was_turned(found):
    rows = {tuple(pair): row for row, pair in enumerate(found.pairs.tolist())}

    def how(kind):
        k = list(KINDS).index(kind)
        row = max(r for pair, r in rows.items() if pair == (k, len(SLICES) + k))
        return found.degrees[row] % 360, bool(found.mirrored[row])

    def apart(degrees, others):
        return abs((degrees - others + 180) % 360 - 180)

    degrees, mirrored = how("turned elsewhere and smaller")
    assert apart(degrees, 40) < 1
    assert not mirrored
    degrees, mirrored = how(
        "mirrored and shifted"
    )  # left to right: top to bottom, then half a turn
    assert apart(degrees, 180) < 1
    assert mirrored


def test_without_the_search_they_are_not_found(monkeypatch):
    monkeypatch.setattr("msa_flax.data.families.find_moved", lambda *_: [])
    pair = np.stack([comparable(SLICES[0]), comparable(shifted(SLICES[0]))])
    assert find_families(pair).family.tolist() == [0, 1]


def test_what_is_in_place_is_left_to_the_search_before():
    side = 223
    assert moved._is_still(np.array([[1.0, 0, 0.3], [0, 1, -0.3]]), side)
    assert moved._is_still(cv2.getRotationMatrix2D((side / 2, side / 2), 37, 1), side)
    assert not moved._is_still(np.array([[1.0, 0, 2], [0, 1, 0]]), side)
    assert not moved._is_still(cv2.getRotationMatrix2D((side / 2, side / 2), 0, 1.03), side)


def test_images_without_features_are_no_copies():
    flat = np.stack([np.full((224, 224), level, np.uint8) for level in (0, 7, 255)])
    assert find_families(flat).family.tolist() == [0, 1, 2]
    assert moved.find_moved(flat, lambda image, window: image) == []
