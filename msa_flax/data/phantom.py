"""Synthetic axial neck CT: simulated patients whose only sign of the label is the fracture.

Lengths are millimetres from the centre of the spinal canal, x to the right of the image, y to the
back; values are Hounsfield units until the last step, the display window. The fracture has a random
stream of its own, so that a slice with its fracture and without it is otherwise the same picture.
The anatomy is a schematic of our own. Fractures are darker than real ones, so that a small network
can learn them, and their edges are denser, so that mean and thumbnail do not tell the label.
"""

import dataclasses
from typing import NamedTuple

import cv2
import numpy as np

from msa_flax.files import UserError

_Pair = tuple[float, float]
LEVELS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C7")  # C0: the skull base
_FINE = 2  # shapes are drawn on a grid this many times finer than the pixels
_AIR, _FAT, _FLUID, _CORD, _MUSCLE, _TOOTH = -1000.0, -100.0, 15.0, 40.0, 55.0, 2000.0  # HU
_LUCENT, _DENSE = (-450, -250), (1000, 1400)  # HU of a fracture line and its edges, exaggerated
_LINE, _EDGES = (3.0, 4.0), (6.5, 8.5)  # mm, width of the line, and of the line with its edges
_GAP = (3.5, 5.0)  # mm, how far a fragment is moved
# One number per level (mm): half width, front end and back end of the outline of the neck.
_SKIN_X = (63, 60, 57, 55, 54, 56, 64, 96)
_SKIN_FRONT = (-96, -92, -84, -72, -63, -60, -60, -62)
_SKIN_BACK = (58, 53, 50, 48, 48, 49, 51, 55)
# C2 to C7 (mm): half width and half depth of the vertebral body; spinous, transverse process.
_BODY_X = (15.5, 14.5, 15.0, 15.5, 16.5, 17.5)
_BODY_Y = (10.0, 9.0, 9.0, 9.2, 9.5, 10.0)
_SPINOUS = (19.0, 14.0, 14.0, 16.0, 20.0, 28.0)
_SPINOUS_WIDTH = (9.0, 7.0, 7.0, 7.0, 7.5, 9.0)
_TRANSVERSE = (22.0, 24.0, 25.0, 26.0, 28.0, 33.0)


