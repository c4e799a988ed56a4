"""From the bytes of an image file to the pixels that a network sees: one path for every command."""

import os
import pathlib
from collections.abc import Callable

import cv2
import numpy as np

from msa_flax.data import headers
from msa_flax.data.headers import ImageError

__all__ = [
    "ImageError",
    "decode",
    "equalize_image",
    "preprocess",
    "read_bytes",
    "read_image",
    "resize_mask",
]

MIN_SIDE = 32  # pixels; below this the backbone's five halvings leave nothing
MAX_PIXELS = 2**26  # 64 megapixels, 256 times a CT slice: bounds what decoding may allocate
MAX_BYTES = 2**28  # 256 MiB: bounds what reading may allocate
# Of "clahe", and ours: paper 2 names histogram equalisation only. OpenCV's customary values.
CLIP_LIMIT = 2.0  # the highest a grey value's count may be, in multiples of the mean count
TILES = (8, 8)  # tiles across and down, each with a histogram of its own


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a PNG or JPEG file as grey values, uint8 [h, w]; see :func:`decode`.

    Raises:
        ImageError: the file cannot be read, or :func:`decode` refuses it.
    """
    path = pathlib.Path(path)
    return decode(read_bytes(path), path.name)


def read_bytes(path: pathlib.Path) -> bytes:
    """Returns what a file holds.

    Raises:
        ImageError: it cannot be read, or is larger than 256 MiB.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ImageError(f"{size} bytes, more than {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error


def decode(data: bytes, name: str) -> np.ndarray:
    """Decodes an 8-bit PNG or JPEG file to grey values, uint8 [h, w].

    Colour becomes grey by OpenCV's weights (equal channels keep their value). An EXIF orientation
    is applied, so the image is as a viewer shows it. Header and structure of the file are checked
    before any pixel is decoded: memory stays bounded, and a truncated file is never half used.

    Args:
        data: the whole file.
        name: its name; the extension must fit the content.

    Raises:
        ImageError: a short reason: empty, not an image, truncated, damaged, 16 bits, transparent,
            animated, CMYK, smaller than 32 pixels a side, larger than 64 megapixels.
    """
    header = headers.read(data, pathlib.PurePath(name).suffix.lower())
    size = f"{header.width} x {header.height} pixels"
    if header.bits > 8:
        raise ImageError(f"{header.bits} bits a sample; export an 8-bit window of the CT values")
    if min(header.width, header.height) < MIN_SIDE:
        raise ImageError(f"{size}, expected {MIN_SIDE} or more a side")
    if header.width * header.height > MAX_PIXELS:
        raise ImageError(f"{size}, more than {MAX_PIXELS // 2**20} megapixels")
    if header.alpha and (_imdecode(data, cv2.IMREAD_UNCHANGED)[..., 3] < 255).any():
        raise ImageError("partly transparent; save it without an alpha channel")
    image = _imdecode(data, cv2.IMREAD_ANYCOLOR)
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def preprocess(image: np.ndarray, *, size: int, equalize: str = "none") -> np.ndarray:
    """Turns an image into what the network is given, uint8 [size, size], grey.

    First equalised, then resized, the order in which paper 2 §IV names the two: the mapping of grey
    values is then the slice's own, whatever ``size`` is. Resizing is ``cv2.resize`` with its
    default, bilinear interpolation (paper 1 §3.1). The range stays 0..255: scaling to 0..1 is part
    of the model's input. Whoever predicts must equalise as the run was trained: pass
    ``config.data.equalize``.

    Args:
        image: uint8 [h, w], [h, w, 1] or [h, w, 3] (OpenCV's order: blue, green, red).
        size: side of the result in pixels.
        equalize: see :func:`equalize_image`.

    Raises:
        ImageError: another dtype or shape, or no such ``equalize``.
    """
    if image.dtype != np.uint8:
        raise ImageError(f"expected uint8 pixels, got {image.dtype}; export an 8-bit window")
    if image.ndim not in (2, 3) or 0 in image.shape or image.shape[2:] not in ((), (1,), (3,)):
        raise ImageError(f"expected shape [h, w], [h, w, 1] or [h, w, 3], got {image.shape}")
    if image.ndim == 3:
        image = image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    image = equalize_image(image, equalize)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def equalize_image(image: np.ndarray, equalize: str) -> np.ndarray:
    """Spreads an image's grey values, uint8 [h, w].

    Args:
        image: uint8 [h, w].
        equalize: "none": unchanged. "histogram": one mapping for the image, after which every range
            of grey values is about equally frequent; the lowest value becomes 0, an image of one
            value stays as it is (paper 2 §IV; ``cv2.equalizeHist``). "clahe": a mapping for each of
            :data:`TILES`, interpolated between them, its slope bounded by :data:`CLIP_LIMIT` (ours;
            ``cv2.createCLAHE``). An image of one value may come out as another one.

    Raises:
        ImageError: no such ``equalize``.
    """
    if equalize not in EQUALIZERS:
        raise ImageError(f"equalize: expected one of {', '.join(EQUALIZERS)}; got {equalize!r}")
    return EQUALIZERS[equalize](image)


def _clahe(image: np.ndarray) -> np.ndarray:
    return cv2.createCLAHE(clipLimit=CLIP_LIMIT, tileGridSize=TILES).apply(image)


EQUALIZERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda image: image,
    "histogram": cv2.equalizeHist,
    "clahe": _clahe,
}


def resize_mask(mask: np.ndarray, *, size: int) -> np.ndarray:
    """Resizes a mask so that a line one pixel wide survives: uint8 [size, size], 0 or 1.

    A pixel of the result is 1 if any part of what it covers is.

    Args:
        mask: [h, w]; every value above 0 counts as 1.
        size: side of the result in pixels.
    """
    ones = (mask > 0).astype(np.float32)
    larger = size > min(mask.shape)
    method = cv2.INTER_NEAREST if larger else cv2.INTER_AREA  # enlarging must not thicken the line
    return (cv2.resize(ones, (size, size), interpolation=method) > 0).astype(np.uint8)


def _imdecode(data: bytes, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError("OpenCV cannot decode it") from error
    if image is None:
        raise ImageError("OpenCV cannot decode it")
    return image
