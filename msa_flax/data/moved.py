"""Moved copies: images that show one source after a shift, a zoom, a crop, a border or inversion.

The search for families turns images about their centre only. Here small features of the finest
detail (SIFT) are described, counted by kind, and images of similar counts are matched, as they are,
mirrored, and with black and white exchanged. Where matches agree on one affine map, the second
image is put in the place of the first, and what is compared is the noise, as in the search for
families: neighbouring slices agree on a map as well, but have other noise.

Sources: Lowe, "Distinctive Image Features from Scale-Invariant Keypoints" (2004); Arandjelovic and
Zisserman, "Three things everyone should know to improve object retrieval" (2012), for the root;
Sivic and Zisserman, "Video Google" (2003), for the counts.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

_FEATURES = 200  # of an image, the strongest
_WORDS, _LEARNT_FROM = 2048, 60_000  # kinds of features, and how many features they are found among
_CANDIDATES = 8  # images that each image, in each of its four forms, is matched with
_RATIO = 0.7  # a match is so much nearer than the next one, squared distances
_AGREEING = 8  # matches that agree on a map
_OFF = 2.0  # pixels by which a match may miss its place
_ZOOM, _STRETCH = 2.0, 1.4  # largest change of scale, and of one direction against the other
_STILL = 1.0  # pixels; a map that differs less from a turn about the centre has been searched
_OVERLAP = 4000  # pixels that two images share at the least
_AT_ONCE = 64  # images, or pairs, that a thread takes before it takes others
_HALF = 0.25  # pixels by which OpenCV's places are off, because it doubles the image first

Noise = Callable[[np.ndarray, np.ndarray], np.ndarray]  # image, window float32 -> its noise


class Moved(NamedTuple):
    """A pair of images that agree on a map."""

    first: int
    second: int
    similarity: float  # of their noise, 0..1
    degrees: float  # by how much the second is rotated clockwise, 0..360
    mirrored: bool  # whether it was reflected, top to bottom, before it was rotated


class _Features(NamedTuple):
    places: np.ndarray  # float32 [k, 2], x and y
    kinds: np.ndarray  # float32 [k, 128], of norm 1


class _Task(NamedTuple):
    """What is matched: an image, and another one in one of its forms."""

    first: int
    second: int
    mirrored: bool
    inverted: bool


def find_moved(images: np.ndarray, noise: Noise) -> list[Moved]:
    """Returns pairs of images one of which may be a moved or inverted copy of the other.

    Args:
        images: of different families, uint8 [n, h, w].
        noise: returns what two copies share, inside of a window.
    """
    if len(images) < 2:
        return []
    # Products this small are slower on several threads each, which wait for one another.
    with ThreadPoolExecutor() as pool, threadpool_limits(1, user_api="blas"):
        features = list(pool.map(_describe, images))
        tasks = _likeliest(features, pool)

        def compare(start: int) -> list[Moved | None]:
            some = tasks[start : start + _AT_ONCE]
            return [_compare(images, features, noise, task) for task in some]

        found = list(pool.map(compare, range(0, len(tasks), _AT_ONCE)))
    return [moved for some in found for moved in some if moved]


def _describe(image: np.ndarray) -> _Features:
    pixels = image.astype(np.float32)
    fine = cv2.GaussianBlur(pixels, (0, 0), 0.6) - cv2.GaussianBlur(pixels, (0, 0), 3)
    power = cv2.GaussianBlur(fine * fine, (0, 0), 2)
    even = 40 * fine / np.sqrt(power + 1e-3 * power.mean() + 1e-12)
    sift = cv2.SIFT.create(_FEATURES, contrastThreshold=0.0, edgeThreshold=20)
    drawn = np.clip(np.rint(128 + even), 0, 255).astype(np.uint8)
    points, kinds = sift.detectAndCompute(drawn, None)
    if not points or pixels.std() < 1:
        return _Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    root = np.sqrt(kinds / np.maximum(kinds.sum(axis=1, keepdims=True), 1e-6))
    places = np.array([point.pt for point in points], np.float32) - _HALF
    return _Features(places, root.astype(np.float32))


def _changed(kinds: np.ndarray, mirrored: bool, inverted: bool) -> np.ndarray:
    """Returns what the features of the mirrored, or inverted, image are described as."""
    cells = kinds.reshape(-1, 4, 4, 8)
    if inverted:  # all gradients point the other way, and so does the frame of a feature
        cells = cells[:, ::-1, ::-1]
    if mirrored:
        cells = cells[:, ::-1][..., [0, 7, 6, 5, 4, 3, 2, 1]]
    return cells.reshape(-1, 128)


def _likeliest(features: list[_Features], pool: ThreadPoolExecutor) -> list[_Task]:
    """Returns pairs whose features are of the same kinds, mirrored or inverted; no task twice."""
    from sklearn.cluster import MiniBatchKMeans

    forms = [(mirrored, inverted) for mirrored in (False, True) for inverted in (False, True)]
    if len(features) <= _CANDIDATES + 1:
        pairs = itertools.combinations(range(len(features)), 2)
        return [_Task(*pair, *form) for pair in pairs for form in forms]
    every = np.concatenate([one.kinds for one in features])
    if not len(every):
        return []
    chosen = every[:: max(1, len(every) // _LEARNT_FROM)]
    words = MiniBatchKMeans(
        min(_WORDS, len(chosen)), init="random", n_init=1, max_iter=5, batch_size=4096,
        random_state=0,
    ).fit(chosen).cluster_centers_  # fmt: skip
    offset = np.square(words).sum(axis=1)

    def counts(mirrored: bool, inverted: bool) -> np.ndarray:
        def count(one: _Features) -> np.ndarray:
            kinds = _changed(one.kinds, mirrored, inverted)
            nearest = (2 * kinds @ words.T - offset).argmax(axis=1)
            return np.sqrt(np.bincount(nearest, minlength=len(words)))

        return np.stack(list(pool.map(count, features))).astype(np.float32)

    plain = counts(False, False)
    rarity = np.log(len(plain) / np.maximum((plain > 0).sum(axis=0), 1)).astype(np.float32) + 1e-3
    plain = _unit(plain * rarity)
    tasks = set()
    for form in forms:
        rows = _unit(counts(*form) * rarity)
        for i, others in enumerate(_nearest(rows, plain, pool)):
            tasks |= {_Task(min(i, j), max(i, j), *form) for j in others}
    return sorted(tasks)


def _nearest(rows: np.ndarray, plain: np.ndarray, pool: ThreadPoolExecutor) -> list[list[int]]:
    """Returns for each row the others of ``plain`` that are most like it."""

    def some(start: int) -> list[list[int]]:
        likeness = rows[start : start + _AT_ONCE] @ plain.T
        at = np.arange(len(likeness))
        likeness[at, at + start] = -1
        found = np.argpartition(-likeness, _CANDIDATES - 1, axis=1)[:, :_CANDIDATES]
        return [one.tolist() for one in found]

    blocks = pool.map(some, range(0, len(rows), _AT_ONCE))
    return [others for block in blocks for others in block]


def _unit(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return unit


def _compare(
    images: np.ndarray,
    features: list[_Features],
    noise: Noise,
    task: _Task,
) -> Moved | None:
    """Returns how alike the noise of two images is in one place; None if they agree on no map."""
    i, j, mirrored, inverted = task
    side = images.shape[1] - 1
    there = features[j].places.copy()
    if mirrored:
        there[:, 1] = side - there[:, 1]
    kinds = _changed(features[j].kinds, mirrored, inverted)
    matrix = _map(features[i], _Features(there, kinds))
    if matrix is None or (not inverted and _is_still(matrix, side)):
        return None
    other = images[j][::-1] if mirrored else images[j]
    similarity = _noise_in_place(images[i], other, matrix, noise)
    turn = float(np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1])))
    degrees = (-turn if mirrored else turn) % 360
    return Moved(i, j, -similarity if inverted else similarity, degrees, mirrored)


def _map(one: _Features, other: _Features) -> np.ndarray | None:
    """Returns the affine map, float64 [2, 3], from one image to the other that matches agree on."""
    if min(len(one.places), len(other.places)) < _AGREEING:
        return None
    distance = 2 - 2 * one.kinds @ other.kinds.T
    rows, best = np.arange(len(distance)), distance.argmin(axis=1)
    nearest = distance[rows, best]
    distance[rows, best] = np.inf
    clear = nearest < _RATIO * distance.min(axis=1)
    if clear.sum() < _AGREEING:
        return None
    matrix, agreeing = cv2.estimateAffine2D(
        one.places[clear], other.places[best[clear]], ransacReprojThreshold=_OFF, maxIters=500
    )
    if matrix is None or agreeing.sum() < _AGREEING:
        return None
    large, small = np.linalg.svd(matrix[:, :2])[1]
    plausible = large < _ZOOM and small > 1 / _ZOOM and large < _STRETCH * small
    return matrix if plausible and np.linalg.det(matrix[:, :2]) > 0 else None


def _is_still(matrix: np.ndarray, side: int) -> bool:
    """Tells whether a map is a turn about the centre of the image, and nothing else."""
    left, _, right = np.linalg.svd(matrix[:, :2])
    centre = np.full(2, side / 2)
    corners = np.array([(x, y) for x in (-1, 1) for y in (-1, 1)]) * side / 3
    moved = (corners + centre) @ matrix[:, :2].T + matrix[:, 2]
    turned = corners @ (left @ right).T + centre
    return bool(np.sqrt(np.square(moved - turned).sum(axis=1).mean()) < _STILL)


def _noise_in_place(one: np.ndarray, other: np.ndarray, matrix: np.ndarray, noise: Noise) -> float:
    """Returns the correlation of the noise of two images, -1..1, where both show something."""
    size, back = one.shape[::-1], cv2.WARP_INVERSE_MAP
    placed = cv2.warpAffine(other, matrix, size, flags=cv2.INTER_CUBIC | back)
    inside = cv2.warpAffine(np.ones_like(other), matrix, size, flags=cv2.INTER_NEAREST | back)
    inside = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    seen = cv2.erode(inside, np.ones((17, 17), np.uint8))[1:-1, 1:-1] > 0
    seen &= _active(one) & _active(placed)
    if seen.sum() < _OVERLAP:
        return 0.0
    window = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), 2)
    first, second = noise(one, window)[seen], noise(placed, window)[seen]
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norm if norm else 0.0


def _active(image: np.ndarray) -> np.ndarray:
    """Returns where an image is not flat, bool [h, w]: a black border has no noise."""
    pixels = image.astype(np.float32)
    mean = cv2.GaussianBlur(pixels, (0, 0), 3)
    active: np.ndarray = cv2.GaussianBlur(pixels * pixels, (0, 0), 3) - mean * mean > 1
    return active
