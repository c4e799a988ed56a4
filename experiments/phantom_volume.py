"""A volume of the phantom: a neck from the skull base to T1, whose only sign is the fracture.

Height z is in mm down from the top of the volume. Every fracture is a jagged sheet, cut by several
slices. It is as likely at one height as at another, and has a random stream of its own: a study
with its fractures and without them is otherwise the same.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from phantom_bones import MIDDLES, T1, draw_bones, make_pieces
from phantom_fractures import Fracture, draw_fracture

from msa_flax.data import anatomy
from msa_flax.data.drawing import FINE, Canvas, arc, oval, ribbon, turned
from msa_flax.files import UserError

LENGTH = 147.0  # mm: the volume ends where C7 still shows, so that no height is without its bones
MOST_LEVELS = 3  # fractured ones in a study
FEWEST = 4  # slices that show a fracture
_STREAM = 0x57D4  # keeps these draws apart from those of single slices
_KIND = ("study", "fractures", "noise")
# HU, first and last level, outline: hyoid, thyroid and cricoid cartilage.
_CARTILAGES = (
    (600, 2.9, 3.2, ribbon(arc((0, -45), (18, 13), 160, 380), 4)),
    (220, 4.1, 5.4, ribbon(arc((0, -43), (15, 13), 190, 350), 3)),
    (220, 5.4, 5.9, ribbon(arc((0, -45), (12, 11), 0, 360), 3)),
)
_LIMITS = {
    "seed": (0, 2**32 - 1),
    "matrix": (64, 1024),  # pixels
    "step": (0.2, 1.0),  # mm
    "contrast": (0, 3000),  # HU
    "width": (0.2, 6),  # mm
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all studies of a set share."""

    seed: int = 0  # 0 .. 2**32 - 1
    matrix: int = 256  # pixels, side of the slices
    step: float = 1.0  # mm between slices
    contrast: float = 700.0  # HU, how much darker than the bone a fracture is
    width: float = 2.0  # mm, of a fracture at its middle

    def check(self) -> None:
        """Raises UserError if a setting is outside its range."""
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"{name}: expected a number from {low} to {high}, got {value}")


class VolumeSlice(NamedTuple):
    """One slice of a volume."""

    hounsfield: np.ndarray  # int16 [h, w], HU
    mask: np.ndarray  # uint8 [h, w], the number of the fractured vertebra where its fracture is
    vertebrae: np.ndarray  # uint8 [h, w], 1 .. 7 = C1 .. C7, 8 = T1, 0 elsewhere


