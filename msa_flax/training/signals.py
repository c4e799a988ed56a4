"""Signals that end a command when it is ready for it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Notes SIGINT and SIGTERM instead of dying of them; a second signal acts at once."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        del frame
        received.append(number)
        signal.signal(number, previous[number])

    for chosen in (signal.SIGINT, signal.SIGTERM):
        previous[chosen] = signal.signal(chosen, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
