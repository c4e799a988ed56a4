"""Whole image files in memory, and the chunks that PNG is made of."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def picture(h=48, w=64):
    y, x = np.mgrid[:h, :w]
    smooth = 128 + 60 * np.sin(x / 9) + 50 * np.cos(y / 7)
    return smooth.astype(np.uint8)  # smooth, so that JPEG keeps it


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def chunk(name, content):
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
