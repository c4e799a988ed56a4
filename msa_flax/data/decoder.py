"""OpenCV's decoder made strict: what it would only print is the reason for refusing a file.

The C libraries inside OpenCV repair damaged data, print a line to the process's standard error that
names no file, and return half an image. No option makes them fail. So standard error is read while
they work, by one thread at a time: 4,200 slices of 224 x 224 pixels take 2 seconds in all.
"""

import contextlib
import fcntl
import os
import re
import tempfile
import threading
from collections.abc import Iterator

import cv2
import numpy as np

from msa_flax.data.headers import ImageError

_lock = threading.Lock()
# Lines of libjpeg (all its warnings, jerror.h), of libpng and of OpenCV itself.
_SAID = re.compile(
    rb"^(Corrupt JPEG data|Premature end of|Inconsistent progression|Invalid (SOS|progressive)|"
    rb"Warning: unknown JFIF|Unknown Adobe color|Unsupported marker|Application transferred|"
    rb"libpng |\[ *(WARN|ERROR|INFO|DEBUG|FATAL):).*"
)
_HARMLESS = re.compile(r"^(\[|libpng (?!.*Too much image data))")  # else no image is returned


def imdecode(data: bytes, flags: int) -> np.ndarray:
    """Returns ``cv2.imdecode`` of a file, uint8 or uint16 [h, w] or [h, w, c].

    Raises:
        ImageError: it cannot be decoded, or a decoder has said that its data are damaged.
    """
    image = None
    with damage_refused(), contextlib.suppress(cv2.error):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ImageError("OpenCV cannot decode it")
    return image


@contextlib.contextmanager
def damage_refused() -> Iterator[None]:
    """Raises an error if a decoder that works meanwhile says that its data are damaged.

    Raises:
        ImageError: with what it said. Where the decoder itself fails, nothing is printed.
    """
    with _standard_error() as lines:
        yield
    said = [line.decode(errors="replace") for line in lines if _SAID.match(line)]
    if foreign := b"".join(line + b"\n" for line in lines if not _SAID.match(line)):
        with contextlib.suppress(OSError):
            os.write(2, foreign)  # another thread's words, a moment later
    damage = [line for line in said if not _HARMLESS.match(line)]
    if damage:
        raise ImageError(f"damaged: {damage[0].removeprefix('Corrupt JPEG data: ')[:60]}")


@contextlib.contextmanager
def _standard_error() -> Iterator[list[bytes]]:
    """Collects the lines that are written to file descriptor 2 meanwhile."""
    lines: list[bytes] = []
    with _lock:
        try:
            before = os.dup(2)
        except OSError:  # closed by whoever started the program
            before = os.open(os.devnull, os.O_WRONLY)
        collected = _unnamed_file()
        os.dup2(collected, 2)
        try:
            yield lines
        finally:
            os.dup2(before, 2)
            os.close(before)
            text = os.pread(collected, os.fstat(collected).st_size, 0)
            os.close(collected)
            lines += text.removesuffix(b"\n").split(b"\n") if text else []


def _unnamed_file() -> int:
    """Returns the number of an empty file, in memory where that can be (Linux).

    A pipe has room for 64 KiB: a decoder that says more, or another thread, would wait for ever.
    """
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("standard error")
    else:
        with tempfile.TemporaryFile() as file:
            number = os.dup(file.fileno())
    fcntl.fcntl(number, fcntl.F_SETFL, os.O_APPEND)  # else threads overwrite each other's words
    return number
