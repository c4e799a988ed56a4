"""The folder that a receiver of DICOM files fills: which studies there are, and since when.

A file belongs to the study that its header names, wherever it lies and whatever it is called. Each
header is read once, until the file changes. Links are never followed, and hidden files are passed
over. Nothing here changes a file.
"""

import contextlib
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


class Incoming:
    """A folder with studies.

    Attributes:
        folder: the folder.
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
            study_of: from a file to the UID of its study; "" where it is no image of one; None
                where that cannot be said at the moment.
            pseudonym: from a UID, or the name of a file, to what stands for it in the queue.
        """
        self.folder, self._unread, self._before = folder, 0, 0.0
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
            changed = db.execute("SELECT * FROM changed").fetchall()
            for key, path, *status in changed:
                study = self._study_of(self.folder / os.fsdecode(path))
                if study is not None:
                    row = (key, *status, study and self._pseudonym(study))
                    db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", row)
            if gone.rowcount or changed:
                # What is new came after the last look and before this one, whatever its clock says.
                db.execute(
                    "INSERT INTO studies (study, content, files, since) "
                    "SELECT study, content, files, min(max(since, ?), ?) FROM found WHERE true "
                    "ON CONFLICT (study) DO UPDATE SET content = excluded.content, files = "
                    "excluded.files, since = excluded.since, attempts = 0, due = 0, reason = '' "
                    "WHERE content != excluded.content",
                    (self._before, now),
                )
                db.execute("DELETE FROM studies WHERE study NOT IN (SELECT study FROM files)")
        self._before = now

    def _walk(self) -> Iterator[tuple[Any, ...]]:
        """Yields rows of the table "present"."""
        unread: list[object] = []
        for folder, folders, files in os.walk(self.folder, onerror=unread.append):
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
                    unread += [name] * (not file and not stat.S_ISDIR(status.st_mode))
        self._unread = len(unread)

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
        query = "SELECT path, size, changed FROM whole WHERE study = ?"
        rows = self._db.execute(query, (study.study,))
        return [(self.folder / os.fsdecode(path), *rest) for path, *rest in rows]

    def passed_over(self) -> int:
        """Returns how much is no image of a study: links, pipes and locked folders too."""
        query = "SELECT count(*) FROM files WHERE study = ''"
        return self._unread + int(self._db.execute(query).fetchone()[0])
