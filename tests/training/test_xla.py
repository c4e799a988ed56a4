"""Memory that compiling leaves is given back, and what computing frees is kept."""

import ctypes
import os
import platform
import resource
import subprocess
import sys

import pytest

from msa_flax.training.xla import keep_memory, trim_memory


def words_printed_by(script, **environment):
    """Runs a script in a new process: the memory of this one depends on earlier tests."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("library", [OSError, AttributeError])
def test_trimming_is_left_out_where_the_c_library_cannot(monkeypatch, library):
    def missing(name):
        raise library

    monkeypatch.setattr(ctypes, "CDLL", missing)
    trim_memory()
    keep_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_for_the_next_request():
    script = """
import resource
import numpy as np
from msa_flax.training.xla import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_memory()
print(faults(), faults(), faults())
"""
    # Without huge pages: a fault a page.
    first, *later = (int(word) for word in words_printed_by(script, NUMPY_MADVISE_HUGEPAGE="0"))
    pages = 2**24 * 8 // resource.getpagesize()
    assert first > pages / 2
    assert max(later) < pages / 8
