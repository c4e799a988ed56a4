"""Families: which images are copies of one source, by their pixels alone.

Copies of a slice differ by rotation about the centre, reflection, sharpening, blur, brightness,
contrast, size or compression. What they share, and what two neighbouring slices of one series do
not, is the noise of the scanner. So images are compared in the band of that noise, whitened, so
that blur and sharpening weigh little, on a polar grid, where a rotation is a shift and a reflection
reverses it: the Fourier transform along the angle correlates two images at all rotations at once.

Comparing every pair like this would take hours. Candidates come from the magnitudes of the same
transform, which no rotation or reflection changes; their nearest neighbours are found exactly, by
products of matrices. That is n^2, with so small a constant that at 20,000 images most of the time
still goes into describing and comparing, which are proportional to n
(``experiments/benchmarks/families.py`` measures it).

Copies that were shifted, zoomed, cropped, padded or inverted are sought among the families found
so, one image of each (:mod:`msa_flax.data.moved`). Where neighbouring slices share noise, links
between them are told from copies by :mod:`msa_flax.data.neighbours`.

Not found: what :data:`NOT_SEARCHED` says.
"""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from msa_flax.data.examples import Examples, pixel_hash
from msa_flax.data.facts import SIZE
from msa_flax.data.folder import Progress
from msa_flax.data.moved import Moved, find_moved
from msa_flax.data.neighbours import doubtful
from msa_flax.data.sources import connected, find_sources

VERSION = 1  # of the search; what it found is kept: raise it where it finds something else
THRESHOLD = 0.70  # correlation from which two images are copies of one source
CANDIDATES = 24  # images that each image is compared with

SEARCHED = (
    "copies that were rotated, mirrored, shifted, zoomed, cropped, padded, inverted, or changed in "
    "brightness, contrast or sharpness"
)
NOT_SEARCHED = (
    "copies that were bent, compressed strongly or covered with much noise; images without noise "
    "of their own; found in part only: copies that were cropped or padded by more than a tenth, "
    "shrunk, shifted far or brightened until clipped"
)

_ANGLES, _RADII = 512, 48  # of the polar grid
_INNER, _OUTER = 10.0, 104.0  # its smallest and largest radius, pixels
_BAND = (0.15, 0.40)  # what is compared, cycles per pixel; the Nyquist frequency is 0.5
_EDGE = 0.015  # softness of the band's ends, cycles per pixel
_WAVES, _EVERY = 32, 2  # candidates: angular frequencies, every second radius
_FINER = 2  # correlations are evaluated at this many angles per angle of the grid
_AS_GOOD = 0.9  # of two links of a moved copy, the weaker counts if it is so nearly as strong
_FLAT = 0.5  # standard deviation, grey levels, below which an image has nothing to compare


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Families:
    """Images grouped by their source, and the comparisons that this was concluded from.

    Attributes:
        family: the position of the first image of each image's family, int [n].
        pairs: positions of the two images of every comparison made, int [m, 2]. Where images are
            equal, the first is compared, and the others with nothing but the first.
        similarity: their largest correlation over rotation and reflection, float32 [m], -1..1.
        degrees: by how much the second is rotated clockwise against the first, float32 [m], 0..360.
        mirrored: whether it was also reflected, top to bottom, before it was rotated, bool [m].
        threshold: the similarity from which two images were linked.
        moved: pairs of copies that were shifted, zoomed, cropped, padded or inverted, int [k, 2].
        unclear: pairs whose similarity reached the threshold, but which may be neighbouring slices
            that share noise; they were not linked, and are in different families, int [u, 2].
    """

    family: np.ndarray
    pairs: np.ndarray
    similarity: np.ndarray
    degrees: np.ndarray
    mirrored: np.ndarray
    threshold: float
    moved: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2), np.intp))
    unclear: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2), np.intp))