class PhantomError(UserError):
    """The phantom cannot be drawn from these numbers."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSlice:
    """One simulated slice: its picture, what is in it, and where it comes from."""

    image: np.ndarray  # uint8 [h, w], windowed
    mask: np.ndarray  # uint8 [h, w], 1 = fracture line or gap; all 0 without a fracture
    label: int  # 1 = fracture, 0 = normal
    level: str  # one of LEVELS
    slice_index: int  # 0 at the skull base
    patient: str  # such as "P0007"


class _Patient:  # what is the same in all slices of a patient
    def __init__(self, rng: np.random.Generator) -> None:
        self.pixels = int(rng.integers(160, 225))  # side of the square image
        self.view = rng.uniform(90, 102)  # mm, side of the field of view
        self.size = rng.uniform(0.92, 1.08)  # factor on every length of the body
        self.density = rng.uniform(0.88, 1.15)  # factor on bone's HU
        self.cortex = rng.uniform(1.6, 2.4)  # mm, thickness of the dense shell of a bone
        self.fat = rng.uniform(3, 9)  # mm, skin and the fat under it
        self.noise = rng.uniform(8, 20)  # HU, standard deviation
        self.blur = rng.uniform(0.35, 0.55)  # mm, the scanner's point spread
        self.streaks = rng.uniform(0, 30)  # HU
        self.window = rng.uniform(320, 440), rng.uniform(1000, 1300)  # HU: centre, width


class _Site(NamedTuple):  # where a bone may break; the line is at right angles to ``outward``
    x: float  # mm
    y: float
    outward: float  # degrees, 0 = right, 90 = back
    reach: float  # mm, half the length of the line
    depth: float = 0.0  # mm of bone beyond the line that may be displaced; 0: never


class _Skeleton(NamedTuple):
    bones: list[np.ndarray]  # polygons, filled together
    holes: list[np.ndarray]  # polygons, taken out of the bones
    sites: list[_Site]  # midline
    pairs: list[_Site]  # right side; the left ones mirror them


def draw_patient(
    seed: int, patient: int, *, slices: int = 8, confounded: bool = False
) -> list[PhantomSlice]:
    """Draws every slice of a patient, skull base first; see :func:`draw_slice`."""
    return [
        draw_slice(seed, patient, index, slices=slices, confounded=confounded)
        for index in range(slices)
    ]


def draw_slice(
    seed: int,
    patient: int,
    index: int,
    *,
    slices: int = 8,
    confounded: bool = False,
    fractured: bool | None = None,
) -> PhantomSlice:
    """Draws one slice, 160 to 224 pixels square; a pure function of its arguments.

    Args:
        seed: the data set's seed, 0 .. 2**32 - 1.
        patient: the patient's number, 0 .. 2**32 - 1; other patients need not be drawn.
        index: the slice's number, 0 (skull base) .. slices - 1.
        slices: how many the patient has, 1 or more, spread evenly over the eight levels.
        confounded: False: a fair coin decides the label. True: the upper four levels are
            fractured, the lower four normal, as in data whose label follows the anatomy.
        fractured: overrides the label; everything but the fracture stays as it is.

    Raises:
        PhantomError: a number outside its range.
    """
    if not (0 <= seed < 2**32 and 0 <= patient < 2**32 and 0 <= index < slices):
        raise PhantomError(
            f"phantom: expected seed and patient in 0 .. 2**32 - 1 and 0 <= index < slices, "
            f"got seed {seed}, patient {patient}, index {index}, slices {slices}"
        )
    about = _Patient(_stream(seed, patient, 0, 0))
    anatomy, coin, crack, scanner = (_stream(seed, patient, 1 + index, k) for k in range(4))
    level = len(LEVELS) * index // slices
    label = level < len(LEVELS) // 2 if confounded else coin.random() < 0.5
    label = label if fractured is None else fractured
    hounsfield, gap = _tissue(about, level, anatomy, crack if label else None)
    image = _scan(hounsfield, about, level, scanner)
    part = cv2.resize(gap.astype(np.float32), image.shape, interpolation=cv2.INTER_AREA)
    return PhantomSlice(
        image=image,
        mask=(part >= 0.5).astype(np.uint8),
        label=int(label),
        level=LEVELS[level],
        slice_index=index,
        patient=f"P{patient:04d}",
    )


def _stream(*key: int) -> np.random.Generator:
    # Always four numbers: NumPy pads short keys with zeros, so that [s, p] equals [s, p, 0, 0].
    return np.random.default_rng(key)


class _Canvas:
    """The fine grid: places polygons given in mm, turned, shifted and slightly bent per slice."""

    def __init__(self, about: _Patient, rng: np.random.Generator) -> None:
        self.side = _FINE * about.pixels
        self.scale = self.side / about.view  # grid points per mm
        turn = np.deg2rad(np.clip(rng.normal(0, 6), -15, 15))
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        self._matrix = about.size * self.scale * rotation
        self._origin = (about.view / 2 + rng.normal(0, 2, 2) + (0, 3)) * self.scale
        self._waves, self._phases = rng.uniform(0.04, 0.16, (2, 3)), rng.uniform(0, 6.3, 3)
        self._bend = rng.normal(0, 0.7, (3, 2))  # mm: every slice gets an outline of its own

    def place(self, points: np.ndarray) -> np.ndarray:
        """Returns mm points [n, 2] as grid points in cv2's fixed point (1/16)."""
        bent = points + np.sin(points @ self._waves + self._phases) @ self._bend
        return np.rint((bent @ self._matrix + self._origin) * 16).astype(np.int32)

    def fill(self, target: np.ndarray, value: float, *polygons: np.ndarray) -> np.ndarray:
        """Fills polygons of ``target`` with ``value`` and returns it."""
        for polygon in polygons:
            cv2.fillPoly(target, [self.place(polygon)], (value,), shift=4)
        return target

    def region(self, *polygons: np.ndarray) -> np.ndarray:
        """Returns the union of polygons: uint8 [side, side], 255 inside."""
        return self.fill(np.zeros((self.side, self.side), np.uint8), 255, *polygons)


