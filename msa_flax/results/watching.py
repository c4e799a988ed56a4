"""A folder watched: each study that has become still is predicted, and its results are sent.

One study is predicted at a time, by a model that is loaded once. What is done is noted in a queue
(:mod:`msa_flax.archive.queue`) before the next thing is begun, so the process may be killed at any
moment. What goes wrong with one study, or one destination, does not stop the others.
"""

import contextlib
import dataclasses
import datetime
import errno
import functools
import hashlib
import logging
import os
import shutil
import sqlite3
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msa_flax import __version__
from msa_flax.archive.incoming import Incoming
from msa_flax.archive.queue import Queue
from msa_flax.archive.records import append_line, write_metrics
from msa_flax.archive.sending import AwayError, Destination, RefusedError
from msa_flax.archive.visits import Send, Study, Visit
from msa_flax.data import dicom
from msa_flax.data.dicom_header import CT
from msa_flax.data.pseudonyms import read_salt
from msa_flax.files import UserError, remove_unfinished, written_whole
from msa_flax.prediction.predictor import Predictor
from msa_flax.results.predictions import predict_all

log = logging.getLogger("msa_flax")

MOST_FILES = 20_000  # of a study; a CT of a neck has some hundred
_LONGEST_PAUSE = 600.0  # seconds between two attempts
_LONGEST_IDLE = 5.0  # seconds between two looks at the folder
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WatchError(UserError):
    """A folder cannot be watched, or a study not be predicted."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a folder is watched.

    Attributes:
        still: seconds without a change after which a study counts as complete.
        attempts: how often a study is tried, and a result offered to a destination.
        pause: seconds after the first failure; it doubles with each further one.
        keep: bytes of results that are kept; what nobody waits for is removed, the oldest first.
        delete_images: whether a study's own files are removed once all destinations have its
            results.
        once: whether to end when nothing can be done at the moment.
        metrics: the file for Prometheus.
    """

    still: float
    attempts: int
    keep: int
    metrics: Path
    pause: float = 5.0
    delete_images: bool = False
    once: bool = False

    def wait(self, attempts: int) -> float:
        """Returns the seconds to wait after some failures, one or more."""
        return float(min(_LONGEST_PAUSE, self.pause * 2 ** min(attempts - 1, 20)))


