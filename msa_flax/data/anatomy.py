"""A schematic of the neck in axial outlines, of our own: bones by level, soft tissue around them.

Lengths and polygons are those of ``drawing.py``, values are Hounsfield units. A level is the number
of a vertebra, 0 at the skull base and 8 at T1; numbers between two levels lie between their shapes.
"""

from typing import NamedTuple

import numpy as np

from msa_flax.data.drawing import arc, mirror, oval, ribbon

AIR, FAT, FLUID, CORD, MUSCLE, TOOTH = -1000.0, -100.0, 15.0, 40.0, 55.0, 2000.0  # HU
MARROW, CORTEX = 380, 1100  # HU
LEVELS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C7")  # C0: the skull base
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


class Site(NamedTuple):
    """Where a bone may break; the line is at right angles to ``outward``."""

    part: str  # a name in :attr:`Bone.parts`
    x: float  # mm
    y: float
    outward: float  # degrees, 0 = right, 90 = back
    reach: float  # mm, half the length of the line
    depth: float = 0.0  # mm of bone beyond the line that may be displaced; 0: never


class Bone(NamedTuple):
    """The outlines of a bone's parts, as if all of them lay in one axial plane."""

    parts: dict[str, list[np.ndarray]]  # polygons by the name of the part, filled together
    holes: dict[str, list[np.ndarray]]  # polygons, taken out of the parts
    sites: list[Site]  # midline
    pairs: list[Site]  # right side; the left ones mirror them

    def all_sites(self) -> list[Site]:
        """Returns the sites of both sides."""
        left = [site._replace(x=-site.x, outward=180 - site.outward) for site in self.pairs]
        return [*self.sites, *self.pairs, *left]


def skull_base() -> Bone:
    """C0: foramen magnum, clivus, condyles, petrous bones and the back of the skull."""
    return Bone(
        parts={
            "petrous": mirror(ribbon([(13, -26), (30, -14), (52, 2)], 8, 14, 24)),
            "condyles": mirror(oval(19, -3, 8, 14)),
            "back": [ribbon(arc((0, -8), (58, 60), 8, 172), 7)],
            "crest": [ribbon([(0, 20), (0, 50)], 12, 6)],
            "clivus": [np.array([(-14, -14), (14, -14), (10, -38), (-10, -38)])],
            "rim": [oval(0, 2, 27, 25)],
        },
        holes={
            "foramen": [oval(0, 2, 14, 16)],
            "cells": mirror(oval(46, -3, 2.2, 1.8), oval(52, 2, 2, 2), oval(50, 9, 2, 2)),
        },
        sites=[Site("clivus", 0, -26, -90, 22), Site("rim", 0, 24, 90, 17)],
        pairs=[Site("condyles", 20, -3, -60, 18), Site("rim", 17, 17, 45, 15)],
    )


def atlas() -> Bone:
    """C1: two arches, two lateral masses, and the dens of C2 between them."""
    front, back = arc((0, -4), (21, 20), -160, -20), arc((0, 1), (20, 21), 10, 170)
    return Bone(
        parts={
            "masses": mirror(oval(20, -6, 8, 11, 2.6)),
            "transverse": mirror(ribbon([(24, -5), (36, -3)], 14, 8)),
            "front": [ribbon(front, 7, 8, 7)],
            "back": [ribbon(back, 8, 7, 8)],
            "dens": [oval(0, -13, 6.5, 6)],
        },
        holes={"arteries": mirror(oval(29.5, -4, 3, 3.2))},
        sites=[Site("front", 0, -19, 0, 14), Site("dens", 0, -13, -90, 13)],
        pairs=[
            Site("masses", 20, -6, -35, 19),
            Site("back", 19, 8, 160, 14),
            Site("transverse", 27, -4, 20, 14, 14),
        ],
    )


