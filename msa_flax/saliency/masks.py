"""Maps at the size of an image, and how much of a map lies inside a mask."""

import cv2
import numpy as np

from msa_flax.saliency.interface import SaliencyError

DILATE_FRACTION = 0.06  # masks are widened by this share of the image's side before mass is counted


def upsample(saliency: np.ndarray, size: int, width: int | None = None) -> np.ndarray:
    """Returns a map [h, w] resized to float32 [size, width or size], bilinear, centres aligned.

    Raises:
        SaliencyError: the map is not two-dimensional, or has NaN or infinite values.
    """
    saliency = np.asarray(saliency, np.float32)
    if saliency.ndim != 2 or not np.isfinite(saliency).all():
        raise SaliencyError(
            f"map: expected finite values of shape [h, w], got shape {saliency.shape}, "
            f"{int((~np.isfinite(saliency)).sum())} values not finite"
        )
    return cv2.resize(saliency, (width or size, size), interpolation=cv2.INTER_LINEAR)


def dilated(mask: np.ndarray, dilate: int) -> np.ndarray:
    """Returns bool [s, s]: the mask widened by a disc whose radius is ``dilate`` pixels."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * dilate + 1, 2 * dilate + 1))
    return cv2.dilate((np.asarray(mask) != 0).astype(np.uint8), disc) > 0


def mass_inside(saliency: np.ndarray, mask: np.ndarray, *, dilate: int) -> float:
    """Returns the share of the upsampled map's mass that lies inside the widened mask.

    Compare it with :func:`area_share`, which a map with one value everywhere would reach.

    Args:
        saliency: float [h, w], not negative.
        mask: uint8 [s, s], not 0 where the fracture is.
        dilate: how far the mask is widened, pixels.

    Returns:
        0..1; NaN if the map is all zero or the mask is empty.
    """
    inside = dilated(mask, dilate)
    values = upsample(saliency, mask.shape[0]).astype(np.float64)
    total = values.sum()
    return float(values[inside].sum() / total) if total > 0 and inside.any() else float("nan")


def area_share(mask: np.ndarray, *, dilate: int) -> float:
    """Returns the share of the image's area inside the widened mask; NaN if the mask is empty."""
    inside = dilated(mask, dilate)
    return float(inside.mean()) if inside.any() else float("nan")
