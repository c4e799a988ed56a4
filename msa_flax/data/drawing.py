"""Polygons in millimetres, and the fine grid on which they are filled.

Lengths are millimetres from the centre of the spinal canal, x to the right of the image, y to the
back. A polygon is float [n, 2].
"""

import dataclasses

import cv2
import numpy as np

Pair = tuple[float, float]
FINE = 2  # shapes are drawn on a grid this many times finer than the pixels


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """The fine grid: places polygons given in mm, turned, shifted and slightly bent."""

    side: int  # grid points
    scale: float  # grid points per mm
    matrix: np.ndarray  # [2, 2], from bent mm to grid points
    origin: np.ndarray  # [2], grid points, where the centre of the spinal canal is
    waves: np.ndarray  # [2, 3], radians per mm, of the waves that bend the shapes
    phases: np.ndarray  # [3], radians
    bend: np.ndarray  # [3, 2], mm, how far each wave bends

    def place(self, points: np.ndarray) -> np.ndarray:
        """Returns mm points [n, 2] as grid points in cv2's fixed point (1/16)."""
        bent = points + np.sin(points @ self.waves + self.phases) @ self.bend
        return np.rint((bent @ self.matrix + self.origin) * 16).astype(np.int32)

    def fill(self, target: np.ndarray, value: float, *polygons: np.ndarray) -> np.ndarray:
        """Fills polygons of ``target`` with ``value`` and returns it."""
        for polygon in polygons:
            cv2.fillPoly(target, [self.place(polygon)], (value,), shift=4)
        return target

    def region(self, *polygons: np.ndarray) -> np.ndarray:
        """Returns the union of polygons: uint8 [side, side], 255 inside."""
        return self.fill(np.zeros((self.side, self.side), np.uint8), 255, *polygons)


def turned(degrees: float) -> np.ndarray:
    """Returns the matrix [2, 2] that turns rows of points by an angle."""
    turn = np.deg2rad(degrees)
    return np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


def arc(centre: Pair, radii: Pair, start: float, stop: float) -> np.ndarray:
    """Returns 24 points of an ellipse between two angles in degrees, 0 = right, 90 = back."""
    t = np.deg2rad(np.linspace(start, stop, 24))
    return np.stack([np.cos(t), np.sin(t)], axis=1) * radii + centre


def oval(x: float, y: float, a: float, b: float, power: float = 2.0) -> np.ndarray:
    """Returns a superellipse; power 2 is an ellipse, larger ones are more like a rectangle."""
    unit = arc((0, 0), (1, 1), 0, 345)
    bulge = np.abs(unit) ** (2 / power)
    return np.copysign(bulge, unit) * (a, b) + (x, y)


def ribbon(path: np.ndarray | list, *widths: float) -> np.ndarray:
    """Returns the polygon around a path whose width runs through ``widths`` (mm)."""
    points = np.asarray(path, np.float64)
    along = np.gradient(points, axis=0)
    across = along[:, ::-1] * (-1, 1) / np.hypot(*along.T)[:, None]
    steps = np.linspace(0, len(widths) - 1, len(points))
    half = np.interp(steps, range(len(widths)), widths)[:, None] / 2
    return np.concatenate([points + across * half, (points - across * half)[::-1]])


def mirror(*polygons: np.ndarray) -> list[np.ndarray]:
    """Returns polygons of the right side, followed by their mirror images on the left."""
    return [*polygons, *(polygon * (-1, 1) for polygon in polygons)]
