import ctypes
import os
import platform
import resource
import subprocess
import sys

import pytest

from msa_flax.training import memory


def _run(script: str, **environment: str) -> list[str]:
    """What a new process prints, in words: this one's peak and store depend on earlier tests."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


def test_the_peak_grows_with_what_is_touched_and_does_not_fall():
    script = """
import numpy as np
from msa_flax.training import memory

before = memory.peak_memory_gib()
block = np.ones(2**25)
during = memory.peak_memory_gib()
del block
print(before, during, memory.peak_memory_gib())
"""
    before, during, after = (float(word) for word in _run(script))
    assert 0.24 < during - before < 0.3  # 256 MiB
    assert after > during - 0.01  # the kernel counts a few pages late


@pytest.mark.parametrize("library", [OSError, AttributeError])
def test_trimming_is_left_out_where_the_c_library_cannot(monkeypatch, library):
    def missing(name):
        raise library

    monkeypatch.setattr(ctypes, "CDLL", missing)
    memory.trim_memory()
    memory.keep_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_for_the_next_request():
    script = """
import resource
import numpy as np
from msa_flax.training import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

memory.keep_memory()
print(faults(), faults(), faults())
"""
    # Without huge pages: a fault a page.
    first, *later = (int(word) for word in _run(script, NUMPY_MADVISE_HUGEPAGE="0"))
    pages = 2**24 * 8 // resource.getpagesize()
    assert first > pages / 2
    assert max(later) < pages / 8