def find_families(
    images: np.ndarray,
    *,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> Families:
    """Groups images by their source: a family is what links connect.

    Two images are linked if their similarity reaches the threshold, or if they are equal. The
    default threshold was chosen on the public spine fracture data set, where it lies between what
    different slices reach and what copies need to stay connected; thicker slices or another
    reconstruction may need another one.

    Args:
        images: grey, uint8 [n, 224, 224].
        threshold: the similarity from which two images are linked, 0..1; None: THRESHOLD.
        progress: called after each image of both stages; equal images count as one.

    Raises:
        ValueError: images of another shape or type.
    """
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (SIZE, SIZE):
        raise ValueError(
            f"images: expected uint8 [n, {SIZE}, {SIZE}], got {images.dtype} {images.shape}"
        )
    threshold = THRESHOLD if threshold is None else threshold
    # Many equal images would be one another's likeliest candidates, and hide every other copy.
    hashes = np.array([pixel_hash(image) for image in images], np.str_)
    _, first, member = np.unique(hashes, return_index=True, return_inverse=True)
    with_first = np.stack([first[member], np.arange(len(images))], axis=1)
    repeats = with_first[:, 0] != with_first[:, 1]
    distinct, equal = with_first[~repeats, 0], with_first[repeats]
    count = len(distinct)
    spectra, pairs, likeness, angle, reflected = _search(images[distinct], progress)
    linked, in_place = likeness >= threshold, (np.abs((angle + 180) % 360 - 180) < 1) & ~reflected
    doubted = linked.copy()
    doubted[linked] = doubtful(
        images[distinct],
        pairs[linked],
        likeness[linked],
        in_place[linked],
        lambda i, others: _compare(spectra, i, others)[0],
    )
    family = connected(pairs[linked & ~doubted], count)
    moved = _moved(images[distinct], family, pairs, likeness, threshold)
    joined = np.array([(pair.first, pair.second) for pair in moved], np.intp).reshape(-1, 2)
    family = connected(np.concatenate([pairs[linked & ~doubted], joined]), count)
    unclear = pairs[doubted & (family[pairs[:, 0]] != family[pairs[:, 1]])]
    ones, still = np.ones(len(equal), np.float32), np.zeros(len(equal), np.float32)
    links = np.concatenate([distinct[pairs[linked & ~doubted]], distinct[joined], equal])
    turned, flipped, alike = (
        np.array([getattr(pair, name) for pair in moved], kind)
        for name, kind in (
            ("degrees", np.float32),
            ("mirrored", np.bool_),
            ("similarity", np.float32),
        )
    )
    return Families(
        family=connected(links, len(images)),
        pairs=np.concatenate([distinct[pairs], equal, distinct[joined]]),
        similarity=np.concatenate([likeness, ones, alike]),
        degrees=np.concatenate([angle, still, turned]),
        mirrored=np.concatenate([reflected, still.astype(np.bool_), flipped]),
        threshold=threshold,
        moved=distinct[joined],
        unclear=distinct[unclear],
    )


def _search(
    images: np.ndarray, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the spectra of images, the pairs compared, and what was found of each pair."""
    count = len(images)
    spectra = np.zeros((count, _ANGLES // 2 + 1, _RADII), np.complex64)
    similarity, degrees, mirrored = [], [], []
    with ThreadPoolExecutor() as pool:
        for i, spectrum in enumerate(pool.map(_spectrum, images)):
            spectra[i] = spectrum
            if progress:
                progress("described", i + 1, count)
        partners = _likeliest(spectra)
        compared = pool.map(lambda i: _compare(spectra, i, partners[i]), range(count))
        for i, (found, angle, reflected) in enumerate(compared):
            similarity.append(found)
            degrees.append(angle)
            mirrored.append(reflected)
            if progress:
                progress("compared", i + 1, count)
    first = np.repeat(np.arange(count), [len(others) for others in partners])
    second = np.concatenate([*partners, np.zeros(0, np.intp)])
    none = np.zeros(0, np.float32)
    return (
        spectra,
        np.stack([first, second], axis=1),
        np.concatenate([*similarity, none]),
        np.concatenate([*degrees, none]),
        np.concatenate([*mirrored, none.astype(np.bool_)]),
    )


def _moved(
    images: np.ndarray,
    family: np.ndarray,
    pairs: np.ndarray,
    likeness: np.ndarray,
    threshold: float,
) -> list[Moved]:
    """Returns the links between families by moved copies, sought in one image of each family."""
    inside = family[pairs[:, 0]] == family[pairs[:, 1]]
    weight = np.bincount(
        pairs[inside].ravel(), np.repeat(likeness[inside], 2), minlength=len(images)
    )
    order = np.lexsort((-weight, family))  # the image that is most like its family comes first
    _, at = np.unique(family[order], return_index=True)
    chosen = order[at]
    found = find_moved(images[chosen], lambda image, window: _even(_whitened(image, window)))
    links = [pair for pair in found if pair.similarity >= threshold]
    best = np.zeros(len(chosen))
    for pair in links:
        for i in (pair.first, pair.second):
            best[i] = max(best[i], pair.similarity)
    return [  # a neighbour of the source is less like the copy than the source is
        pair._replace(first=int(chosen[pair.first]), second=int(chosen[pair.second]))
        for pair in links
        if pair.similarity >= _AS_GOOD * max(best[pair.first], best[pair.second])
    ]


def names_by_pixels(examples: Examples, families: Families) -> np.ndarray:
    """Returns the id of the first image of each family by pixels, "" without copies: str [n]."""
    return name_by_first(families.family, examples.example_id)


def name_by_first(family: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Returns the id of the first image of each image's family, "" where it is alone: str [n].

    Args:
        family: the position of the first image of each image's family, int [n].
        ids: of the images, str [n].
    """
    sizes = np.bincount(family, minlength=len(ids))
    return np.where(sizes[family] > 1, ids[family], "")


def all_sources(examples: Examples, families: Families) -> np.ndarray:
    """Returns what connects images by names, equal pixels and families by pixels: int [n].

    This is the unit that permutations and random splits must keep whole.
    """
    by_name = np.where(examples.family == "", examples.example_id, examples.family)
    return find_sources(families.family, examples.pixels, by_name)


class _Grid:
    """What every image needs and no image changes."""

    def __init__(self) -> None:
        centre = (SIZE - 1) / 2
        radii = np.linspace(_INNER, _OUTER, _RADII)
        angles = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
        self.x = (centre + np.cos(angles)[:, None] * radii).astype(np.float32)
        self.y = (centre + np.sin(angles)[:, None] * radii).astype(np.float32)
        self.area = np.sqrt(radii).astype(np.float32)  # a pixel of the grid stands for r pixels
        rows, columns = np.mgrid[:SIZE, :SIZE] - centre
        distance = np.hypot(rows, columns)
        self.disk = np.clip((_OUTER + 4 - distance) / 6, 0, 1).astype(np.float32)
        frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None])
        self.ring = (frequency * SIZE).astype(np.intp)
        self.in_ring = np.maximum(np.bincount(self.ring.ravel()), 1)
        rise, fall = (frequency - _BAND[0]) / _EDGE, (_BAND[1] - frequency) / _EDGE
        self.band = (1 / (1 + np.exp(-rise)) / (1 + np.exp(-fall))).astype(np.float32)


