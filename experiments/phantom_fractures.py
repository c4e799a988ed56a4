"""The fractures of a volume of the phantom: jagged sheets that follow a bone through its slices.

Height z is in mm down from the top of the volume.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from phantom_bones import Piece, sites_at

from msa_flax.data.anatomy import Site
from msa_flax.data.drawing import Canvas, ribbon, turned

SHORTEST = 3.0  # mm of a line: a slice that would show less shows none of it


class Fracture(NamedTuple):
    """A sheet through a bone; a slice cuts it in a jagged line."""

    site: Site
    piece: Piece  # the bone that it breaks
    middle: float  # mm, height
    half: float  # mm, half its extent in height
    turn: float  # degrees, of the direction at right angles to the line
    drift: float  # mm in that direction per mm down
    jags: np.ndarray  # mm [heights, points], at heights from the first to the last

    @property
    def number(self) -> int:
        """The number of the fractured vertebra."""
        return self.piece.number

    def gap(self, canvas: Canvas, z: float, owner: np.ndarray, width: float) -> np.ndarray:
        """Returns where the bone is broken at a height, bool [side, side].

        Args:
            canvas: the grid of the slice.
            z: mm.
            owner: whose bone each grid point is, uint8 [side, side].
            width: mm on the canvas, at the middle of the fracture.
        """
        u = (z - self.middle) / self.half
        if abs(u) >= 1:
            return np.zeros(owner.shape, bool)
        # A filled polygon reaches half a grid point beyond its outline, on both sides.
        wide = max(0.05, width * (1 - 0.4 * u * u) - 1 / canvas.scale)
        gap: np.ndarray = canvas.region(ribbon(self._path(u, z), wide)) > 0
        gap &= owner == self.number
        enough = np.count_nonzero(gap) >= SHORTEST * max(width, 1 / canvas.scale) * canvas.scale**2
        return gap if enough else np.zeros(owner.shape, bool)

    def _path(self, u: float, z: float) -> np.ndarray:
        out = turned(self.turn)[0]
        along = np.array([-out[1], out[0]])
        down = z - self.middle
        centre = np.array([self.site.x, self.site.y + self.piece.lean * (z - self.piece.middle)])
        place = (u + 1) / 2 * (len(self.jags) - 1)
        low, part = int(place), place % 1
        jags = (1 - part) * self.jags[low] + part * self.jags[min(low + 1, len(self.jags) - 1)]
        steps = np.linspace(-self.site.reach, self.site.reach, self.jags.shape[1])[:, None]
        length = np.sqrt(1 - 0.75 * u * u)
        path: np.ndarray = centre + self.drift * down * out + length * steps * along
        return path + jags[:, None] * out


def draw_fracture(pieces: Sequence[Piece], z: float, rng: np.random.Generator) -> Fracture | None:
    """Returns a fracture around a height, of a bone that is there, if there is one."""
    sites = sites_at(pieces, z)
    if not sites:
        return None
    site, piece = sites[rng.integers(len(sites))]
    half, (x, y) = rng.uniform(4, 9), rng.normal((site.x, site.y), 1)
    return Fracture(
        site=site._replace(x=x, y=y, reach=0.9 * site.reach),
        piece=piece,
        middle=z,
        half=half,
        turn=site.outward + rng.uniform(-25, 25),
        drift=rng.normal(0, 0.25),
        jags=rng.uniform(-1.2, 1.2, (max(2, int(half)), max(5, int(site.reach)))),
    )