def vertebra(number: float) -> Bone:
    """C2 to C7: body, pedicles, articular pillars, laminae, spinous and transverse processes."""
    a, b, spinous, width, reach = (
        float(np.interp(number, range(2, 8), sizes))
        for sizes in (_BODY_X, _BODY_Y, _SPINOUS, _SPINOUS_WIDTH, _TRANSVERSE)
    )
    middle, tip = -8.5 - b, 11 + spinous
    parts = {
        "body": [oval(0, middle, a, b, 2.7)],
        "pedicles": mirror(ribbon([(11, -11), (18, -3)], 8)),
        "transverse": mirror(ribbon([(a - 3, middle + 3), (18, -12), (reach, -7)], 8, 12, 7)),
        "pillars": mirror(oval(17.5, -0.5, 6.5, 7.5, 2.4)),
        "laminae": mirror(ribbon([(16, 3), (6, 10.5), (0, 14)], 8, 7, 8)),
        "spinous": [ribbon([(0, 10), (0, tip)], width + 2, width)],
    }
    holes = {"canal": [oval(0, 0.5, 11, 9, 2.3)]}
    if number < 7:  # only the last has one spinous tip and no vertebral artery
        parts["tips"] = mirror(ribbon([(1, tip - 5), (6, tip + 2)], 6, 5))
        holes["arteries"] = mirror(oval(18, -10.5, 2.8, 2.5))
    return Bone(
        parts=parts,
        holes=holes,
        sites=[
            Site("body", 0, middle, -90, 1.5 * a),
            Site("spinous", 0, 8 + 0.55 * spinous, 90, 12, 30),
        ],
        pairs=[
            Site("body", 0.3 * a, middle, -30, 1.5 * a),
            Site("body", 0.5 * a, middle - 0.35 * b, -50, 15, 12),
            Site("laminae", 12.5, 5, 175, 15),
            Site("pillars", 17.5, -1, 20, 16),
        ],
    )


def body_depth(level: float) -> float:
    """Returns half the depth of the vertebral body at a level from C2 on (mm)."""
    return float(np.interp(level, range(2, 8), _BODY_Y))


def skin(level: float) -> tuple[float, float, float]:
    """Returns half the width of the neck, its front end and its back end (mm)."""
    x, front, back = (
        float(np.interp(level, range(8), sizes)) for sizes in (_SKIN_X, _SKIN_FRONT, _SKIN_BACK)
    )
    return x, front, back


def jaw(level: float) -> np.ndarray:
    """Returns the middle line of the lower jaw, [24, 2]; it belongs to levels below 3."""
    return arc((0, -34), (50, 46 - 6 * level), 170, 370)


def soft_tissue(
    level: float, *, fat: float, blood: float, airway: float
) -> list[tuple[float, list[np.ndarray]]]:
    """Returns what is not bone as (HU, polygons), each to be filled over those before it.

    Args:
        level: 0 (skull base) to 8.
        fat: mm, the skin and the fat under it.
        blood: HU of the vessels.
        airway: factor on the width of pharynx and windpipe.
    """
    x, front, back = skin(level)
    middle, half = (front + back) / 2, (back - front) / 2
    planes = [ribbon(arc((0, 4), (a, 32), 30, 85), 2) for a in (24, 36)]
    planes += [ribbon([(30, -14), (44, -24), (48, -40)], 3), oval(31, -24, 8, 8)]
    wide, deep = (float(np.interp(level, (4, 5), sizes)) for sizes in ((11, 9), (6, 9)))
    return [
        *(
            (value, [oval(0, middle, x - inset, half - inset, 2.4)])
            for value, inset in ((MUSCLE, 0), (FAT, 2), (MUSCLE, fat))  # skin, fat, muscle
        ),
        (FAT, mirror(*planes)),
        (blood, mirror(oval(29, -27, 3.5, 3.5), oval(33, -21, 4, 3.5))),
        (AIR, [oval(0, -45, wide * airway, deep)]),  # pharynx, then windpipe
        (FLUID, [oval(0, 0.5, 16, 18)]),
        (CORD, [oval(0, 0.5, 7, 5)]),
    ]