def _arc(centre: _Pair, radii: _Pair, start: float, stop: float) -> np.ndarray:
    t = np.deg2rad(np.linspace(start, stop, 24))
    return np.stack([np.cos(t), np.sin(t)], axis=1) * radii + centre


def _oval(x: float, y: float, a: float, b: float, power: float = 2.0) -> np.ndarray:
    unit = _arc((0, 0), (1, 1), 0, 345)
    bulge = np.abs(unit) ** (2 / power)  # power 2: ellipse; larger: more like a rectangle
    return np.copysign(bulge, unit) * (a, b) + (x, y)


def _ribbon(path: np.ndarray | list, *widths: float) -> np.ndarray:
    """Returns the polygon around a path whose width runs through ``widths`` (mm)."""
    points = np.asarray(path, np.float64)
    along = np.gradient(points, axis=0)
    across = along[:, ::-1] * (-1, 1) / np.hypot(*along.T)[:, None]
    steps = np.linspace(0, len(widths) - 1, len(points))
    half = np.interp(steps, range(len(widths)), widths)[:, None] / 2
    return np.concatenate([points + across * half, (points - across * half)[::-1]])


def _mirror(*polygons: np.ndarray) -> list[np.ndarray]:
    return [*polygons, *(polygon * (-1, 1) for polygon in polygons)]


def _skull_base() -> _Skeleton:
    """C0: foramen magnum, clivus, condyles, petrous bones and the back of the skull."""
    pair = _mirror(_ribbon([(13, -26), (30, -14), (52, 2)], 8, 14, 24), _oval(19, -3, 8, 14))
    back = [_ribbon(_arc((0, -8), (58, 60), 8, 172), 7), _ribbon([(0, 20), (0, 50)], 12, 6)]
    clivus = np.array([(-14, -14), (14, -14), (10, -38), (-10, -38)])
    cells = _mirror(_oval(46, -3, 2.2, 1.8), _oval(52, 2, 2, 2), _oval(50, 9, 2, 2))
    return _Skeleton(
        bones=[*pair, *back, clivus, _oval(0, 2, 27, 25)],
        holes=[_oval(0, 2, 14, 16), *cells],
        sites=[_Site(0, -26, -90, 22), _Site(0, 24, 90, 17)],
        pairs=[_Site(20, -3, -60, 18), _Site(17, 17, 45, 15)],
    )


def _atlas() -> _Skeleton:
    """C1: two arches, two lateral masses, and the dens of C2 between them."""
    front, back = _arc((0, -4), (21, 20), -160, -20), _arc((0, 1), (20, 21), 10, 170)
    pair = _mirror(_oval(20, -6, 8, 11, 2.6), _ribbon([(24, -5), (36, -3)], 14, 8))
    return _Skeleton(
        bones=[*pair, _ribbon(front, 7, 8, 7), _ribbon(back, 8, 7, 8), _oval(0, -13, 6.5, 6)],
        holes=_mirror(_oval(29.5, -4, 3, 3.2)),
        sites=[_Site(0, -19, 0, 14), _Site(0, -13, -90, 13)],
        pairs=[_Site(20, -6, -35, 19), _Site(19, 8, 160, 14), _Site(27, -4, 20, 14, 14)],
    )


def _vertebra(number: int) -> _Skeleton:
    """C2 to C7: body, pedicles, articular pillars, laminae, spinous and transverse processes."""
    k = number - 2
    a, b, reach, width = _BODY_X[k], _BODY_Y[k], _TRANSVERSE[k], _SPINOUS_WIDTH[k]
    middle, tip = -8.5 - b, 11 + _SPINOUS[k]
    pair = _mirror(
        _ribbon([(11, -11), (18, -3)], 8),
        _ribbon([(a - 3, middle + 3), (18, -12), (reach, -7)], 8, 12, 7),
        _oval(17.5, -0.5, 6.5, 7.5, 2.4),
        _ribbon([(16, 3), (6, 10.5), (0, 14)], 8, 7, 8),
    )
    spine = [_ribbon([(0, 10), (0, tip)], width + 2, width)]
    holes = [_oval(0, 0.5, 11, 9, 2.3)]
    if number < 7:  # only the last has one spinous tip and no vertebral artery
        spine += _mirror(_ribbon([(1, tip - 5), (6, tip + 2)], 6, 5))
        holes += _mirror(_oval(18, -10.5, 2.8, 2.5))
    return _Skeleton(
        bones=[_oval(0, middle, a, b, 2.7), *pair, *spine],
        holes=holes,
        sites=[_Site(0, middle, -90, 1.5 * a), _Site(0, 8 + 0.55 * _SPINOUS[k], 90, 12, 30)],
        pairs=[
            _Site(0.3 * a, middle, -30, 1.5 * a),
            _Site(0.5 * a, middle - 0.35 * b, -50, 15, 12),
            _Site(12.5, 5, 175, 15),
            _Site(17.5, -1, 20, 16),
        ],
    )


