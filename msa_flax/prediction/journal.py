"""The journal of a prediction: what is done so far, so that a killed run continues.

One line of JSON for each batch, after a first line that says what is predicted and by what. A line
that a kill has cut off is taken away, and its batch is done again.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msa_flax.files import read_json
from msa_flax.prediction.inputs import PredictionError
from msa_flax.prediction.score import Batch, Row

FILES = ("slices.csv", "series.csv", "refused.csv", "run.json", "report.html")
_NAME = ".unfinished.jsonl"


class Journal:
    """The journal in a folder of results, which no other process may use meanwhile.

    Attributes:
        done: how many slices are done.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        """Opens the journal, makes it where there is none, or goes on with it.

        Args:
            folder: of the results; made if it is not there.
            identity: what makes this prediction this one: "inputs", "model", "settings".

        Raises:
            PredictionError: the folder has another prediction, or files of other kinds, or another
                process is writing to it.
        """
        self.path, self.done = folder / _NAME, 0
        folder.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise PredictionError(f"another process predicts into {folder}; wait for it") from error
        try:
            self._open(dict(identity))
        except PredictionError:
            self.close()
            raise

    def _open(self, identity: dict[str, str]) -> None:
        end = 0
        for line in self._lines():
            if not end and json.loads(line) != identity:
                raise PredictionError(_differs(self.path.parent, json.loads(line), identity))
            self.done += json.loads(line)["taken"] if end else 0
            end += len(line)
        self._file.truncate(end)
        if not end:
            self._write(identity)

    def _lines(self) -> Iterator[bytes]:
        self._file.seek(0)
        for line in self._file:
            if line.endswith(b"\n"):
                yield line

    def _write(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(values).encode() + b"\n")
        self._file.flush()

    def add(self, batch: Batch) -> None:
        """Adds a batch, so that it is not lost when the program is killed."""
        self._write({"rows": batch.rows, "refused": batch.refused, "taken": batch.taken})
        self.done += batch.taken

    def _batches(self) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(self._lines()):
            if number:
                yield json.loads(line)

    def rows(self) -> Iterator[Row]:
        """Yields the rows of all slices, in the order of the inputs."""
        for batch in self._batches():
            yield from batch["rows"]

    def refused(self) -> list[tuple[str, str]]:
        """Returns (path, reason) of all slices that could not be read."""
        return [(path, reason) for batch in self._batches() for path, reason in batch["refused"]]

    def close(self, *, finished: bool = False) -> None:
        """Lets other processes use the folder; a finished journal is removed."""
        if finished:
            self.path.unlink(missing_ok=True)
        self._file.close()


def is_finished(folder: Path, identity: Mapping[str, str]) -> bool:
    """Returns whether a folder has this very prediction, finished.

    Raises:
        PredictionError: it has another one, or files of other kinds.
    """
    if folder.exists() and not folder.is_dir():
        raise PredictionError(f"--out: expected a folder, got the file {folder}")
    known = read_json(folder / "run.json").get("identity")
    if known is not None and known != identity:
        raise PredictionError(_differs(folder, known, identity))
    with contextlib.suppress(FileNotFoundError):
        names = set(os.listdir(folder))
        ours = {name for name in names if name in (*FILES, _NAME) or name.endswith(".tmp")}
        if names - ours or (known is None and "run.json" in names):
            raise PredictionError(
                f"--out: expected a new folder, or one of an earlier prediction; {folder} holds "
                f"other files, such as {min(names - ours or names)}"
            )
    return known is not None


def _differs(folder: Path, known: Mapping[str, str], identity: Mapping[str, str]) -> str:
    said = {"inputs": "other files", "model": "another model", "settings": "other settings"}
    other = [words for name, words in said.items() if known.get(name) != identity.get(name)]
    return (
        f"{folder} holds a prediction of {' and '.join(other) or 'another version'}; nothing was "
        "overwritten: name another folder with --out"
    )
