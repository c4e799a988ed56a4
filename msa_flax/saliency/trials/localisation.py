"""Does a map lie on the fracture? Scores against masks of what is known to be there.

A map may be faithful and lie elsewhere, where the model uses something else. A map may also lie on
the fracture of an image although the model never looked there. So these scores judge no method.
"""

import numpy as np

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.masks import DILATE_FRACTION, dilated, mass_inside, upsample
from msa_flax.saliency.trials import pixels


def localise(
    maps: np.ndarray, masks: np.ndarray, *, size: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Returns the scores of maps against masks, both for the same n images.

    Negative values count as nothing: they speak against what is explained. Masks are widened by
    ``DILATE_FRACTION`` of the side in all three scores.

    Args:
        maps: [n, h, w] of any resolution, resized to the images.
        masks: [n, size, size], not 0 on the fracture; empty where there is none.
        size: the images' side.
        seed: of the order of pixels that a map does not tell apart.

    Returns:
        float64 [n] each, 0..1, larger is better, NaN where a map has no positive value or a mask is
        empty: "pointing game", whether the maximum lies in the mask (Zhang et al. 2018), and where
        it is in several places the share of them that do; "mass inside", the share of the map's
        sum; "IoU", intersection over union of the mask and as many of the most salient pixels.

    Raises:
        SaliencyError: masks are of another size, or another number, than images.
    """
    if masks.shape != (shape := (len(maps), size, size)):
        raise SaliencyError(f"masks: expected the size of the images, {shape}; got {masks.shape}")
    dilate = round(DILATE_FRACTION * size)
    names = ("pointing game", "mass inside", "IoU")
    table = np.full((len(maps), len(names)), np.nan)
    for scores, saliency, mask in zip(table, maps, masks, strict=True):
        positive = np.maximum(saliency, 0)
        inside = dilated(mask, dilate)
        if np.any(positive) and inside.any():
            values = upsample(positive, size)
            ranked = pixels.order(positive, size, pixels.own_rng(mask, seed))
            chosen = pixels.most_salient(ranked, float(inside.mean()), size)
            scores[:] = (
                inside[values == values.max()].mean(),
                mass_inside(positive, mask, dilate=dilate),
                (chosen & inside).sum() / (chosen | inside).sum(),
            )
    return dict(zip(names, table.T, strict=True))
