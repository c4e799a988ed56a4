"""Copies or neighbours: what links say about a series whose slices share some of their noise.

Where slices overlap or are interpolated, the noise of one is partly that of the next, and a search
for shared noise takes the two for copies. What tells them apart:

- In a series, similarity falls with the distance. Three copies i, j, l of one source, each spoilt
  in a way of its own, are at least as alike as the product of two of their similarities; of three
  slices in a row the outer two are less so, because they no longer share the same noise.
- Their anatomy differs. If one image is a copy of the other, a curve of grey levels and a little
  blur predict it, and what is left is as weak at edges as elsewhere.

Neither shows anything in two slices without anatomy between them.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from msa_flax.data.sources import connected

_BEYOND = 0.18  # excess of the product over the third similarity; of copies in the public set 0.17
_BEYOND_IN_CHAIN = 0.08  # the same where two images of one family share nothing
_NOTHING = 0.2  # similarity of two images of a family that share nothing; public set: 0.32 at least
_ANCHORS = 128  # images of a family that all of its images are compared with
_SURE = 0.92  # neighbours are not that alike
_LEFT, _AT_EDGES = 0.012, 1.6  # unexplained share of the contrast; how much larger it is at edges

Compare = Callable[[int, np.ndarray], np.ndarray]  # an image, others -> their similarities


def doubtful(
    images: np.ndarray,
    links: np.ndarray,
    similarity: np.ndarray,
    in_place: np.ndarray,
    compare: Compare,
) -> np.ndarray:
    """Returns which links may join neighbouring slices instead of copies, bool [k].

    Args:
        images: uint8 [n, h, w].
        links: pairs of images that are alike, int [k, 2].
        similarity: of each pair, float [k].
        in_place: whether a pair is most alike without rotation and reflection, bool [k].
        compare: returns the similarities of an image and others.
    """
    doubted = np.zeros(len(links), np.bool_)
    for second_look in (False, True):
        family = connected(links[~doubted], len(images))
        for rows in _by_family(family, links, ~doubted):
            members, place = np.unique(links[rows], return_inverse=True)
            if len(members) < 3:
                continue
            anchors = members[np.linspace(0, len(members) - 1, _ANCHORS).astype(int)]
            if len(members) <= _ANCHORS:
                anchors = members
            with ThreadPoolExecutor() as pool:
                rest = itertools.repeat(anchors)
                found = np.stack(list(pool.map(compare, members.tolist(), rest)))
            chained = bool(found.min() < _NOTHING)
            if second_look:
                doubted[rows] = chained & in_place[rows]
                continue
            first, second = found[place.reshape(-1, 2).T]
            product = similarity[rows, None] * np.maximum(first, second)
            beyond = (product - np.minimum(first, second)).max(axis=1)
            doubted[rows] = beyond > (_BEYOND_IN_CHAIN if chained else _BEYOND)
    return _test_the_spanning_links(images, links, similarity, in_place, doubted)


def _by_family(family: np.ndarray, links: np.ndarray, kept: np.ndarray) -> list[np.ndarray]:
    """Returns the rows of the kept links of each family."""
    rows = np.flatnonzero(kept)
    of = family[links[rows, 0]]
    order = np.argsort(of, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(of[order])) + 1) if len(rows) else []


def _test_the_spanning_links(
    images: np.ndarray,
    links: np.ndarray,
    similarity: np.ndarray,
    in_place: np.ndarray,
    doubted: np.ndarray,
) -> np.ndarray:
    """Doubts links between images of different anatomy, where no better link joins the two."""
    suspects = in_place & (similarity < _SURE) & ~doubted
    doubted = doubted | suspects
    while True:
        family = connected(links[~doubted], len(images))[links]
        between = np.flatnonzero(suspects & (family[:, 0] != family[:, 1]))
        if not len(between):
            return doubted & ~(suspects & (family[:, 0] == family[:, 1]))
        joined = np.sort(family[between], axis=1)
        best = between[np.lexsort((-similarity[between], *joined.T))]
        joined = np.sort(family[best], axis=1)
        best = best[np.append(True, (np.diff(joined, axis=0) != 0).any(axis=1))]
        with ThreadPoolExecutor() as pool:
            pairs = (images[links[row]] for row in best.tolist())
            differs = np.fromiter(pool.map(lambda pair: differ(*pair), pairs), np.bool_, len(best))
        suspects[best] = False
        doubted[best[~differs]] = False


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    """Tells whether two images in place show different anatomy, and not one a copy of the other.

    Args:
        one: uint8 [h, w].
        other: uint8 [h, w].
    """
    return _unexplained(one, other) and _unexplained(other, one)


def _unexplained(one: np.ndarray, other: np.ndarray) -> bool:
    """Tells whether a curve of grey levels and blur leave edges of ``other`` unexplained."""
    source, smooth = one.astype(np.float32), cv2.GaussianBlur(other.astype(np.float32), (0, 0), 3)
    bends = np.unique(np.quantile(source, np.linspace(0, 0.97, 9)))
    seen = [cv2.GaussianBlur(np.maximum(source - bend, 0), (0, 0), 3) for bend in bends]
    seen += [cv2.GaussianBlur(source, (0, 0), sigma) for sigma in (4.5, 7.5)]
    edge = 8  # pixels; blur beyond the border of the image is a guess
    inner = np.s_[edge:-edge:2, edge:-edge:2]
    known = np.stack([np.ones(smooth[inner].size), *(x[inner].ravel() for x in seen)], axis=1)
    values = smooth[inner].ravel()
    left = np.square(values - known @ np.linalg.lstsq(known, values)[0])
    soft = cv2.GaussianBlur(source, (0, 0), 2)
    slope = np.hypot(cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1))[inner]
    middle, steep = np.quantile(slope, (0.5, 0.9))
    at_edges = float(np.sqrt(left[slope.ravel() >= steep].mean()))
    elsewhere = float(np.sqrt(left[slope.ravel() <= middle].mean()))
    return at_edges > _LEFT * float(values.std()) and at_edges > _AT_EDGES * elsewhere
