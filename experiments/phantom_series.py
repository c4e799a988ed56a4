"""Series of the package's own phantom, like the slices that the quickstart is trained on.

Its patients have a slice a level, from the skull base to C7, and fractures that are easy to see. A
:class:`Series` can stand wherever a ``phantom_volume.Volume`` can.
"""

import cv2
import numpy as np
from phantom_volume import LENGTH, Settings, VolumeSlice

from msa_flax.data.anatomy import LEVELS
from msa_flax.data.phantom import draw_slice

VIEW = 96.0  # mm, side of the field of view; the phantom draws 90 to 102 mm
_MOST = 3  # slices with a fracture
_STREAM = 0x5E71  # keeps these draws apart from those of the anatomy


class Series:
    """A study of one slice a level; the slices are drawn one by one, in any order.

    Args:
        settings: of the set; contrast and width of fractures are the phantom's own.
        number: of the study.
        fractured: whether one to three of its slices have a fracture.

    Attributes:
        levels: the fractured ones, 1 .. 7 = C1 .. C7, in order.
    """

    view = VIEW

    def __init__(self, settings: Settings, number: int, *, fractured: bool) -> None:
        self.settings, self.number = settings, number
        rng = np.random.default_rng((settings.seed, number, _STREAM))
        count = int(rng.integers(1, _MOST + 1))
        chosen = rng.choice(np.arange(1, len(LEVELS)), count, replace=False) if fractured else ()
        self.levels = sorted(int(k) for k in chosen)

    def __len__(self) -> int:
        return len(LEVELS)

    @property
    def spacing(self) -> float:
        """Millimetres between the centres of two pixels."""
        return self.view / self.settings.matrix

    def height(self, index: int) -> float:
        """Returns how far (mm) a slice lies below the skull base."""
        return (index + 0.5) * LENGTH / len(LEVELS)

    def draw(self, index: int) -> VolumeSlice:
        """Draws one slice, 0 at the skull base."""
        broken = index in self.levels
        drawn = draw_slice(self.settings.seed, self.number, index, fractured=broken)
        size = (self.settings.matrix, self.settings.matrix)
        image, mask = (
            cv2.resize(part, size, interpolation=how)
            for part, how in ((drawn.image, cv2.INTER_LINEAR), (drawn.mask, cv2.INTER_NEAREST))
        )
        # What the bone window, centre 400 and width 1800, shows as this grey value (PS3.3, C.11.2).
        hounsfield = np.rint((image / 255 - 0.5) * 1799 + 399.5).astype(np.int16)
        return VolumeSlice(hounsfield, mask * np.uint8(index), np.zeros_like(mask))