def _tissue(
    about: _Patient, level: int, rng: np.random.Generator, crack: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns HU float32 and the fracture as bool, both [side, side] on the fine grid."""
    canvas = _Canvas(about, rng)
    soft = _soft_tissue(canvas, about, level, rng)
    skeleton = _skull_base() if level == 0 else _atlas() if level == 1 else _vertebra(level)
    jaw = _arc((0, -34), (50, 46 - 6 * level), 170, 370)
    other = [_ribbon(jaw, 11, 8, 8, 11)][: int(level < 3)]
    bone = canvas.fill(canvas.region(*skeleton.bones, *other), 0, *skeleton.holes)
    bone = cv2.GaussianBlur(bone, (0, 0), 0.8 * canvas.scale) > 127  # rounds corners and joints
    depth = cv2.distanceTransform(bone.astype(np.uint8), cv2.DIST_L2, 3) / canvas.scale
    shell = np.clip(1.3 - depth / about.cortex, 0, 1)
    marrow, cortex = about.density * rng.normal((380, 1100), (30, 80)).astype(np.float32)
    grain = cv2.resize(rng.standard_normal((40, 40), np.float32), bone.shape) * 40
    hounsfield = np.where(bone, marrow + (cortex - marrow) * shell + grain, soft + grain / 4)
    _distractors(hounsfield, canvas, level, rng)
    if level in (1, 2):
        canvas.fill(hounsfield, _TOOTH, *(_oval(x, y, 2.6, 3) for x, y in jaw[3:-2:2]))
    if crack is None:
        return hounsfield, np.zeros(bone.shape, bool)
    left = [site._replace(x=-site.x, outward=180 - site.outward) for site in skeleton.pairs]
    sites = [*skeleton.sites, *skeleton.pairs, *left]
    return _fracture(hounsfield, bone, canvas, sites[crack.integers(len(sites))], crack)


def _soft_tissue(
    canvas: _Canvas, about: _Patient, level: int, rng: np.random.Generator
) -> np.ndarray:
    hu = np.full((canvas.side, canvas.side), _AIR, np.float32)
    x, front, back = _SKIN_X[level], _SKIN_FRONT[level], _SKIN_BACK[level]
    middle, half = (front + back) / 2, (back - front) / 2
    canvas.fill(hu, -300, _ribbon([(-90, back + 5), (90, back + 5)], 3))  # the table
    for value, inset in ((_MUSCLE, 0), (_FAT, 2), (_MUSCLE, about.fat)):  # skin, fat, muscle
        canvas.fill(hu, value, _oval(0, middle, x - inset, half - inset, 2.4))
    planes = [_ribbon(_arc((0, 4), (a, 32), 30, 85), 2) for a in (24, 36)]
    planes += [_ribbon([(30, -14), (44, -24), (48, -40)], 3), _oval(31, -24, 8, 8)]
    canvas.fill(hu, _FAT, *_mirror(*planes))
    blood = rng.uniform(50, 160)  # HU without and with contrast agent
    canvas.fill(hu, blood, *_mirror(_oval(29, -27, 3.5, 3.5), _oval(33, -21, 4, 3.5)))
    wide, deep = (11, 6) if level < 5 else (9, 9)  # pharynx, then windpipe
    canvas.fill(hu, _AIR, _oval(0, -45, wide * rng.uniform(0.7, 1.2), deep))
    canvas.fill(hu, _FLUID, _oval(0, 0.5, 16, 18))
    return canvas.fill(hu, _CORD, _oval(0, 0.5, 7, 5))


def _distractors(hu: np.ndarray, canvas: _Canvas, level: int, rng: np.random.Generator) -> None:
    if level >= 2 and rng.random() < 0.6:  # basivertebral vein: smooth, tapered, ends inside
        start, end = -7 - rng.uniform(0, 1), -8.5 - _BODY_Y[level - 2] * rng.uniform(0.8, 1.4)
        path = [(0, start), (rng.normal(0, 1), (start + end) / 2), (rng.normal(0, 2), end)]
        canvas.fill(hu, rng.uniform(100, 180), _ribbon(path, rng.uniform(2, 3.5), 1.5, 0.3))
    for _ in range(rng.poisson(1.0)):
        x, y, a, b = rng.uniform((-14, -26, 1, 1), (14, -10, 2.4, 2.4))
        canvas.fill(hu, rng.uniform(700, 1100), _oval(x, y, a, b))


def _fracture(
    hu: np.ndarray, bone: np.ndarray, canvas: _Canvas, site: _Site, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Breaks one bone: a jagged lucent line, or a fragment moved outwards by a few mm."""
    turn = np.deg2rad(site.outward + rng.uniform(-25, 25))
    out, along = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    steps = np.linspace(-site.reach, site.reach, max(5, int(site.reach)))[:, None]
    jagged = rng.uniform(-1.3, 1.3, steps.shape)
    path = (site.x, site.y) + rng.normal(0, 0.8, 2) + steps * along + jagged * out
    lucent = np.float32(rng.uniform(*_LUCENT))
    edges = canvas.region(_ribbon(path, *rng.uniform(*_EDGES, len(path)))) > 0
    hu = np.where(edges & bone, np.maximum(hu, np.float32(rng.uniform(*_DENSE))), hu)
    if site.depth == 0 or rng.random() < 0.5:
        gap = bone & (canvas.region(_ribbon(path, *rng.uniform(*_LINE, len(path)))) > 0)
        return np.where(gap, lucent, hu), gap
    move = out * rng.uniform(*_GAP)
    beyond = canvas.region(np.concatenate([path, path[::-1] + out * site.depth]))
    start, end = canvas.place(np.stack([path[0], path[0] + move])) / 16
    shift = np.array([[1, 0, end[0] - start[0]], [0, 1, end[1] - start[1]]])
    piece = bone & (beyond > 0)
    moved = cv2.warpAffine(piece.astype(np.uint8), shift, piece.shape, flags=cv2.INTER_NEAREST) > 0
    hu = np.where(moved, cv2.warpAffine(hu, shift, piece.shape), np.where(piece, lucent, hu))
    return hu, piece & ~moved


def _scan(hu: np.ndarray, about: _Patient, level: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the windowed uint8 picture: point spread, streaks, correlated noise."""
    n, scale = about.pixels, about.pixels / about.view
    picture: np.ndarray = np.zeros((n, n), np.float32)
    for _ in range(rng.poisson(3)):  # beam hardening: broad, faint streaks across the picture
        left, right = rng.uniform(0.1, 0.9, 2) * n
        value, thick = rng.normal(0, about.streaks), int(rng.uniform(2, 5) * scale)
        cv2.line(picture, (0, int(left)), (n, int(right)), (value,), thick)
    picture = cv2.GaussianBlur(picture, (0, 0), 1.5 * scale)
    hu = cv2.resize(hu, (n, n), interpolation=cv2.INTER_AREA)
    picture = picture + cv2.GaussianBlur(hu, (0, 0), about.blur * scale)
    white, grain = rng.standard_normal((2, n, n), np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.9)  # reconstruction filters correlate neighbours
    sigma = about.noise * (1.4 if level == len(LEVELS) - 1 else 1)  # shoulders absorb more
    picture = picture + sigma * (0.5 * white + 0.85 / grain.std() * grain)
    centre, width = about.window
    return np.clip((picture - centre) * (255 / width) + 127.5, 0, 255).astype(np.uint8)
