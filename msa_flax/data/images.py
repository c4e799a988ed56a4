"""From the bytes of an image file to the grey pixels that a network sees, for every command.

What a file says about itself is read and checked before any pixel is decoded, so that memory stays
bounded and a damaged file is never half used. The checks are written out here, because image
libraries are more lenient: they open a JPEG that is cut off, and skip some checksums of a PNG.
"""

import contextlib
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from msa_flax.files import UserError

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
SUFFIXES = tuple(_FORMATS)  # the file name extensions that are read, in lower case
MIN_SIDE = 32  # pixels; below this the backbone's five halvings leave nothing
MAX_PIXELS = 2**26  # 64 megapixels, 256 times a CT slice: bounds what decoding may allocate
MAX_BYTES = 2**28  # 256 MiB: bounds what reading may allocate
# Of "clahe", and ours: paper 2 names histogram equalisation only. OpenCV's customary values.
CLIP_LIMIT = 2.0  # the highest count of a grey value, in multiples of the mean count
TILES = (8, 8)  # tiles across and down, each with a histogram of its own
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type; 3 is a palette
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # chunks that decoding needs


class ImageError(UserError):
    """An image cannot be used; the message is a short reason without the file's name."""


class Header(NamedTuple):
    """Size and kind of an image."""

    width: int  # pixels, as stored
    height: int  # pixels, as stored
    bits: int  # bits per sample
    alpha: bool  # whether pixels can be transparent
    channels: int  # samples per pixel, as stored; 1 for a palette
    metadata: int  # bytes that are neither pixels nor needed to decode them


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a PNG or JPEG file as grey values, uint8 [h, w]; see :func:`decode`.

    Raises:
        ImageError: the file cannot be read, or :func:`decode` refuses it.
    """
    path = pathlib.Path(path)
    return decode(read_bytes(path), path.name)


def read_bytes(path: pathlib.Path) -> bytes:
    """Returns the content of a file.

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

    Colour becomes grey by OpenCV's weights; pixels with equal channels keep their value. An EXIF
    orientation is applied, so the image is as a viewer shows it.

    Args:
        data: the whole file.
        name: its name; the extension must fit the content.

    Raises:
        ImageError: a short reason: what :func:`read_header` refuses, more than 8 bits, partly
            transparent, smaller than 32 pixels a side, larger than 64 megapixels.
    """
    header = read_header(data, name)
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


def _imdecode(data: bytes, flags: int) -> np.ndarray:
    image = None
    with contextlib.suppress(cv2.error):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ImageError("OpenCV cannot decode it")
    return image


def read_header(data: bytes, name: str) -> Header:
    """Returns the header of a complete PNG or JPEG file; no pixel is decoded.

    Args:
        data: the whole file.
        name: its name; the extension must fit the content.

    Raises:
        ImageError: empty, another format, cut off, damaged, animated or CMYK.
    """
    if not data:
        raise ImageError("empty file")
    found = "PNG" if data.startswith(_PNG) else "JPEG" if data.startswith(_JPEG) else ""
    if not found:
        raise ImageError("not a PNG or JPEG image")
    suffix = pathlib.PurePath(name).suffix.lower()
    if _FORMATS.get(suffix) != found:
        raise ImageError(f"wrong extension: a {found} image named {suffix or 'without one'}")
    return _png_header(data) if found == "PNG" else _jpeg_header(data)


def _png_header(data: bytes) -> Header:
    """Reads a PNG, whose every chunk has a checksum (PNG specification, sections 5.3 and 11.2)."""
    names, head, metadata = set(), b"", 0
    for name, content in _png_chunks(data):
        names.add(name)
        head = head or content
        metadata += 0 if name in _PNG_PIXELS else len(content)
    if b"IHDR" not in names or b"IDAT" not in names or len(head) != 13:
        raise ImageError("damaged: no PNG header or no pixels")
    if b"acTL" in names:
        raise ImageError("animated; save one frame")
    width, height, bits, colour = struct.unpack(">IIBB", head[:10])
    alpha, channels = colour in (4, 6) or b"tRNS" in names, _PNG_CHANNELS.get(colour, 0)
    return Header(width, height, bits, alpha, channels, metadata)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at, name = len(_PNG), b""
    while name != b"IEND":
        length, name = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        content, checksum = data[at + 8 : at + 8 + length], data[at + 8 + length : at + 12 + length]
        if len(checksum) != 4:
            raise ImageError("truncated")
        if zlib.crc32(name + content) != int.from_bytes(checksum):
            raise ImageError("damaged: a checksum does not fit")
        yield name, content
        at += 12 + length


def _jpeg_header(data: bytes) -> Header:
    """Reads a JPEG's frame header (ITU-T T.81, B.2.2); JPEG has no checksums."""
    # Some writers pad with zeros; anything else after the end-of-image marker is not a whole file.
    if not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ImageError("truncated")
    at, metadata = 2, 0
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        length, bits, height, width, channels = struct.unpack(">HBHHB", data[at + 2 : at + 10])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            if channels == 4:
                raise ImageError("CMYK colours; save it in grey")
            alpha = False  # JPEG has none
            return Header(width, height, bits, alpha, channels, metadata)
        metadata += length if marker == 0xFE or 0xE0 <= marker <= 0xEF else 0  # comment, APPn
        at += 2 + length
    raise ImageError("damaged: no JPEG frame header")


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
