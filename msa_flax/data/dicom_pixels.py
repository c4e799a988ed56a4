"""The stored values of a DICOM slice, checked against what its header says.

Decoders are lenient: they read a stream that is cut off or belongs to an image of another size,
pass over what follows it, and shorten values that are too large. Here that is a reason to refuse a
file. What cannot be seen is a changed bit inside of compressed pixels, which have no checksum.
Clauses are those of the DICOM standard, PS3.5.
"""

import io
import struct
import zlib
from typing import Any, BinaryIO, Literal

import numpy as np

from msa_flax.data.decoder import damage_refused
from msa_flax.data.dicom_header import DicomError, DicomSlice
from msa_flax.data.headers import jpeg_frame

DEFLATED = "1.2.840.10008.1.2.1.99"  # header and pixels are compressed together (A.5)
INFLATED = 2**30  # bytes of header and pixels that a deflated file may have
_RLE = "1.2.840.10008.1.2.5"
# The fastest decoder of each compressed transfer syntax (A.4); see the benchmark "dicom".
_DECODERS = {
    f"1.2.840.10008.1.2.{syntax}": plugin
    for plugin, syntaxes in {
        "pylibjpeg": ("4.51", "4.90", "4.91", "4.201", "4.202", "4.203", "5"),
        "gdcm": ("4.50", "4.57", "4.70"),  # JPEG of 8 bits, lossless JPEG
        "pyjpegls": ("4.80", "4.81"),
    }.items()
    for syntax in syntaxes
}
_JPEG, _JPEG_2000 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"  # first bytes of a stream
_END = b"\xff\xd9"  # last bytes of either


def check_inflated(file: BinaryIO) -> None:
    """Refuses a deflated file that would fill the memory, since pydicom inflates it as a whole.

    Args:
        file: stands at its beginning, where it is left. The transfer syntax is looked for in its
            first 64 KiB; the meta information that names it comes first (PS3.10, 7.1).
    """
    if DEFLATED.encode() in file.read(2**16):
        from pydicom.filereader import read_dataset, read_preamble

        file.seek(0)
        read_preamble(file, force=True)
        read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        inflater, packed, size = zlib.decompressobj(-zlib.MAX_WBITS), file.read(), 0
        while more := inflater.decompress(packed, 2**20):
            packed, size = inflater.unconsumed_tail, size + len(more)
            if size > INFLATED:
                raise DicomError(f"deflated, and more than {INFLATED:,} bytes when it is inflated")
    file.seek(0)


def find_pixels(file: BinaryIO) -> tuple[int, int]:
    """Returns where the value of Pixel Data begins, and its length, in bytes (7.1.2, 7.1.3).

    The length of compressed pixels is 0xFFFFFFFF (A.4). Without pixels, both are -1.

    Args:
        file: stands where the header ends.
    """
    head = file.read(12)
    if head[:4] not in (b"\xe0\x7f\x10\0", b"\x7f\xe0\0\x10"):
        return -1, -1
    order: Literal["little", "big"] = "big" if head[0] == 0x7F else "little"
    explicit = head[4:6] in (b"OW", b"OB")  # the length then follows two reserved bytes
    length = int.from_bytes(head[8:12] if explicit else head[4:8], order)
    return file.tell() - (0 if explicit else 4), length


def check_length(file: BinaryIO, slice: DicomSlice, length: int) -> None:
    """Refuses a file without pixels, and uncompressed pixels of another length than expected.

    Args:
        file: the file.
        slice: any of its slices.
        length: of the pixels, see :func:`find_pixels`.
    """
    if slice.transfer_syntax == DEFLATED:  # seen when it is decoded
        return
    if length < 0:
        raise DicomError("no pixels: the file is cut off, or holds a header alone")
    if slice.transfer_syntax in _DECODERS:
        if length != 0xFFFFFFFF:
            raise DicomError("its pixels are not as its transfer syntax says")
        return
    there = min(length, file.seek(0, io.SEEK_END) - slice.offset)
    expected = slice.rows * slice.columns * slice.frames * slice.bits_allocated // 8
    if length not in (expected, expected + expected % 2) or there < expected:
        raise DicomError(
            f"{there} bytes of pixels, expected {expected}: {slice.columns} x {slice.rows} pixels "
            f"of {slice.bits_allocated} bits, frames: {slice.frames}"
        )


