"""The bones of a volume of the phantom: outlines of the anatomy, each between two heights.

Height z is in mm down from the top of the volume. What a slice shows follows from its height, so
neighbouring slices show the same bones.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from msa_flax.data import anatomy
from msa_flax.data.anatomy import Bone, Site
from msa_flax.data.drawing import Canvas, arc, ribbon

T1, JAW, SKULL = 8, 9, 10  # numbers of bones; 1 .. 7 = C1 .. C7
JOINT = 1.6  # mm of cartilage around a bone
# Heights (mm) of the middle of C0 .. C7 and T1, and half the height of each.
MIDDLES = (-4.0, 13.0, 33.0, 54.0, 72.5, 91.0, 110.0, 129.5, 150.0)
_HALVES = (7.0, 7.0, 9.5, 7.0, 7.0, 7.0, 7.0, 7.5, 8.5)
_Heights = dict[str, tuple[float, float, float]]
# Part: first and last height from the middle of its vertebra (mm for a half height of 7), and how
# many mm its outline moves back per mm down.
_SKULL_BASE: _Heights = {
    "petrous": (-30, 14, 0),
    "condyles": (-30, 12, 0),
    "back": (-40, 26, -0.4),
    "crest": (-40, 10, 0),
    "clivus": (-30, 9, 0.3),
    "rim": (-30, 8, 0),
}
_ATLAS: _Heights = {
    "masses": (-8, 9, 0),
    "transverse": (-4, 5, 0),
    "front": (-6, 6, 0),
    "back": (-4, 6, 0),
    "dens": (-12, 18, 0),
}
_VERTEBRA: _Heights = {
    "body": (-7, 7, 0),
    "pedicles": (-6, 2, 0),
    "transverse": (-5, 3, 0.2),
    "pillars": (-11, 11, 0.35),  # joints: the upper vertebra's behind the lower one's
    "laminae": (-3, 10, 0.2),
    "spinous": (-2, 10, 0),
    "tips": (4, 12, 0),
    "rib": (-8, 6, 0),
}
_SQUARE = {"body": 10.0, "jaw": 10.0}  # power of the taper; other parts are rounder
_SLANT = 2.2  # mm that each quarter of a spinous process lies lower than the one before it


class Piece(NamedTuple):
    """One outline between two heights."""

    number: int  # of the bone
    part: str
    outline: np.ndarray  # mm [n, 2], at the middle height
    middle: float  # mm, height
    half: float  # mm, half its extent in height
    lean: float  # mm back per mm down

    def at(self, z: float) -> tuple[float, np.ndarray] | None:
        """Returns the distance (mm) to the nearer end, and the outline at a height, if any."""
        u = abs(z - self.middle) / self.half
        if u >= 1:
            return None
        power = _SQUARE.get(self.part, 4.0)
        size = max(0.5, (1 - u**power) ** (1 / power))
        centre = self.outline.mean(axis=0)
        moved = centre + np.array((0.0, self.lean * (z - self.middle)))
        return (1 - u) * self.half, (self.outline - centre) * size + moved


def make_pieces(
    stretch: float, tilts: Sequence[float], roll: float, rng: np.random.Generator
) -> list[Piece]:
    """Returns every bone of a neck.

    Args:
        stretch: factor on all heights.
        tilts: mm down per mm back, one for each of C0 to T1.
        roll: mm down per mm to the right.
        rng: the shapes of the vertebrae vary a little.
    """
    pieces = [Piece(JAW, "jaw", ribbon(anatomy.jaw(1), 11, 8, 8, 11), 20, 22, 0.25)]
    for number, (middle, half) in enumerate(zip(MIDDLES, _HALVES, strict=True)):
        bone, heights = _bone(number, number + rng.uniform(-0.4, 0.4))
        for part, outline, down in _outlines(bone):
            first, last, lean = heights[part]
            x, y = outline.mean(axis=0)
            height = middle + ((first + last) / 2 + down) * half / 7
            pieces.append(
                Piece(
                    number=2 if part == "dens" else number or SKULL,
                    part=part,
                    outline=outline,
                    middle=stretch * height + tilts[number] * y + roll * x,
                    half=stretch * (last - first) / 2 * half / 7,
                    lean=lean,
                )
            )
    return pieces


def sites_at(pieces: Sequence[Piece], z: float) -> list[tuple[Site, Piece]]:
    """Returns where C1 to C7 may break at a height, each with the piece that is there."""
    found = []
    for number in range(1, 8):
        for site in _bone(number, number)[0].all_sites():
            owner = 2 if site.part == "dens" else number
            near = [
                piece
                for piece in pieces
                if (piece.number, piece.part) == (owner, site.part)
                and abs(z - piece.middle) < piece.half - 1
            ]
            if near:
                place = np.array((site.x, site.y))
                found.append((site, min(near, key=lambda one: _distance(one, place))))
    return found


def draw_bones(canvas: Canvas, pieces: Sequence[Piece], z: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns whose bone each grid point is, and how near its end in height is, at a height.

    Returns:
        The number of the bone, 0 for none, and the distance in 1/16 mm, at most 255; both uint8.
    """
    owner = np.zeros((canvas.side, canvas.side), np.uint8)
    ends = np.zeros_like(owner)
    present: dict[int, list[tuple[float, np.ndarray]]] = {}
    for piece in pieces:
        found = piece.at(z)
        if found is not None:
            present.setdefault(piece.number, []).append(found)
    joint = max(1, round(2 * JOINT * canvas.scale))  # half of a line's width lies outside
    for number, found_here in sorted(present.items(), reverse=True):  # the skull is below all
        for _, outline in found_here:
            cv2.polylines(owner, [canvas.place(outline)], True, (0,), joint, shift=4)
        for end, outline in sorted(found_here, key=lambda one: one[0]):
            canvas.fill(owner, number, outline)
            canvas.fill(ends, min(255, round(16 * end)), outline)
        owner[(canvas.region(*_holes(number)) > 0) & (owner == number)] = 0
    return owner, ends


def _bone(number: int, shape: float) -> tuple[Bone, _Heights]:
    """Returns the outlines of a bone of the spine and their heights; 0 is the skull."""
    if number == 0:
        return anatomy.skull_base(), _SKULL_BASE
    if number == 1:
        return anatomy.atlas(), _ATLAS
    bone = anatomy.vertebra(float(np.clip(shape, 2, 6.99 if number < 7 else 8)))
    if number == T1:
        rib = ribbon(arc((40, -30), (22, 24), 140, -30), 9, 8, 7)
        bone.parts["rib"] = [rib, rib * (-1, 1)]
    return bone, _VERTEBRA


def _holes(number: int) -> list[np.ndarray]:
    if number == JAW:
        return []
    holes = _bone(0 if number == SKULL else number, number)[0].holes
    return [outline for outlines in holes.values() for outline in outlines]


def _outlines(bone: Bone) -> Iterator[tuple[str, np.ndarray, float]]:
    """Yields each part's name, outline and how much lower it lies (mm): spines point downwards."""
    for part, outlines in bone.parts.items():
        for outline in outlines:
            if part != "spinous":
                yield part, outline, 0.0
                continue
            cuts = np.linspace(outline[:, 1].min(), outline[:, 1].max(), 5)
            for k, (front, back) in enumerate(zip(cuts[:-1] - 1, cuts[1:] + 1, strict=True)):
                yield part, np.clip(outline, (-np.inf, front), (np.inf, back)), k * _SLANT


def _distance(piece: Piece, place: np.ndarray) -> float:
    return float(np.abs(piece.outline - place).sum(axis=1).min())