class Watcher:
    """Watches one folder."""

    def __init__(
        self,
        model: Predictor,
        *,
        folder: Path,
        out: Path,
        queue: Queue,
        destinations: Sequence[Destination],
        rules: Rules,
    ) -> None:
        """Takes up what an earlier process has left.

        Args:
            model: that predicts.
            folder: that receives studies.
            out: for everything that is written.
            queue: in ``out``.
            destinations: of the results; what waits for others goes to these.
            rules: how to watch.

        Raises:
            PredictionError: the model has a calibration that cannot be used.
        """
        model.scorer.check()
        name = functools.partial(dicom.pseudonym, salt=read_salt())
        study_of = functools.partial(_study_of, name=name)
        self.failed = 0  # studies that have failed since the start
        self._model, self._out, self._queue, self._rules = model, out.resolve(), queue, rules
        self._incoming = Incoming(folder, queue, study_of=study_of, pseudonym=name)
        self._destinations = {one.name: one for one in destinations}
        self._away: dict[str, tuple[int, float]] = {}  # by name: failures; not to be tried until
        self._said = ""  # why nothing can be done, if it is so
        remove_unfinished(self._out / "results")
        queue.address(list(self._destinations))

    def run(self, received: Sequence[int]) -> None:
        """Watches until a signal comes, or by the rules until nothing can be done.

        Args:
            received: numbers of signals; the present study is finished when one is added.

        Raises:
            OSError: there is no room, and the rules do not let it wait for some.
        """
        while not received:
            began = time.time()
            worked = self._step()
            if not worked and not received:
                if self._rules.once and not self._queue.is_moving(time.time(), self._rules.still):
                    return
                idle = min(_LONGEST_IDLE, max(0.05, self._rules.still / 4))
                _sleep(max(idle, time.time() - began), received)

    def _step(self) -> bool:
        """Looks, predicts a study, sends a result, tidies; returns whether anything was done."""
        try:
            self._incoming.scan(time.time())
            worked = self._predict_next()
            worked = self._send_next() or worked
            self._finish()
            self._say("")
        except (OSError, sqlite3.OperationalError, UserError) as error:
            if not _no_room(error) or self._rules.once:
                raise
            self._say(f"no room in {self._out}: waiting for some")
            worked = False
        with contextlib.suppress(UserError):  # without room; they are written again
            self._write_metrics()
        return worked

    def _say(self, why: str) -> None:
        if why != self._said:
            log.info("%s", why or "going on")
        self._said = why

    def _predict_next(self) -> bool:
        study = self._queue.next_study(time.time(), self._rules.still)
        if study is None:
            return False
        if self._queue.total_bytes() >= self._rules.keep:
            self._say("as many unsent results as may be kept: waiting until some are sent")
            return False
        if study.attempts >= self._rules.attempts:  # the process ended each time
            self._give_up(study, study.reason)
            return True
        # Counted before it is made: so a study that ends the process is not tried for ever.
        due = time.time() + self._rules.wait(study.attempts + 1)
        self._queue.note_attempt(study, study.attempts + 1, due=due, reason="the process ended")
        try:
            entry, size = self._predict(study)
        except Exception as error:
            self._note_failure(study, error)
            return True
        self._incoming.scan(time.time())
        if not self._queue.is_current(study):  # it has grown meanwhile
            shutil.rmtree(self._place(study))
            return True
        self._queue.add_results(study, entry, size, list(self._destinations))
        return True

    def _note_failure(self, study: Study, error: Exception) -> None:
        if _no_room(error):
            self._queue.note_attempt(study, study.attempts, due=0.0, reason="")
            raise error
        reason = _reason(error)
        bad_input = isinstance(error, UserError) and not isinstance(error.__cause__, OSError)
        if bad_input or study.attempts + 1 >= self._rules.attempts:
            self._give_up(study, reason)
        else:
            pause = self._rules.wait(study.attempts + 1)
            log.info("study %s: %s; tried again in %.0f s", study.study, reason, pause)
            due = time.time() + pause
            self._queue.note_attempt(study, study.attempts + 1, due=due, reason=reason)

    def _give_up(self, study: Study, reason: str) -> None:
        entry = {"study": study.study, "images": study.files, "reason": reason}
        self._queue.add_failure(study, entry | {"attempts": study.attempts + 1}, time.time())
        self.failed += 1

    def _place(self, one: Visit) -> Path:
        return self._out / "results" / one.name

    def _predict(self, study: Study) -> tuple[dict[str, Any], int]:
        """Writes the results of a study; returns what the log says of them, and their bytes."""
        images, place = self._incoming.images(study), self._place(study)
        if not 0 < len(images) <= MOST_FILES:
            raise WatchError(f"expected 1 to {MOST_FILES} whole files, got {len(images)}")
        began = time.time()
        shutil.rmtree(place, ignore_errors=True)  # of a process that was killed
        with _staged(self._out / "staged", images) as staged, written_whole(place) as temporary:
            dicom_out = temporary / "dicom"
            tables = temporary / "tables"
            counts, _ = predict_all(self._model, [str(staged)], tables, dicom_out=dicom_out)
        found = [path for path in place.rglob("*") if path.is_file()]
        entry = {
            "study": study.study,
            "result": place.name,
            "model": self._model.fingerprint,
            "images": study.files,
            **counts,
            "objects": sum(path.suffix == ".dcm" for path in found),
            "attempts": study.attempts + 1,
            "seconds": round(time.time() - began, 3),
        }
        return entry, sum(path.stat().st_size for path in found)

    def _send_next(self) -> bool:
        now = time.time()
        away = [name for name, (_, until) in self._away.items() if until > now]
        send = self._queue.next_send(now, away)
        if send is None:
            return False
        if not self._place(send).is_dir():  # somebody has removed it
            self._queue.forget(send)
            return True
        reason, pause = "", 0.0
        try:
            self._send(send)
        except AwayError as error:
            failures = self._away.get(send.destination, (0, 0.0))[0] + 1
            pause, reason = self._rules.wait(failures), str(error)
            self._away[send.destination] = failures, time.time() + pause
            self._queue.note_send(
                send, "waiting", attempts=send.attempts, due=time.time(), reason=reason
            )
        except RefusedError as error:
            attempts, reason = send.attempts + 1, str(error)
            pause = self._rules.wait(attempts)
            state = "refused" if attempts >= self._rules.attempts else "waiting"
            due = time.time() + pause
            self._queue.note_send(send, state, attempts=attempts, due=due, reason=reason)
        else:
            self._away.pop(send.destination, None)
            self._queue.note_send(send, "sent", attempts=send.attempts)
        if reason:
            log.info("%s: %s; tried again in %.0f s", send.destination, reason, pause)
        return True

    def _send(self, send: Send) -> None:
        name = send.destination
        digests = {
            path: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self._place(send).glob("dicom/*/*.dcm"))
        }
        left = [path for path in digests if not self._queue.has(name, digests[path])]
        if left:
            self._destinations[name].send(
                left, lambda path: self._queue.note_sent(name, digests[path])
            )

    def _finish(self) -> None:
        """Ends what nobody waits for: its line in the log, its images, results beyond the limit."""
        self._queue.settle(time.time())
        for one in self._queue.unlogged():
            line = {**one.entry, "state": one.state, "destinations": one.destinations}
            line["time"] = datetime.datetime.fromtimestamp(one.finished, datetime.UTC).isoformat()
            append_line(self._out / "log.jsonl", line)
            self._queue.note_logged(one)
            log.info("study %s: %s", one.study, one.state)
        if self._rules.delete_images:
            for study in self._queue.done_studies():
                self._incoming.remove(study)
        while self._queue.total_bytes() > self._rules.keep and (old := self._queue.oldest_done()):
            shutil.rmtree(self._place(old), ignore_errors=True)
            self._queue.note_removed(old)

    def _write_metrics(self) -> None:
        counts, unsent = self._queue.counts(), self._queue.unsent()
        names = list(self._destinations)
        known = ("fingerprint", self._model.fingerprint, "version", __version__)
        values: dict[str, Mapping[tuple[str, ...], float]] = {
            "studies": {("state", name): float(count) for name, count in counts.items()},
            "unsent": {("destination", name): float(unsent.get(name, 0)) for name in names},
            "destination_up": {
                ("destination", name): float(name not in self._away) for name in names
            },
            "foreign_files": {(): float(self._incoming.foreign())},
            "passed_over": {(): float(self._incoming.passed)},
            "result_bytes": {(): float(self._queue.total_bytes())},
            "stuck": {(): float(bool(self._said))},
            "last_pass_seconds": {(): time.time()},
            "info": {known: 1.0},
        }
        write_metrics(self._rules.metrics, values)


