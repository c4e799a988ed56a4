"""From the bytes of an image file to the grey pixels that a network sees, for every command.

What a file says about itself is read and checked before any pixel is decoded, so that memory stays
bounded and a damaged file is never half used.
"""

import os
import pathlib

import cv2
import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data import dicom
from msa_flax.data.decoder import imdecode
from msa_flax.data.headers import (
    Header,
    ImageError,
    check_ordinary,
    check_suffix,
    palette_as_grey,
    read_header,
)

MIN_SIDE = 32  # pixels; below this the backbone's five halvings leave nothing
MAX_PIXELS = 2**26  # 64 megapixels, 256 times a CT slice: bounds what decoding may allocate
MAX_BYTES = 2**28  # 256 MiB: bounds what reading may allocate
# Of "clahe", and ours: paper 2 names histogram equalisation only. OpenCV's customary values.
CLIP_LIMIT = 2.0  # the highest count of a grey value, in multiples of the mean count
TILES = (8, 8)  # tiles across and down, each with a histogram of its own


def read_image(path: str | os.PathLike[str], config: DataConfig | None = None) -> np.ndarray:
    """Reads a PNG, JPEG or DICOM file as grey values, uint8 [h, w]; see :func:`decode`.

    Raises:
        ImageError: the file cannot be read, or :func:`decode` refuses it.
    """
    path = pathlib.Path(path)
    return decode(read_bytes(path), path.name, config)


def read_bytes(path: pathlib.Path) -> bytes:
    """Returns the content of a file.

    Raises:
        ImageError: it cannot be read, is no file, or is larger than 256 MiB.
    """
    try:
        status = path.stat()
        check_ordinary(status)
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{status.st_size} bytes, more than {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error


def decode(data: bytes, name: str, config: DataConfig | None = None) -> np.ndarray:
    """Decodes an 8-bit PNG or JPEG file, or a DICOM slice, to grey values, uint8 [h, w].

    Colour becomes grey by OpenCV's weights; pixels with equal channels keep their value. An EXIF
    orientation is applied, so the image is as a viewer shows it. Of a DICOM slice it is the window
    of the configuration, see :func:`msa_flax.data.dicom.windowed`.

    Args:
        data: the whole file.
        name: its name; the extension must fit the content.
        config: window and ``max_tilt`` are used, of DICOM slices; None for the defaults.

    Raises:
        ImageError: a short reason: what :func:`read_header` refuses, damaged pixels (JPEG has no
            checksums: a change after which it can be decoded to the end is not seen), more than 8
            bits, partly transparent, smaller than 32 pixels a side, larger than 64 megapixels; and
            what :func:`msa_flax.data.dicom.decode` refuses.
    """
    if dicom.is_dicom(data[:132]):
        check_suffix(name, "DICOM")
        image = dicom.decode(data, config or DataConfig())
        _check_side(*image.shape)
        return image
    header = read_header(data, name)
    if header.bits > 8:
        raise ImageError(f"{header.bits} bits a sample; export an 8-bit window of the CT values")
    if header.bits not in (1, 2, 4, 8):
        raise ImageError(f"damaged: {header.bits} bits a sample")
    _check_side(header.height, header.width)
    _check_opaque(data, header)
    image = imdecode(data, cv2.IMREAD_ANYCOLOR)
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def _check_side(height: int, width: int) -> None:
    size = f"{width} x {height} pixels"
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{size}, expected {MIN_SIDE} or more a side")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{size}, more than {MAX_PIXELS // 2**20} megapixels")


def _check_opaque(data: bytes, header: Header) -> None:
    """Refuses an image with a transparent pixel: what shows through differs between programs.

    An alpha channel, one transparent colour and a palette with opacities are one thing to a reader.
    """
    seen = False
    if header.alpha:
        seen = bool((imdecode(data, cv2.IMREAD_UNCHANGED)[..., 3] < 255).any())
    elif header.palette:
        scale = 255 // (2**header.bits - 1)  # fewer than 8 bits are spread over 0..255
        used = np.unique(imdecode(palette_as_grey(data), cv2.IMREAD_GRAYSCALE) // scale)
        if used.max() >= header.palette:
            raise ImageError("damaged: a pixel's colour is not in the palette")
        seen = any(opacity < 255 and i in used for i, opacity in enumerate(header.transparent))
    elif header.transparent and len(header.transparent) != 2 * header.channels:
        raise ImageError("damaged: the transparent colour does not fit the image")
    elif header.transparent:  # one colour, two bytes a sample: red, green, blue
        colour = np.frombuffer(header.transparent, ">u2")[::-1] * (255 // (2**header.bits - 1))
        image = imdecode(data, cv2.IMREAD_ANYCOLOR).reshape(-1, len(colour))
        seen = bool((image == colour).all(axis=1).any())
    if seen:
        raise ImageError("partly transparent; save it without an alpha channel")


def preprocess(image: np.ndarray, *, size: int, equalize: str = "none") -> np.ndarray:
    """Turns an image into what the network is given, uint8 [size, size], grey.

    The image is equalised first and then resized, the order in which paper 2 §IV names the two: the
    mapping of grey values is then the slice's own, whatever ``size`` is. Resizing is ``cv2.resize``
    with its default, bilinear interpolation (paper 1 §3.1). The range stays 0..255: scaling to 0..1
    is part of the model's input. Predictions need the equalisation that the run was trained with,
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
    """Spreads the grey values of an image, uint8 [h, w].

    Args:
        image: uint8 [h, w].
        equalize: "none": unchanged. "histogram": one mapping for the whole image, after which every
            range of grey values is about equally frequent; the lowest value becomes 0, and an image
            of a single value stays as it is (paper 2 §IV; ``cv2.equalizeHist``). "clahe": a mapping
            for each of :data:`TILES`, interpolated between them, its slope bounded by
            :data:`CLIP_LIMIT` (ours; ``cv2.createCLAHE``); an image of a single value may come out
            as another one.

    Raises:
        ImageError: no such ``equalize``.
    """
    if equalize == "none":
        return image
    if equalize == "histogram":
        return cv2.equalizeHist(image)
    if equalize == "clahe":
        return cv2.createCLAHE(clipLimit=CLIP_LIMIT, tileGridSize=TILES).apply(image)
    raise ImageError(f"equalize: expected one of none, histogram, clahe; got {equalize!r}")


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
