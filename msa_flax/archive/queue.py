"""The queue of a watcher: which studies there are, what became of each, and what is still to send.

One SQLite file, of which every change is whole or not at all. So a process that is killed at any
moment knows afterwards what is done. It names studies and files by pseudonyms only.

A study is *ready* when nothing of it has changed for a while, and no result is known of what it now
consists of. A result is "predicted" until every destination has it, then "done"; it is "failed"
where there is none, or where a destination refuses it for good.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msa_flax.archive.visits import Send, Study, Visit
from msa_flax.files import UserError

_TABLES = Path(__file__).with_name("queue.sql").read_text("utf-8")
_THIS = "study = ? AND content = ?"


class QueueError(UserError):
    """The queue cannot be used: another watcher has it, or it is damaged."""


class Queue:
    """The queue, which no other process may use meanwhile.

    Attributes:
        db: the connection; every change stands in ``with queue.db``, which makes it whole.
    """

    def __init__(self, path: Path) -> None:
        """Opens the queue, or makes it where there is none.

        Raises:
            QueueError: another process has it, or it is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.db = sqlite3.connect(path, timeout=0)
            self.db.create_function("sha256", 1, _sha256, deterministic=True)
            self.db.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            self.db.close()
            if "locked" in str(error):
                in_use = f"another process watches with {path.parent}"
                raise QueueError(f"{in_use}; stop it, or name another --out") from error
            raise QueueError(
                f"{path}: expected the queue of a watch, got {error}; make room, or if it is "
                "damaged move it away: then all studies are predicted again, with the same UIDs"
            ) from error

    def close(self) -> None:
        """Lets other processes use the queue."""
        self.db.close()

    def next_study(self, now: float, still: float) -> Study | None:
        """Returns a study that is to be predicted now: of those tried least, the oldest.

        Args:
            now: seconds since 1970.
            still: seconds that nothing of it has changed.
        """
        found = self._rows(
            "SELECT study, content, files, attempts, reason FROM fresh "
            "WHERE since <= ? AND due <= ? ORDER BY attempts, since LIMIT 1",
            *(now - still, now),
        )
        return Study(*found[0]) if found else None

    def is_moving(self, now: float, still: float) -> bool:
        """Returns whether a study without a result is waited for because it may still grow."""
        return bool(self._rows("SELECT 1 FROM fresh WHERE since > ? LIMIT 1", now - still))

    def is_current(self, study: Study) -> bool:
        """Returns whether the folder holds a study as it was."""
        return bool(self._rows(f"SELECT 1 FROM studies WHERE {_THIS}", *_this(study)))

    def note_attempt(self, study: Study, attempts: int, *, due: float, reason: str) -> None:
        """Notes how often a study was tried, when it may be tried again, and what went wrong."""
        query = f"UPDATE studies SET attempts = ?, due = ?, reason = ? WHERE {_THIS}"
        self._change(query, attempts, due, reason, *_this(study))

    def add_result(
        self, one: Visit, state: str, entry: Mapping[str, Any], *, size: int = 0, now: float = 0.0
    ) -> None:
        """Notes what became of a study.

        Args:
            one: the study.
            state: "predicted", or "failed".
            entry: what the log is to say of it.
            size: bytes of the results.
            now: when it failed, in seconds since 1970.
        """
        self._change(
            "INSERT OR REPLACE INTO results (study, content, state, entry, bytes, finished) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            *(*_this(one), state, json.dumps(entry), size, now),
        )

    def address(self, destinations: Iterable[str]) -> None:
        """Sets where all goes that waits to be sent, whatever was named before."""
        with self.db:
            self.db.execute("DELETE FROM destinations")
            self.db.executemany("INSERT INTO destinations VALUES (?)", zip(destinations))

    def next_send(self, now: float, away: Sequence[str]) -> Send | None:
        """Returns a result to send now: of those refused least, the one tried longest ago.

        Args:
            now: seconds since 1970.
            away: destinations that are not to be tried.
        """
        query = "SELECT study, content, destination, attempts FROM owed WHERE due <= ? "
        query += f"AND destination NOT IN ({', '.join('?' * len(away))}) "
        found = self._rows(f"{query} ORDER BY attempts, due, place LIMIT 1", now, *away)
        return Send(*found[0]) if found else None

    def note_send(self, send: Send, state: str, attempts: int, due: float, reason: str) -> None:
        """Notes how an attempt to send ended: "waiting", "sent" or "refused"."""
        values = *_this(send), send.destination, state, attempts, due, reason
        self._change("INSERT OR REPLACE INTO sends VALUES (?, ?, ?, ?, ?, ?, ?)", *values)

    def has(self, destination: str, digest: str) -> bool:
        """Returns whether a destination has an object, by the SHA-256 of its bytes."""
        query = "SELECT 1 FROM sent WHERE destination = ? AND object = ?"
        return bool(self._rows(query, destination, digest))

    def note_sent(self, destination: str, digest: str) -> None:
        """Notes that a destination has an object."""
        self._change("INSERT OR IGNORE INTO sent VALUES (?, ?)", destination, digest)

    def settle(self, now: float) -> None:
        """Ends the results that no destination waits for: done, or failed where one refused.

        Args:
            now: seconds since 1970.
        """
        refused = "(study, content) IN (SELECT study, content FROM sends WHERE state = 'refused')"
        self._change(
            f"UPDATE results SET finished = ?, state = iif({refused}, 'failed', 'done') "
            "WHERE state = 'predicted' AND (study, content) NOT IN "
            "(SELECT study, content FROM owed)",
            now,
        )

    def unlogged(self) -> list[tuple[Visit, dict[str, Any]]]:
        """Returns what is finished and not in the log, the oldest first, and what it says of it.

        Beside what was known before that is "state", "finished" in seconds since 1970, and
        "destinations": by name "sent", or why it was refused.
        """
        said = "CASE state WHEN 'sent' THEN state ELSE reason END"
        sends = f"SELECT destination, {said} FROM sends WHERE {_THIS}"
        found = self._rows(
            "SELECT study, content, state, entry, finished FROM results "
            "WHERE logged = 0 AND state != 'predicted' ORDER BY finished, rowid"
        )
        lines = []
        for *key, state, entry, at in found:
            about = {"state": state, "finished": at, "destinations": dict(self._rows(sends, *key))}
            lines.append((Visit(*key), json.loads(entry) | about))
        return lines

    def note_logged(self, one: Visit) -> None:
        """Notes that a result is in the log."""
        self._change(f"UPDATE results SET logged = 1 WHERE {_THIS}", *_this(one))

    def done_studies(self) -> list[Visit]:
        """Returns the studies in the folder, as they are, whose results are sent."""
        query = "SELECT study, content FROM studies JOIN results USING (study, content)"
        return [Visit(*row) for row in self._rows(f"{query} WHERE state = 'done'")]

    def oldest_done(self) -> Visit | None:
        """Returns the oldest result that is kept and that nobody waits for."""
        found = self._rows(
            "SELECT study, content FROM results WHERE state = 'done' AND bytes > 0 "
            "ORDER BY finished LIMIT 1"
        )
        return Visit(*found[0]) if found else None

    def note_removed(self, one: Visit) -> None:
        """Notes that the folder of a result is gone, which nobody waits for."""
        self._change(f"UPDATE results SET bytes = 0 WHERE {_THIS}", *_this(one))

    def forget(self, one: Visit) -> None:
        """Forgets a result, so that its study is predicted again if it is in the folder."""
        with self.db:
            self.db.execute(f"DELETE FROM sends WHERE {_THIS}", _this(one))
            self.db.execute(f"DELETE FROM results WHERE {_THIS}", _this(one))

    def retry_failed(self) -> None:
        """Lets all that has failed be tried again: what was refused is sent, the rest predicted."""
        refused = "(study, content) IN (SELECT study, content FROM sends WHERE state = 'refused')"
        self.db.executescript(
            "BEGIN; UPDATE results SET state = 'predicted', logged = 0 WHERE state = 'failed' "
            f"AND {refused}; DELETE FROM results WHERE state = 'failed'; "
            "UPDATE sends SET state = 'waiting', attempts = 0, due = 0 WHERE state = 'refused'; "
            "UPDATE studies SET attempts = 0, due = 0; COMMIT"
        )

    def total_bytes(self) -> int:
        """Returns the bytes of all results that are kept."""
        return int(self._rows("SELECT coalesce(sum(bytes), 0) FROM results")[0][0])

    def counts(self) -> dict[str, int]:
        """Returns how many studies are "waiting", and how many results are in each state."""
        return dict(self._rows("SELECT * FROM counts"))

    def unsent(self) -> dict[str, int]:
        """Returns for how many results each destination waits."""
        return dict(self._rows("SELECT destination, count(*) FROM owed GROUP BY destination"))

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.db.execute(query, values).fetchall()

    def _change(self, query: str, *values: Any) -> None:
        with self.db:
            self.db.execute(query, values)


def _sha256(lines: str) -> str:
    """Returns the digest of some lines in any order."""
    return hashlib.sha256("\n".join(sorted(lines.split("\n"))).encode()).hexdigest()


def _this(one: Visit) -> tuple[str, str]:
    return one.study, one.content
