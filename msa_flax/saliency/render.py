"""Pictures of maps: the scale of the colours, overlays, attention maps."""

import cv2
import numpy as np

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.masks import upsample

_TOP = 0.995  # quantile of a map's values above 0 that its last colour stands for


def display(saliency: np.ndarray, *, maximum: float | None = None) -> tuple[np.ndarray, float]:
    """Returns a raw map scaled for the eye, and the value that its last colour stands for.

    This is the one place where maps are scaled: 0 stays 0, ``maximum`` becomes 1, larger values are
    shown as ``maximum``, and what speaks against the target (below 0 in a signed map) is shown as
    0. So a map without any value above 0 stays all zero, and no map is stretched from its own
    minimum.

    Args:
        saliency: float [h, w].
        maximum: the value of the last colour, above 0. By default the map's own: its largest value
            if fewer than 200 are above 0, otherwise their 99.5th percentile, because one pixel in
            50,000 would hide all others. Colours of two images cannot be compared then.

    Returns:
        float32 [h, w] in 0..1, and the maximum: 0 for a map without any value above 0.

    Raises:
        SaliencyError: the map has values that are not finite, or the maximum is not above 0.
    """
    if maximum is not None and not maximum > 0:
        raise SaliencyError(f"maximum: expected a value above 0, got {maximum}")
    values = np.asarray(saliency, np.float32)
    if not np.isfinite(values).all():
        raise SaliencyError(
            f"map: expected finite values, got {int((~np.isfinite(values)).sum())} that are not"
        )
    above = values[values > 0]
    if not len(above):
        return np.zeros_like(values), maximum or 0.0
    top = float(np.quantile(above, _TOP, method="higher")) if maximum is None else maximum
    return np.clip(values / top, 0, 1), top


def overlay(
    image: np.ndarray, saliency: np.ndarray, *, maximum: float | None = None, alpha: float = 0.45
) -> np.ndarray:
    """Returns the image with the map over it in colour, scaled by :func:`display`.

    A map without any value above 0 gives the plain image: nothing speaks for the target.

    Args:
        image: uint8 [height, width], grey, at any resolution.
        saliency: float [h, w].
        maximum: the value of the last colour, see :func:`display`.
        alpha: opacity of the colours, 0..1.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        SaliencyError: a map that is not finite, a maximum that is not above 0, or an image that is
            not uint8 [height, width].
    """
    if image.dtype != np.uint8 or image.ndim != 2:
        raise SaliencyError(f"image: expected uint8 [h, w], got {image.dtype} {image.shape}")
    values = upsample(display(saliency, maximum=maximum)[0], *image.shape)
    picture = np.repeat(image[:, :, None], 3, axis=2)
    if not values.any():
        return picture
    blend = (1 - alpha) * picture + alpha * _colours(values)
    return np.rint(blend).astype(np.uint8)


def attention_image(attention: np.ndarray, size: int) -> np.ndarray:
    """Returns an attention map [h, w] in colours that run from 0 to 1 whatever its values are.

    Returns:
        uint8 [size, size, 3], RGB.

    Raises:
        SaliencyError: values outside 0..1, which a sigmoid cannot give (paper 1 Eq. 4).
    """
    values = upsample(attention, size)
    lowest, highest = np.min(attention), np.max(attention)
    if lowest < 0 or highest > 1:
        raise SaliencyError(f"map: expected 0..1, got {lowest}..{highest}")
    return _colours(values)


def png(picture: np.ndarray) -> bytes:
    """Returns an RGB picture, uint8 [h, w, 3], as a PNG file."""
    written, data = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    if not written:
        raise SaliencyError(f"picture: OpenCV could not encode shape {picture.shape} as PNG")
    return data.tobytes()


def _colours(values: np.ndarray) -> np.ndarray:
    """Returns RGB of inferno: perceptually uniform, and readable with any colour vision."""
    levels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)  # larger: the last colour
    return cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[:, :, ::-1]  # OpenCV's order is BGR
