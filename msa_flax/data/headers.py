"""What an image file says about itself, checked before any pixel is decoded.

The checks are written out here, because image libraries are more lenient: they open a JPEG that is
cut off or lacks scans, skip some checksums of a PNG, and read colours beyond a palette as black.
"""

import os
import pathlib
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from msa_flax.files import UserError

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")  # or none at all; see layout.is_image
SUFFIXES = (*_FORMATS, *DICOM_SUFFIXES)  # the file name extensions that are read, in lower case
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type; 3 is a palette
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # chunks that decoding needs
# Not markers: stuffed zeros, fill bytes and the restart markers inside of pixels (T.81, B.1.1).
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)


class ImageError(UserError):
    """An image cannot be used; the message is a short reason without the file's name."""


class Header(NamedTuple):
    """Size and kind of an image."""

    width: int  # pixels, as stored
    height: int  # pixels, as stored
    bits: int  # bits per sample
    alpha: bool  # whether every pixel has a transparency of its own
    channels: int  # samples per pixel, as stored; 1 for a palette
    metadata: int  # bytes that are neither pixels nor needed to decode them
    palette: int = 0  # colours of the palette; 0: there is none
    transparent: bytes = b""  # PNG's tRNS: one transparent colour, or the opacity of each of these


def format_of(head: bytes) -> str:
    """Returns "PNG" or "JPEG" by the first bytes of a file, "" for another one."""
    return "PNG" if head.startswith(_PNG) else "JPEG" if head.startswith(_JPEG) else ""


def read_header(data: bytes, name: str) -> Header:
    """Returns the header of a complete PNG or JPEG file; no pixel is decoded.

    Bytes after the end of the image are metadata: no decoder reads them.

    Args:
        data: the whole file.
        name: its name; the extension must fit the content.

    Raises:
        ImageError: empty, another format, cut off, damaged, animated or CMYK.
    """
    if not data:
        raise ImageError("empty file")
    found = format_of(data)
    if not found:
        raise ImageError("not a PNG, JPEG or DICOM image")
    check_suffix(name, found)
    return _png_header(data) if found == "PNG" else _jpeg_header(data)


def check_ordinary(status: os.stat_result) -> None:
    """Refuses what is no file, before it is opened: a pipe that nobody fills is waited for.

    Args:
        status: of the path, links followed.

    Raises:
        ImageError: a pipe, a socket or a device; a folder passes, whose own error says more.
    """
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise ImageError("no file: a pipe, a socket or a device")


def check_suffix(name: str, found: str) -> None:
    """Refuses an image whose file name promises another format; DICOM files have any or none.

    Args:
        name: of the file.
        found: the format of its content, "PNG", "JPEG" or "DICOM".

    Raises:
        ImageError: the extension does not fit.
    """
    suffix = pathlib.PurePath(name).suffix.lower()
    if _FORMATS.get(suffix, "DICOM") != found:
        raise ImageError(f"wrong extension: a {found} image named {suffix or 'without one'}")


def _png_header(data: bytes) -> Header:
    """Reads a PNG, whose every chunk has a checksum (PNG specification, sections 5.3 and 11.2)."""
    chunks: dict[bytes, bytes] = {}
    end, metadata = len(_PNG), 0
    for name, content in _png_chunks(data):
        chunks.setdefault(name, content)
        metadata += 0 if name in _PNG_PIXELS else len(content)
        end += 12 + len(content)
    if len(chunks.get(b"IHDR", b"")) != 13 or b"IDAT" not in chunks:
        raise ImageError("damaged: no PNG header or no pixels")
    if b"acTL" in chunks:
        raise ImageError("animated; save one frame")
    width, height, bits, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    return Header(
        width=width,
        height=height,
        bits=bits,
        alpha=colour in (4, 6),
        channels=_PNG_CHANNELS.get(colour, 0),
        metadata=metadata + len(data) - end,
        palette=len(chunks.get(b"PLTE", b"")) // 3 if colour == 3 else 0,
        transparent=chunks.get(b"tRNS", b""),
    )


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


def palette_as_grey(data: bytes) -> bytes:
    """Returns a PNG with a palette as a PNG whose grey values are the numbers of the colours."""
    parts = [_PNG]
    for name, content in _png_chunks(data):
        if name in (b"IHDR", b"IDAT", b"IEND"):
            kept = content[:9] + b"\0" + content[10:] if name == b"IHDR" else content
            body = name + kept  # the tenth byte is the colour type; 0 is grey
            parts += [len(kept).to_bytes(4), body, zlib.crc32(body).to_bytes(4)]
    return b"".join(parts)


def _jpeg_header(data: bytes) -> Header:
    """Reads the markers of a JPEG up to its end (ITU-T T.81, B.1 and B.2); it has no checksums."""
    frame: Header | None = None
    lowest: dict[int, list[int]] = {}  # by component: the lowest bit sent of each coefficient
    at, metadata = 2, 0
    while True:
        found = _MARKER.search(data, at)
        if not found:
            raise ImageError("truncated")
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9:  # the end of the image
            break
        if marker in (0x01, 0xD8):  # nothing follows these
            continue
        length = int.from_bytes(data[at : at + 2])
        segment = data[at + 2 : at + length]
        if at + length > len(data):
            raise ImageError("truncated")
        at += max(length, 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not frame:
            frame = _jpeg_frame(segment)
            lowest = {one: [99] * 64 for one in segment[6::3][: frame.channels]}
        elif marker == 0xDA:
            _note_scan(segment, lowest)
        metadata += length if marker == 0xFE or 0xE0 <= marker <= 0xEF else 0  # comment, APPn
    if not frame:
        raise ImageError("damaged: no JPEG frame header")
    if any(bit for bits in lowest.values() for bit in bits):
        raise ImageError("truncated: not all scans of the image are there")
    return frame._replace(metadata=metadata + len(data) - at)


def jpeg_frame(data: bytes) -> Header:
    """Returns the first frame header of a JPEG or JPEG-LS stream.

    Raises:
        ImageError: there is no frame header (T.81, B.2.2; T.87, C.2.2).
    """
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return _jpeg_frame(data[at + 2 : at + int.from_bytes(data[at : at + 2])])
        at += max(int.from_bytes(data[at : at + 2]), 2)
    raise ImageError("damaged: no JPEG frame header")


def _jpeg_frame(segment: bytes) -> Header:
    if len(segment) < 6:
        raise ImageError("damaged: no JPEG frame header")
    bits, height, width, channels = struct.unpack(">BHHB", segment[:6])
    if channels == 4:
        raise ImageError("CMYK colours; save it in grey")
    return Header(width, height, bits, alpha=False, channels=channels, metadata=0)


def _note_scan(segment: bytes, lowest: dict[int, list[int]]) -> None:
    """Notes which coefficients a scan sends, down to which bit (T.81, B.2.3)."""
    count = segment[0] if segment else 0
    if len(segment) != 4 + 2 * count:
        raise ImageError("damaged: a JPEG scan header does not fit")
    first, last, bit = segment[-3], segment[-2], segment[-1] & 15
    for component in segment[1 : 1 + 2 * count : 2]:
        if component in lowest and last < 64:
            lowest[component][first : last + 1] = [bit] * (last + 1 - first)