def stored_words(slice: DicomSlice, file: BinaryIO) -> np.ndarray:
    """Decodes a slice to unsigned words, uint8 or uint16 [rows, columns].

    The lowest ``bits_stored`` bits are the stored value, in two's complement if it is signed.
    """
    import pydicom

    if slice.transfer_syntax == DEFLATED:
        file.seek(0)
        ds = pydicom.dcmread(file, force=True)
        inflated = io.BytesIO(ds.get("PixelData", b""))
        words = _decoded(slice, inflated, "1.2.840.10008.1.2.1")
        if len(ds.PixelData) - words.nbytes * slice.frames not in (0, 1):
            raise DicomError(f"{len(ds.PixelData)} bytes of pixels, expected {words.nbytes}")
    elif slice.transfer_syntax in _DECODERS:
        _check_stream(slice, file)
        with damage_refused():
            words = _decoded(slice, file, slice.transfer_syntax)
    else:
        words = _decoded(slice, file, slice.transfer_syntax)
    _check_unused_bits(words, slice)
    return words


def _decoded(slice: DicomSlice, file: BinaryIO, syntax: str) -> np.ndarray:
    from pydicom.pixels import get_decoder

    plugin = _DECODERS.get(syntax, "")
    file.seek(max(slice.offset, 0))
    options: dict[str, Any] = {
        "allow_excess_frames": False,
        "view_only": not plugin,
        "rows": slice.rows,
        "columns": slice.columns,
        "number_of_frames": slice.frames,
        "samples_per_pixel": 1,
        "bits_allocated": slice.bits_allocated,
        "bits_stored": slice.bits_allocated,  # all bits, so that unused ones can be checked
        "pixel_representation": int(slice.signed),
        "photometric_interpretation": "MONOCHROME2",  # the other one means no other values
        "pixel_keyword": "PixelData",
        "pixel_vr": "OW",
    }
    decoder = get_decoder(syntax)
    if plugin and plugin not in decoder.available_plugins:
        needs = next((one for one in decoder.missing_dependencies if plugin in one), plugin)
        raise DicomError(f"{decoder.UID.name} needs a decoder that is not installed: {needs}")
    words, _ = decoder.as_array(
        file, index=slice.frame, raw=True, decoding_plugin=plugin, **options
    )
    if words.shape != (slice.rows, slice.columns):
        raise DicomError(f"decoded to {words.shape}, expected {(slice.rows, slice.columns)} pixels")
    return words.astype(words.dtype.newbyteorder("="), copy=False).view(f"u{words.itemsize}")


def _check_stream(slice: DicomSlice, file: BinaryIO) -> None:
    """Refuses a compressed frame that is cut off, of another size, or one of more than are said."""
    from pydicom.encaps import generate_fragments, get_frame, parse_basic_offsets

    file.seek(slice.offset)
    if slice.frames > 1:
        stream = get_frame(file, slice.frame, number_of_frames=slice.frames)
    else:
        offsets = parse_basic_offsets(file)
        fragments = list(generate_fragments(file))
        starts = [one.startswith((_JPEG, _JPEG_2000)) for one in fragments]
        frames = len(fragments) if slice.transfer_syntax == _RLE else sum(starts)
        if max(frames, len(offsets)) > 1:
            raise DicomError(f"{max(frames, len(offsets))} frames, its header says 1")
        stream = b"".join(fragments)
    if slice.transfer_syntax == _RLE:  # says nothing of its size (annex G)
        return
    if not stream.rstrip(b"\0").endswith(_END):
        raise DicomError("truncated: the compressed pixels have no end")
    found = _stream_size(stream)
    expected = slice.columns, slice.rows
    if found[:2] != expected or found[2] > slice.bits_allocated:
        raise DicomError(
            "compressed pixels of {} x {}, {} bits; its header says {} x {}, {} bits".format(
                *found, *expected, slice.bits_allocated
            )
        )


def _stream_size(stream: bytes) -> tuple[int, int, int]:
    """Returns the columns, rows and bits that a compressed stream has by its own account."""
    if stream.startswith(_JPEG):
        frame = jpeg_frame(stream)
        return frame.width, frame.height, frame.bits
    at = stream.find(_JPEG_2000, 0, 512)  # some writers put it in a JP2 file's boxes
    if at < 0 or len(stream) < at + 43:
        raise DicomError("its compressed pixels are neither JPEG nor JPEG 2000")
    right, bottom, left, top = struct.unpack(">IIII", stream[at + 8 : at + 24])  # T.800, A.5.1
    return right - left, bottom - top, (stream[at + 42] & 0x7F) + 1


def _check_unused_bits(words: np.ndarray, slice: DicomSlice) -> None:
    """Refuses values that need more bits than are said to be stored (8.1.1).

    The bits above may be zero, or repeat the sign.
    """
    size = 2**slice.bits_stored
    if slice.bits_stored == 8 * words.itemsize or words.max() < size:
        return
    half = words.dtype.type(size // 2)
    if not slice.signed or (words + half).max() >= size:  # the sum starts again at zero
        raise DicomError(f"pixels use more than the {slice.bits_stored} bits that its header says")
