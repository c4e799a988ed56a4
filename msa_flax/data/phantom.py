"""Synthetic axial neck CT: simulated patients whose only sign of the label is the fracture.

Values are Hounsfield units until the last step, the display window. The fracture has a random
stream of its own, so that a slice with its fracture and without it is otherwise the same picture.
Fractures are darker than real ones, so that a small network can learn them, and their edges are
denser, so that mean and thumbnail do not tell the label.
"""

import dataclasses
import itertools

import cv2
import numpy as np

from msa_flax.data import anatomy
from msa_flax.data.anatomy import LEVELS, Site
from msa_flax.data.drawing import FINE, Canvas, oval, ribbon, turned
from msa_flax.files import UserError

_LUCENT, _DENSE = (-450, -250), (1000, 1400)  # HU of a fracture line and its edges, exaggerated
_LINE, _EDGES = (3.0, 4.0), (6.5, 8.5)  # mm, width of the line, and of the line with its edges
_GAP = (3.5, 5.0)  # mm, how far a fragment is moved


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


def _canvas(about: _Patient, rng: np.random.Generator) -> Canvas:
    """Returns a grid of its own for every slice: turned, shifted, with an outline of its own."""
    side = FINE * about.pixels
    scale = side / about.view
    matrix = about.size * scale * turned(np.clip(rng.normal(0, 6), -15, 15))
    origin = (about.view / 2 + rng.normal(0, 2, 2) + (0, 3)) * scale
    waves, phases = rng.uniform(0.04, 0.16, (2, 3)), rng.uniform(0, 6.3, 3)
    return Canvas(
        side=side,
        scale=scale,
        matrix=matrix,
        origin=origin,
        waves=waves,
        phases=phases,
        bend=rng.normal(0, 0.7, (3, 2)),
    )


def _tissue(
    about: _Patient, level: int, rng: np.random.Generator, crack: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns HU float32 and the fracture as bool, both [side, side] on the fine grid."""
    canvas = _canvas(about, rng)
    soft = _soft_tissue(canvas, about, level, rng)
    base = (anatomy.skull_base, anatomy.atlas)
    skeleton = base[level]() if level < 2 else anatomy.vertebra(level)
    jaw = anatomy.jaw(level)
    other = [ribbon(jaw, 11, 8, 8, 11)][: int(level < 3)]
    bone = canvas.region(*itertools.chain(*skeleton.parts.values(), other))
    canvas.fill(bone, 0, *itertools.chain(*skeleton.holes.values()))
    bone = cv2.GaussianBlur(bone, (0, 0), 0.8 * canvas.scale) > 127  # rounds corners and joints
    depth = cv2.distanceTransform(bone.astype(np.uint8), cv2.DIST_L2, 3) / canvas.scale
    shell = np.clip(1.3 - depth / about.cortex, 0, 1)
    marrow, cortex = about.density * rng.normal((anatomy.MARROW, anatomy.CORTEX), (30, 80)).astype(
        np.float32
    )
    grain = cv2.resize(rng.standard_normal((40, 40), np.float32), bone.shape) * 40
    hounsfield = np.where(bone, marrow + (cortex - marrow) * shell + grain, soft + grain / 4)
    _distractors(hounsfield, canvas, level, rng)
    if level in (1, 2):
        canvas.fill(hounsfield, anatomy.TOOTH, *(oval(x, y, 2.6, 3) for x, y in jaw[3:-2:2]))
    if crack is None:
        return hounsfield, np.zeros(bone.shape, bool)
    sites = skeleton.all_sites()
    return _fracture(hounsfield, bone, canvas, sites[crack.integers(len(sites))], crack)


def _soft_tissue(
    canvas: Canvas, about: _Patient, level: int, rng: np.random.Generator
) -> np.ndarray:
    hu = np.full((canvas.side, canvas.side), anatomy.AIR, np.float32)
    back = anatomy.skin(level)[2]
    canvas.fill(hu, -300, ribbon([(-90, back + 5), (90, back + 5)], 3))  # the table
    blood = rng.uniform(50, 160)  # HU without and with contrast agent
    airway = rng.uniform(0.7, 1.2)
    for value, polygons in anatomy.soft_tissue(level, fat=about.fat, blood=blood, airway=airway):
        canvas.fill(hu, value, *polygons)
    return hu


def _distractors(hu: np.ndarray, canvas: Canvas, level: int, rng: np.random.Generator) -> None:
    if level >= 2 and rng.random() < 0.6:  # basivertebral vein: smooth, tapered, ends inside
        start, end = (
            -7 - rng.uniform(0, 1),
            -8.5 - anatomy.body_depth(level) * rng.uniform(0.8, 1.4),
        )
        path = [(0, start), (rng.normal(0, 1), (start + end) / 2), (rng.normal(0, 2), end)]
        canvas.fill(hu, rng.uniform(100, 180), ribbon(path, rng.uniform(2, 3.5), 1.5, 0.3))
    for _ in range(rng.poisson(1.0)):
        x, y, a, b = rng.uniform((-14, -26, 1, 1), (14, -10, 2.4, 2.4))
        canvas.fill(hu, rng.uniform(700, 1100), oval(x, y, a, b))


def _fracture(
    hu: np.ndarray, bone: np.ndarray, canvas: Canvas, site: Site, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Breaks one bone: a jagged lucent line, or a fragment moved outwards by a few mm."""
    turn = np.deg2rad(site.outward + rng.uniform(-25, 25))
    out, along = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    steps = np.linspace(-site.reach, site.reach, max(5, int(site.reach)))[:, None]
    jagged = rng.uniform(-1.3, 1.3, steps.shape)
    path = (site.x, site.y) + rng.normal(0, 0.8, 2) + steps * along + jagged * out
    lucent = np.float32(rng.uniform(*_LUCENT))
    edges = canvas.region(ribbon(path, *rng.uniform(*_EDGES, len(path)))) > 0
    hu = np.where(edges & bone, np.maximum(hu, np.float32(rng.uniform(*_DENSE))), hu)
    if site.depth == 0 or rng.random() < 0.5:
        gap = bone & (canvas.region(ribbon(path, *rng.uniform(*_LINE, len(path)))) > 0)
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