def _study_of(path: Path, name: Any) -> str | None:
    """Returns the pseudonym of the study of a CT image; see :class:`Incoming`."""
    try:
        header = dicom.read_elements(path, ("SOPClassUID", "StudyInstanceUID"))
    except dicom.DicomError as error:
        return None if isinstance(error.__cause__, OSError) else ""
    uid = str(header.get("StudyInstanceUID") or "")
    return name(uid) if uid and str(header.get("SOPClassUID")) in CT else ""


@contextlib.contextmanager
def _staged(folder: Path, images: Sequence[Path]) -> Iterator[Path]:
    """Gives a folder of links to images, whose names say nothing about a patient."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        for number, image in enumerate(images):
            os.symlink(image.resolve(), folder / f"{number:05}.dcm")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _no_room(error: BaseException | None) -> bool:
    while error is not None:
        full = isinstance(error, OSError) and error.errno in _FULL
        if full or (isinstance(error, sqlite3.OperationalError) and "is full" in str(error)):
            return True
        error = error.__cause__
    return False


def _reason(error: Exception) -> str:
    """Returns what went wrong; what another package says may quote the patient's name."""
    if isinstance(error, UserError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"


def _sleep(seconds: float, received: Sequence[int]) -> None:
    end = time.monotonic() + seconds
    while not received and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.2))
