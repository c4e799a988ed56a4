import re
import threading

import pytest

from msa_flax.data import DataError
from msa_flax.data.patterns import time_limit

SLOW = re.compile("^(a+)+$")


def test_a_search_that_takes_for_ever_is_stopped_and_a_quick_one_is_not():
    with pytest.raises(DataError, match="too slow"), time_limit(0.1, DataError("too slow")):
        SLOW.match("a" * 60 + "b")
    with time_limit(10, DataError("too slow")):
        assert SLOW.match("a" * 60)


def test_beside_the_main_thread_nothing_is_limited():
    found = []

    def search():
        with time_limit(1e-9, DataError("too slow")):
            found.append(SLOW.match("aaa"))

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert found[0]
