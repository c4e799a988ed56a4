"""Results on their way: each object to each destination once, as the queue says.

A destination that is away is left alone for a while, longer each time, and gets everything when it
is back. One that refuses a result is offered it a few times more; others are sent meanwhile.
"""

import hashlib
import logging
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from msa_flax.archive.queue import Queue
from msa_flax.archive.records import reason_of
from msa_flax.archive.sending import AwayError, Destination
from msa_flax.archive.visits import Patience, Send

log = logging.getLogger("msa_flax")


class Delivery:
    """Sends what waits in a queue.

    Attributes:
        destinations: by name.
        away: by name of a destination: how often it was away, and until when it is left alone.
    """

    def __init__(
        self, queue: Queue, results: Path, destinations: Sequence[Destination], patience: Patience
    ) -> None:
        """Sends nothing yet.

        Args:
            queue: what is to be sent.
            results: the folder with a folder for each result.
            destinations: where all of it goes.
            patience: with a destination that is away, or refuses a result.
        """
        self._queue, self._results, self._patience = queue, results, patience
        self.destinations = {one.name: one for one in destinations}
        self.away: dict[str, tuple[int, float]] = {}
        queue.address(self.destinations)

    def send_next(self) -> bool:
        """Sends a result to a destination; returns whether there was one to send."""
        now = time.time()
        left_alone = [name for name, (_, until) in self.away.items() if until > now]
        send = self._queue.next_send(now, left_alone)
        if send and not (self._results / send.name).is_dir():  # somebody has removed it
            log.warning("study %s: its results were removed before they were sent", send.study)
            self._queue.forget(send)
        elif send:
            self._try(send)
        return send is not None

    def _try(self, send: Send) -> None:
        name, attempts, now = send.destination, send.attempts, time.time()
        state, reason, pause, due = "sent", "", 0.0, now
        try:
            self._send(send)
            self.away.pop(name, None)
        except sqlite3.Error:  # there is no room to note what has arrived
            raise
        except AwayError as error:
            failures = self.away.get(name, (0, 0.0))[0] + 1
            state, reason, pause = "waiting", str(error), self._patience.wait(failures)
            self.away[name] = failures, now + pause
        except Exception as error:
            attempts, reason = attempts + 1, reason_of(error)
            state = "refused" if attempts >= self._patience.attempts else "waiting"
            pause = self._patience.wait(attempts)
            due = now + pause
        if reason:
            log.info("%s: %s; a pause of %.0f s", name, reason, pause)
        self._queue.note_send(send, state, attempts, due, reason)

    def _send(self, send: Send) -> None:
        name = send.destination
        left = {}
        for path in sorted(self._results.glob(f"{send.name}/dicom/*/*.dcm")):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if not self._queue.has(name, digest):
                left[path] = digest
        if left:
            sent = self._queue.note_sent
            self.destinations[name].send(list(left), lambda path: sent(name, left[path]))
