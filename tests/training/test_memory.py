import ctypes
import os
import platform
import resource
import subprocess
import sys

import numpy as np
import pytest

from msa_flax.training import memory


def test_the_peak_grows_with_what_is_touched_and_does_not_fall():
    before = memory.peak_memory_gib()
    block = np.ones(2**25)  # 256 MiB
    during = memory.peak_memory_gib()
    del block
    # At least what was not resident before; the process may have had freed pieces in store.
    assert before < during <= memory.peak_memory_gib()


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
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"},  # a fault a page
        check=True,
        capture_output=True,
        text=True,
    )
    first, *later = (int(count) for count in done.stdout.split())
    pages = 2**24 * 8 // resource.getpagesize()
    assert first > pages / 2
    assert max(later) < pages / 8