_GRID = _Grid()


def _spectrum(image: np.ndarray) -> np.ndarray:
    """Returns the transform along the angle, complex64 [257, 48], of an image of norm 1.

    It is zero for an image that has nothing to compare.
    """
    noise = _even(_whitened(image))
    polar = cv2.remap(noise, _GRID.x, _GRID.y, cv2.INTER_CUBIC) * _GRID.area
    polar -= polar.mean(axis=0)
    norm = float(np.linalg.norm(polar))
    inside = image[_GRID.disk > 0]
    if norm == 0 or inside.std() < _FLAT:
        return np.zeros((_ANGLES // 2 + 1, _RADII), np.complex64)
    spectrum: np.ndarray = np.fft.rfft(polar / norm, axis=0).astype(np.complex64)
    return spectrum


def _whitened(image: np.ndarray, window: np.ndarray | None = None) -> np.ndarray:
    """Returns an image in which all frequencies of the band are equally strong, float32.

    Args:
        image: uint8 [224, 224].
        window: what of it counts, float32 [224, 224], 0..1; None: a disk.
    """
    pixels = image.astype(np.float32)
    fine = _even(pixels - cv2.GaussianBlur(pixels, (0, 0), 3))
    fine *= _GRID.disk if window is None else window
    spectrum = np.fft.rfft2(fine)
    power = np.bincount(_GRID.ring.ravel(), np.abs(spectrum).ravel() ** 2) / _GRID.in_ring
    spectrum *= _GRID.band / np.sqrt(power[_GRID.ring] + 1e-9)
    whitened: np.ndarray = np.fft.irfft2(spectrum, image.shape).astype(np.float32)
    return whitened


def _even(image: np.ndarray) -> np.ndarray:
    """Returns an image whose contrast is the same everywhere: bone weighs as much as fat."""
    power = cv2.GaussianBlur(image * image, (0, 0), 2)
    even: np.ndarray = image / np.sqrt(power + 1e-3 * power.mean() + 1e-12)
    return even


def _likeliest(spectra: np.ndarray) -> list[np.ndarray]:
    """Returns, for each image, the later ones that it or they find most alike; no pair twice."""
    from sklearn.neighbors import NearestNeighbors

    count = len(spectra)
    if count < 2:
        return [np.zeros(0, np.intp)] * count
    size = np.sqrt(np.abs(spectra[:, :_WAVES, ::_EVERY])).reshape(count, -1)
    size -= size.mean(axis=1, keepdims=True)
    size /= np.maximum(np.linalg.norm(size, axis=1, keepdims=True), 1e-12)
    index = NearestNeighbors(n_neighbors=min(CANDIDATES, count - 1), algorithm="brute").fit(size)
    near = index.kneighbors(return_distance=False)  # of each image, itself left out
    pairs = np.stack([np.repeat(np.arange(count), near.shape[1]), near.ravel()], axis=1)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    return np.split(pairs[:, 1], np.searchsorted(pairs[:, 0], np.arange(1, count)))


def _compare(
    spectra: np.ndarray, i: int, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns similarity, degrees and reflection of image i and each of the others."""
    angles = _FINER * _ANGLES
    one, many = spectra[i], spectra[others]
    found = []
    for reference in (one, one.conj()):  # a reflected image's transform is the conjugate
        product = np.zeros((len(others), angles // 2 + 1), np.complex64)
        product[:, : _ANGLES // 2 + 1] = np.einsum("kr,nkr->nk", reference.conj(), many)
        found.append(_FINER * np.fft.irfft(product, angles, axis=1))
    correlation = np.stack(found, axis=1).reshape(len(others), 2 * angles)
    best = correlation.argmax(axis=1)
    value = correlation[np.arange(len(others)), best].astype(np.float32)
    mirrored, shift = best // angles, best % angles
    return value, (shift * (360.0 / angles)).astype(np.float32), mirrored.astype(np.bool_)
