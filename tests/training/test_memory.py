import ctypes

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
