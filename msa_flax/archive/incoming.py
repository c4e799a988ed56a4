"""The folder that a receiver of DICOM files fills: which studies there are, and since when.

A file belongs to the study that its header names, wherever it lies and whatever it is called. Each
header is read once, until the file changes. Links are never followed, and hidden files are passed
over. Nothing here changes a file.
"""

import contextlib
import hashlib
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msa_flax.archive.queue import Queue
from msa_flax.archive.visits import Visit

# As receivers and copying programs call what they have not finished.
_UNFINISHED = re.compile(r"~$|\.(part|partial|filepart|crdownload|tmp|temp)$", re.IGNORECASE)
_CHANGED = (
    "SELECT p.* FROM present p LEFT JOIN files f ON f.key = p.key WHERE f.key IS NULL "
    "OR (f.size, f.changed, f.touched) != (p.size, p.changed, p.touched)"
)


class Incoming:
    """A folder with studies.

    Attributes:
        folder: the folder.
        passed: how many links, pipes and unreadable folders were passed over at the last look.
    """

    def __init__(
        self,
        folder: Path,
        queue: Queue,
        *,
        study_of: Callable[[Path], str | None],
        pseudonym: Callable[[str], str],
    ) -> None:
        """Looks at nothing yet.

        Args:
            folder: it must be there.
            queue: what is found is noted in it.
            study_of: from a file to the pseudonym of its study; "" where it is no image of one;
                None where that cannot be said at the moment.
            pseudonym: from the name of a file to what stands for it in the queue.
        """
        self.folder, self.passed = folder, 0
        self._db, self._study_of, self._pseudonym = queue.db, study_of, pseudonym

    def scan(self, now: float) -> None:
        """Brings the queue up to date.

        Args:
            now: seconds since 1970.
        """
        db = self._db
        with db:
            db.execute("DELETE FROM present")
            db.executemany("INSERT INTO present VALUES (?, ?, ?, ?, ?, ?)", self._walk())
            gone = db.execute("DELETE FROM files WHERE key NOT IN (SELECT key FROM present)")
            changed = db.execute(_CHANGED).fetchall()
            for key, path, *status in changed:
                study = self._study_of(self.folder / os.fsdecode(path))
                if study is not None:
                    row = (key, *status, study)
                    db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", row)
            if gone.rowcount or changed:
                self._note_studies(now)

    def _walk(self) -> Iterator[tuple[Any, ...]]:
        """Yields rows of the table "present"."""
        refused: list[OSError] = []
        self.passed = 0
        for folder, folders, files in os.walk(self.folder, onerror=refused.append):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):  # it has just been renamed
                    status = os.lstat(path)
                    file = stat.S_ISREG(status.st_mode)
                    if file and not name.startswith("."):
                        inside = os.path.relpath(path, self.folder)
                        times = status.st_mtime_ns, status.st_ctime_ns
                        row = self._pseudonym(inside), os.fsencode(inside), status.st_size, *times
                        yield *row, bool(_UNFINISHED.search(name))
                    self.passed += not (file or stat.S_ISDIR(status.st_mode))
        self.passed += len(refused)

    def _note_studies(self, now: float) -> None:
        db = self._db
        rows = db.execute(
            "SELECT study, key, size, changed, touched FROM files WHERE study != '' ORDER BY 1, 2"
        )
        for study, members in itertools.groupby(rows, key=lambda row: row[0]):
            digest, count, newest = hashlib.sha256(), 0, 0
            for _, key, size, changed, touched in members:
                digest.update(f"{key} {size} {changed}\n".encode())
                count, newest = count + 1, max(newest, touched)
            db.execute(
                "INSERT INTO studies (study, content, files, since) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (study) DO UPDATE SET content = excluded.content, "
                "files = excluded.files, since = excluded.since, attempts = 0, due = 0 "
                "WHERE content != excluded.content",
                # A clock that is ahead, such as a file server's, holds no study up for ever.
                (study, digest.hexdigest(), count, min(now, newest / 1e9)),
            )
        db.execute("DELETE FROM studies WHERE study NOT IN (SELECT study FROM files)")

    def images(self, study: Visit) -> list[Path]:
        """Returns the files of a study as they were at the last look, those that are whole."""
        return [path for path, *_ in self._files(study)]

    def remove(self, study: Visit) -> None:
        """Removes the files of a study that are as they were at the last look."""
        for path, size, changed in self._files(study):
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                if (status.st_size, status.st_mtime_ns) == (size, changed):
                    path.unlink()
                for folder in itertools.takewhile(lambda one: one != self.folder, path.parents):
                    folder.rmdir()  # those that are empty now

    def _files(self, study: Visit) -> list[tuple[Path, int, int]]:
        rows = self._db.execute(
            "SELECT path, p.size, p.changed FROM present p JOIN files USING (key) "
            "WHERE study = ? AND NOT p.unfinished ORDER BY path",
            (study.study,),
        )
        return [(self.folder / os.fsdecode(path), *rest) for path, *rest in rows]

    def foreign(self) -> int:
        """Returns how many files are no CT images of a study."""
        query = "SELECT count(*) FROM files WHERE study = ''"
        return int(self._db.execute(query).fetchone()[0])
