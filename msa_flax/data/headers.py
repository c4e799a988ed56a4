"""What an image file says about itself, read and checked before any pixel is decoded."""

import dataclasses
import zlib
from collections.abc import Iterator

from msa_flax.files import UserError

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
SUFFIXES = tuple(_FORMATS)  # the file name extensions that are read, in lower case


class ImageError(UserError):
    """An image cannot be used; the message is a short reason without the file's name."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Size and kind of an image."""

    width: int  # pixels, as stored
    height: int  # pixels, as stored
    bits: int  # bits a sample
    alpha: bool  # whether pixels can be transparent
    channels: int  # samples a pixel, as stored; 1 for a palette
    metadata: int  # bytes of what is neither pixels nor needed to decode them


def read(data: bytes, suffix: str) -> Header:
    """Returns the header of a complete PNG or JPEG file.

    Args:
        data: the whole file.
        suffix: its extension in lower case, which must fit the content.

    Raises:
        ImageError: empty, another format, cut off, damaged, animated or CMYK.
    """
    if not data:
        raise ImageError("empty file")
    found = "PNG" if data.startswith(_PNG) else "JPEG" if data.startswith(_JPEG) else ""
    if not found:
        raise ImageError("not a PNG or JPEG image")
    if _FORMATS.get(suffix) != found:
        raise ImageError(f"wrong extension: a {found} image named {suffix or 'without one'}")
    return _read_png(data) if found == "PNG" else _read_jpeg(data)


def _read_png(data: bytes) -> Header:
    """Reads a PNG, whose every chunk has a checksum (PNG specification, sections 5.3 and 11.2)."""
    names, head, metadata = set(), b"", 0
    for name, content in _png_chunks(data):
        names.add(name)
        head = head or content
        metadata += 0 if name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND") else len(content)
    if b"IHDR" not in names or b"IDAT" not in names or len(head) != 13:
        raise ImageError("damaged: no PNG header or no pixels")
    if b"acTL" in names:
        raise ImageError("animated; save one frame")
    return Header(
        width=int.from_bytes(head[:4]),
        height=int.from_bytes(head[4:8]),
        bits=head[8],
        alpha=head[9] in (4, 6) or b"tRNS" in names,
        channels={0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(head[9], 0),
        metadata=metadata,
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


def _read_jpeg(data: bytes) -> Header:
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
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            if data[at + 9] == 4:
                raise ImageError("CMYK colours; save it in grey")
            height, width = (
                int.from_bytes(data[at + 5 : at + 7]),
                int.from_bytes(data[at + 7 : at + 9]),
            )
            return Header(
                width=width,
                height=height,
                bits=data[at + 4],
                alpha=False,
                channels=data[at + 9],
                metadata=metadata,
            )
        length = int.from_bytes(data[at + 2 : at + 4])
        metadata += length if marker == 0xFE or 0xE0 <= marker <= 0xEF else 0  # comment, APPn
        at += 2 + length
    raise ImageError("damaged: no JPEG frame header")
