"""The memory of this process."""

import contextlib
import ctypes
import resource
import sys


def peak_memory_gib() -> float:
    """Returns the largest resident memory that this process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, KiB elsewhere


def trim_memory() -> None:
    """Gives freed memory back to the operating system, where the C library can (glibc).

    Compiling the training step leaves half a GiB of freed pieces behind, which would otherwise
    stay resident beside everything that the step itself needs.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