class Volume:
    """A study of the phantom; its slices are drawn one by one, in any order.

    Args:
        settings: what all studies share.
        number: the study's number, 0 .. 2**32 - 1; other studies need not be drawn.
        fractured: whether it has fractures, of 1 to 3 levels.

    Raises:
        UserError: a setting outside its range.
    """

    def __init__(self, settings: Settings, number: int, *, fractured: bool) -> None:
        settings.check()
        self.settings = settings
        self.number = number
        self._draw_study(self._stream(0, "study"))
        rng = self._stream(0, "fractures")
        self._fractures = self._draw_fractures(rng) if fractured else []

    def __len__(self) -> int:
        return int(self.length / self.settings.step)

    @property
    def spacing(self) -> float:
        """Millimetres between the centres of two pixels."""
        return self.view / self.settings.matrix

    @property
    def levels(self) -> list[int]:
        """The fractured levels, 1 .. 7 = C1 .. C7, in order."""
        return sorted(fracture.number for fracture in self._fractures)

    def height(self, index: int) -> float:
        """Returns how far (mm) a slice lies below the top of the volume."""
        return (index + 0.5) * self.settings.step

    def slices(self) -> Iterator[VolumeSlice]:
        """Draws all slices, skull base first."""
        return map(self.draw, range(len(self)))

    def draw(self, index: int) -> VolumeSlice:
        """Draws one slice, 0 at the skull base."""
        z = self.height(index)
        canvas = self._canvas(z)
        owner, hu = self._tissue(canvas, z)
        mask = np.zeros_like(owner)
        for fracture in self._fractures:
            gap = self._gap(fracture, canvas, z, owner)
            if gap.any():
                hu[gap] = np.maximum(hu[gap] - np.float32(self.settings.contrast), -1000)
                mask[gap] = fracture.number
        mask = _reduced(mask, self.settings.matrix)
        return VolumeSlice(
            hounsfield=self._scan(hu, z, self._stream(index, "noise")),
            mask=mask,
            vertebrae=np.where(mask > 0, mask, np.where(owner <= T1, owner, 0)[::FINE, ::FINE]),
        )

    def _stream(self, index: int, kind: str) -> np.random.Generator:
        key = (self.settings.seed, self.number, index, _KIND.index(kind), _STREAM)
        return np.random.default_rng(key)

    def _draw_study(self, rng: np.random.Generator) -> None:
        self.view = rng.uniform(140, 170)  # mm, side of the field of view
        self.size = rng.uniform(0.92, 1.08)  # factor on every length of the body
        self.density = rng.uniform(0.88, 1.15)  # factor on bone's HU
        self.cortex = rng.uniform(1.3, 2.0)  # mm, thickness of the dense shell of a bone
        self.noise = rng.uniform(20, 50)  # HU, standard deviation; a sharp kernel
        self.blur = rng.uniform(0.3, 0.5)  # mm, the scanner's point spread
        self.streaks = rng.uniform(5, 30)  # HU
        stretch = self.size * rng.uniform(0.95, 1.05)
        self.length = LENGTH * stretch
        self._middles = np.array(MIDDLES) * stretch
        self._turn, self._twist = rng.normal(0, 4), rng.normal(0, 0.02)  # degrees, and per mm
        tilt, roll = np.tan(np.deg2rad(np.clip(rng.normal(0, (5, 2.5)), -10, 10)))
        self._shift = rng.normal((0, 2), 4)  # mm
        self._curve = rng.normal((0.5, -5), (1.5, 3))  # mm sideways and forwards: lordosis
        self._waves, self._phases = rng.uniform(0.04, 0.12, (2, 3)), rng.uniform(0, 6.3, 3)
        self._bend, self._climb = rng.normal(0, 0.8, (3, 2)), rng.normal(0, 0.05, 3)
        self._soft = {
            "fat": rng.uniform(3, 12),
            "blood": rng.uniform(40, 60) if rng.random() < 0.7 else rng.uniform(120, 250),
            "airway": rng.uniform(0.7, 1.2),
        }
        self._hu = self.density * rng.normal((anatomy.MARROW, anatomy.CORTEX), (30, 80))  # HU
        self._grain = rng.standard_normal((int(self.length / 3) + 2, 48, 48), np.float32)
        self._table = rng.uniform(62, 84), rng.uniform(-930, -850)  # mm from the middle, HU of foam
        self._collar = rng.uniform(-80, 120) if rng.random() < 0.4 else None  # HU
        self._veins = rng.uniform(0, 3.5, 9) * (rng.random(9) < 0.6)  # mm
        count = rng.poisson(12)  # islands of dense bone: x, y, height, radius in mm; HU
        low, high = (-16, -28, 0, 0.8, 700), (16, 10, self.length, 2.2, 1200)
        self._islands = rng.uniform(low, high, (count, 5))
        bow = self._curve[1] * np.pi / self.length
        slopes = tilt - bow * np.cos(np.pi * self._middles / self.length)
        self._pieces = make_pieces(stretch, slopes.tolist(), roll, rng)

    def _canvas(self, z: float) -> Canvas:
        scale = FINE / self.spacing
        bow = np.sin(np.pi * z / self.length)
        turn = self._turn + self._twist * (z - self.length / 2)
        return Canvas(
            side=FINE * self.settings.matrix,
            scale=scale,
            matrix=self.size * scale * turned(turn),
            origin=(self.view / 2 + self._shift + self._curve * bow) * scale,
            waves=self._waves,
            phases=self._phases + self._climb * z,
            bend=self._bend,
        )

    def _level(self, z: float) -> float:
        return float(np.interp(z, self._middles, range(9)))

    def _tissue(self, canvas: Canvas, z: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns whose bone each grid point is, and HU float32, both on the fine grid."""
        owner, ends = draw_bones(canvas, self._pieces, z)
        soft = self._soft_tissue(canvas, z)
        solid = cv2.GaussianBlur(
            np.where(owner > 0, 255, 0).astype(np.uint8), (0, 0), 0.6 * canvas.scale
        )
        bone = solid > 127  # rounds corners
        inside = cv2.distanceTransform(bone.astype(np.uint8), cv2.DIST_L2, 3) / canvas.scale
        inside = np.minimum(inside, cv2.blur(ends, (5, 5)) * np.float32(1 / 16))
        shell = np.clip(1.3 - inside / self.cortex, 0, 1)
        low, part = int(z / 3), np.float32(z / 3 % 1)
        grain = (1 - part) * self._grain[low] + part * self._grain[low + 1]
        grain = cv2.resize(grain, bone.shape) * 40
        marrow, cortex = self._hu.astype(np.float32)
        hu = np.where(bone, marrow + (cortex - marrow) * shell + grain, soft + grain / 4)
        self._details(canvas, z, hu)
        return np.where(bone, owner, 0), hu

    def _soft_tissue(self, canvas: Canvas, z: float) -> np.ndarray:
        hu = np.full((canvas.side, canvas.side), anatomy.AIR, np.float32)
        level = self._level(z)
        x, front, back = anatomy.skin(min(level, 7))
        still = dataclasses.replace(  # the table stays where it is
            canvas,
            matrix=np.eye(2) * canvas.scale,
            origin=np.full(2, canvas.side / 2),
            bend=np.zeros((3, 2)),
        )
        top, foam = self._table
        bowl = np.concatenate([arc((0, 10), (78, top - 10), 0, 180), [(-90, 95), (90, 95)]])
        still.fill(hu, foam, bowl)
        still.fill(hu, -300, ribbon(arc((0, 10), (78, top - 10), 0, 180), 1.5))
        if self._collar is not None and 2 < level < 6.8:
            outer = arc((0, (front + back) / 2), (x + 6, (back - front) / 2 + 6), 150, 390)
            canvas.fill(hu, self._collar, ribbon(outer, 4))
        for value, outlines in anatomy.soft_tissue(level, **self._soft):
            canvas.fill(hu, value, *outlines)
        for value, first, last, outline in _CARTILAGES:
            if first < level < last:
                canvas.fill(hu, value, outline)
        gap = [k for k in range(2, 8) if self._middles[k] < z < self._middles[k + 1]]
        for k in gap:  # a disc; the bodies are drawn over it
            depth = anatomy.body_depth(k)
            canvas.fill(hu, 90, oval(0, -8.5 - depth, 1.6 * depth, depth, 2.7))
        return hu

    def _details(self, canvas: Canvas, z: float, hu: np.ndarray) -> None:
        """Draws veins, islands of dense bone and teeth: what is no fracture."""
        for k in range(2, 9):
            wide = 1 - ((z - self._middles[k]) / 3) ** 2
            if wide > 0 and self._veins[k]:
                end = -8.5 - 1.2 * anatomy.body_depth(k)
                vein = ribbon([(0, -7.5), (0.5, end / 2 - 4), (1, end)], 1.0, 0.6, 0.1)
                vein *= (self._veins[k] * wide, 1)
                canvas.fill(hu, 150, vein)
        for x, y, height, radius, value in self._islands:
            left = radius**2 - (z - height) ** 2
            if left > 0.1:
                canvas.fill(hu, value, oval(x, y, left**0.5, left**0.5))
        if 0.7 < self._level(z) < 1.7:
            teeth = anatomy.jaw(self._level(z))[3:-2:2]
            canvas.fill(hu, anatomy.TOOTH, *(oval(x, y, 2.6, 3) for x, y in teeth))

    def _draw_fractures(self, rng: np.random.Generator) -> list[Fracture]:
        wanted = 1 + int(rng.choice(MOST_LEVELS, p=(0.6, 0.3, 0.1)))
        found: list[Fracture] = []
        while len(found) < wanted:
            z = float(np.clip(rng.uniform(-4, self.length + 4), 2, self.length - 2))
            for _ in range(30):  # another bone, or another way through it, at the same height
                one = draw_fracture(self._pieces, z, rng)
                if one and one.number not in [f.number for f in found] and self._seen(one):
                    found.append(one)
                    break
        return found

    def _seen(self, fracture: Fracture) -> bool:
        """Whether enough slices show a fracture."""
        step, seen = self.settings.step, 0
        first = max(0, int((fracture.middle - fracture.half) / step))
        last = min(len(self), int((fracture.middle + fracture.half) / step) + 1)
        for z in map(self.height, range(first, last)):
            canvas = self._canvas(z)
            owner = draw_bones(canvas, self._pieces, z)[0]
            seen += int(self._gap(fracture, canvas, z, owner).any())
        return seen >= FEWEST

    def _gap(self, fracture: Fracture, canvas: Canvas, z: float, owner: np.ndarray) -> np.ndarray:
        return fracture.gap(canvas, z, owner, self.settings.width / self.size)

    def _scan(self, hu: np.ndarray, z: float, rng: np.random.Generator) -> np.ndarray:
        """Returns HU, int16: point spread, streaks, and noise as a sharp kernel correlates it."""
        n, scale = self.settings.matrix, 1 / self.spacing
        shoulders = float(np.clip(self._level(z) - 6, 0, 2)) / 2
        picture: np.ndarray = np.zeros((n, n), np.float32)
        for _ in range(rng.poisson(2 + 4 * shoulders)):
            left, right = rng.uniform(0.1, 0.9, 2) * n
            value, thick = rng.normal(0, self.streaks), int(rng.uniform(2, 5) * scale)
            cv2.line(picture, (0, int(left)), (n, int(right)), (value,), max(1, thick))
        picture = cv2.GaussianBlur(picture, (0, 0), 1.5 * scale)
        hu = cv2.resize(hu, (n, n), interpolation=cv2.INTER_AREA)
        picture = picture + cv2.GaussianBlur(hu, (0, 0), self.blur * scale)
        white = rng.standard_normal((n, n), np.float32)
        grain = cv2.GaussianBlur(white, (0, 0), 0.6)
        grain = grain - np.float32(0.7) * cv2.GaussianBlur(white, (0, 0), 2.0)
        picture += np.float32(self.noise * (1 + 0.6 * shoulders) / grain.std()) * grain
        return np.clip(np.rint(picture), -1024, 3071).astype(np.int16)


def _reduced(mask: np.ndarray, side: int) -> np.ndarray:
    """Returns a mask of the pixels that are at least half covered, with the mask's numbers."""
    reduced = np.zeros((side, side), np.uint8)
    for value in np.unique(mask[mask > 0]):
        part = cv2.resize(
            (mask == value).astype(np.float32), (side, side), interpolation=cv2.INTER_AREA
        )
        reduced[part >= min(0.5, part.max())] = value
    return reduced
