"""Does a map lie on the fracture? Scores against masks of what is known to be there.

A map may be faithful and lie elsewhere, where the model uses something else; and a map may lie on
the fracture of an image whose model never looked there. So these do not judge a method.
"""

import numpy as np

from msa_flax.saliency.explanations import DILATE_FRACTION
from msa_flax.saliency.removal import first, generator, pixel_order
from msa_flax.saliency.render import SaliencyError, dilated, mass_inside, upsample


def localise(
    maps: np.ndarray,
    masks: np.ndarray,
    *,
    size: int,
    dilate: float = DILATE_FRACTION,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Scores maps against masks, both images of the same n.

    Negative values count as nothing: they speak against what is explained.

    Args:
        maps: [n, h, w] of any resolution, resized to the images.
        masks: [n, size, size], not 0 on the fracture; empty where there is none.
        size: the images' side.
        dilate: by how much masks are widened, share of the side, in all three scores.
        seed: of the order of pixels that a map does not tell apart.

    Returns:
        float64 [n] each, 0..1, larger is better, NaN where a map has no positive value or a mask is
        empty: "pointing game", whether the maximum lies in the mask (Zhang et al. 2018), and where
        it is in several places the share of them that do; "mass inside", the share of the map's
        sum; "IoU", intersection over union of the mask and as many of the most salient pixels.

    Raises:
        SaliencyError: masks are of another size, or another number, than images.
    """
    check_masks(masks, (len(maps), size, size))
    pixels = round(dilate * size)
    names = ("pointing game", "mass inside", "IoU")
    found = np.full((len(maps), len(names)), np.nan)
    for scores, saliency, mask in zip(found, maps, masks, strict=True):
        positive = np.maximum(saliency, 0)
        inside = dilated(mask, pixels)
        if np.any(positive) and inside.any():
            values = upsample(positive, size)
            order = pixel_order(positive, size, generator(mask, seed))
            chosen = first(order, float(inside.mean()), size)
            scores[:] = (
                inside[values == values.max()].mean(),
                mass_inside(positive, mask, dilate=pixels),
                (chosen & inside).sum() / (chosen | inside).sum(),
            )
    return dict(zip(names, found.T, strict=True))


def check_masks(masks: np.ndarray, shape: tuple[int, ...]) -> None:
    """Checks that masks are of the images' number and size.

    Raises:
        SaliencyError: they are not.
    """
    if masks.shape != shape:
        raise SaliencyError(f"masks: expected the size of the images, {shape}; got {masks.shape}")
