"""The memory of this process."""

import contextlib
import ctypes
import resource
import sys

# Parameters of mallopt, see malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def peak_memory_gib() -> float:
    """Returns the largest resident memory that this program has had so far.

    Where the kernel tells it (Linux, VmHWM) that is this program's own; elsewhere it may include
    that of the process which started it, before the program was loaded.
    """
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, KiB elsewhere


def trim_memory() -> None:
    """Gives freed memory back to the operating system, where the C library can (glibc).

    Compiling the training step leaves half a GiB of freed pieces behind, which would otherwise
    stay resident beside everything that the step itself needs.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_memory() -> None:
    """Lets this process keep, from now on, the memory that it frees, where it can (glibc).

    XLA asks for its intermediate results' memory anew at each dispatch on a CPU. By default that is
    mapped and unmapped each time, a quarter of a million page faults a GiB, and they are four times
    slower while other processes free much memory too. The peak stays as it is: what is freed is
    what the next dispatch asks for. Memory belongs to the thread that asked for it, so this helps
    where XLA computes in the thread that calls it.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
