"""From maps to pictures: resizing, overlays, files, and how much of a map lies in a mask."""

import hashlib
import io
import os
import pathlib
import re
from collections.abc import Mapping

import cv2
import numpy as np

from msa_flax.files import UserError

_TOP = 0.995  # quantile of a map's values above 0 that its last colour stands for


class SaliencyError(UserError):
    """A map cannot be shown or written; the message says why."""


def upsample(saliency: np.ndarray, size: int) -> np.ndarray:
    """Returns a map [h, w] resized to float32 [size, size], bilinear, pixel centres aligned.

    Raises:
        SaliencyError: the map is not two-dimensional, or has NaN or infinite values.
    """
    saliency = np.asarray(saliency, np.float32)
    if saliency.ndim != 2 or not np.isfinite(saliency).all():
        raise SaliencyError(
            f"map: expected finite values of shape [h, w], got shape {saliency.shape}, "
            f"{int((~np.isfinite(saliency)).sum())} values not finite"
        )
    return cv2.resize(saliency, (size, size), interpolation=cv2.INTER_LINEAR)


def display(saliency: np.ndarray, *, maximum: float | None = None) -> tuple[np.ndarray, float]:
    """Returns a raw map scaled for the eye, and the value that its last colour stands for.

    The one place where maps are scaled: 0 stays 0, ``maximum`` becomes 1 and larger values are
    shown as it; what speaks against the target (below 0 in a signed map) is shown as 0. So a map
    without any value above 0 stays all zero, and no map is stretched from its own minimum.

    Args:
        saliency: float [h, w].
        maximum: the value of the last colour, above 0. By default the map's own: its largest value
            where it has fewer than 200 above 0, otherwise their 99.5th percentile, because one
            pixel in 50,000 would hide all others. Colours of two images cannot be compared then.

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

    A map without any value above 0 gives the plain image: nothing speaks for the target, and that
    is what is seen.

    Args:
        image: uint8 [s, s], grey.
        saliency: float [h, w].
        maximum: the value of the last colour, see :func:`display`.
        alpha: opacity of the colours, 0..1.

    Returns:
        uint8 [s, s, 3], RGB.

    Raises:
        SaliencyError: a map that is not finite, a maximum that is not above 0, or an image that is
            not uint8 [s, s].
    """
    if image.dtype != np.uint8 or image.ndim != 2 or image.shape[0] != image.shape[1]:
        raise SaliencyError(f"image: expected uint8 [s, s], got {image.dtype} {image.shape}")
    values = upsample(display(saliency, maximum=maximum)[0], image.shape[0])
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


def mass_inside(saliency: np.ndarray, mask: np.ndarray, *, dilate: int) -> float:
    """Returns the share of the upsampled map's mass that lies inside the widened mask.

    Compare it with :func:`area_share`: what a map that is the same everywhere would reach.

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


def safe_stem(example_id: str) -> str:
    """Returns a file name without ending for any example id, one that stays in its folder.

    A readable part of ASCII letters, digits, "_" and "-", then 16 hexadecimal digits of the id's
    SHA-256, so that different ids get different names even where case is ignored. At most 81
    characters.
    """
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", example_id).strip("-")[:64] or "example"
    digest = hashlib.sha256(example_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{readable}-{digest[:16]}"


def write_explanation(
    out_dir: str | os.PathLike[str],
    stem: str,
    *,
    image: np.ndarray,
    maps: Mapping[str, Mapping[str, np.ndarray]],
    attention: Mapping[int, np.ndarray] | None = None,
    maximum: float | None = None,
) -> list[pathlib.Path]:
    """Writes the explanation of one image: pictures for people, raw maps for programs.

    The files are ``<stem>.<method>-<target>.png``, the overlay, and ``.npy``, the raw map, for
    every method and the targets fracture and normal, ``<stem>.attention-<k>.png`` and ``.npy`` for
    each kernel size, and ``<stem>.image.png``, the image itself.

    Args:
        out_dir: the folder; made if it is not there.
        stem: a plain file name, from :func:`safe_stem`.
        image: uint8 [s, s].
        maps: method to target to map [h, w].
        attention: kernel size to attention map [h, w] in 0..1; nothing for a network without.
        maximum: one value for all overlays, see :func:`display`.

    Returns:
        The files, in the order of writing.

    Raises:
        SaliencyError: the stem could leave the folder, or a map cannot be shown.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", stem):
        raise SaliencyError(f"stem: expected a name from safe_stem(), got {stem!r}")
    folder = pathlib.Path(out_dir)
    files: dict[str, bytes] = {}
    for method, by_target in maps.items():
        for target, saliency in by_target.items():
            files[f"{method}-{target}.png"] = _png(overlay(image, saliency, maximum=maximum))
            files[f"{method}-{target}.npy"] = _npy(saliency)
    for kernel_size, values in (attention or {}).items():
        files[f"attention-{kernel_size}.png"] = _png(attention_image(values, image.shape[0]))
        files[f"attention-{kernel_size}.npy"] = _npy(values)
    files["image.png"] = _png(np.repeat(image[:, :, None], 3, axis=2))
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(folder / f"{stem}.{ending}", data) for ending, data in files.items()]


def _colours(values: np.ndarray) -> np.ndarray:
    """Returns RGB of inferno: perceptually uniform, and readable with any colour vision."""
    levels = np.rint(np.clip(values, 0, 1) * 255)  # larger values keep the last colour
    return cv2.applyColorMap(levels.astype(np.uint8), cv2.COLORMAP_INFERNO)[
        :, :, ::-1
    ]  # OpenCV's order is BGR


def dilated(mask: np.ndarray, dilate: int) -> np.ndarray:
    """Returns bool [s, s]: the mask widened by a disc whose radius is ``dilate`` pixels."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * dilate + 1, 2 * dilate + 1))
    return cv2.dilate((np.asarray(mask) != 0).astype(np.uint8), disc) > 0


def _png(picture: np.ndarray) -> bytes:
    written, data = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    if not written:
        raise SaliencyError(f"picture: OpenCV could not encode shape {picture.shape} as PNG")
    return data.tobytes()


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values, np.float32), allow_pickle=False)
    return buffer.getvalue()


def _write(path: pathlib.Path, data: bytes) -> pathlib.Path:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
