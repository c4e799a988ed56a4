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
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from msa_flax.archive.delivery import Delivery
from msa_flax.archive.incoming import Incoming
from msa_flax.archive.queue import Queue
from msa_flax.archive.records import Sample, append_line, reason_of, write_metrics
from msa_flax.archive.sending import Destination
from msa_flax.archive.visits import Patience, Study
from msa_flax.data import dicom
from msa_flax.data.dicom_header import CT
from msa_flax.data.pseudonyms import read_salt
from msa_flax.files import UserError
from msa_flax.prediction.predictor import Predictor
from msa_flax.results.predictions import predict_all

log = logging.getLogger("msa_flax")

MOST_FILES = 20_000  # of a study; a CT of a neck has some hundred
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WatchError(UserError):
    """A study cannot be predicted."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a folder is watched.

    Attributes:
        still: seconds without a change after which a study counts as complete.
        keep: bytes of results that are kept; what nobody waits for is removed, the oldest first.
        metrics: the file for Prometheus.
        patience: with what fails.
        delete_images: whether a study's own files are removed once all destinations have its
            results.
        once: whether to end when nothing can be done at the moment.
    """

    still: float
    keep: int
    metrics: Path
    patience: Patience = dataclasses.field(default_factory=Patience)
    delete_images: bool = False
    once: bool = False


class Watcher:
    """Watches one folder.

    Attributes:
        failed: how many studies have failed since the start.
    """

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
        self.failed, self._obstacle = 0, ""
        self._model, self._out, self._queue, self._rules = model, out.resolve(), queue, rules
        self._results = self._out / "results"
        self._incoming = Incoming(folder, queue, study_of=_study_of, pseudonym=name)
        self._delivery = Delivery(queue, self._results, destinations, rules.patience)

    def run(self, received: Sequence[int]) -> None:
        """Watches until a signal comes, or by the rules until nothing can be done.

        Args:
            received: numbers of signals; the present study is finished when one is added.

        Raises:
            OSError: there is no room, and the rules do not let it wait for some.
        """
        while not received:
            began = time.monotonic()
            if not self._step():
                if self._rules.once and not self._queue.is_moving(time.time(), self._rules.still):
                    return
                pause = min(5.0, max(0.05, self._rules.still / 4))
                end = time.monotonic() + max(pause, time.monotonic() - began)
                while not received and time.monotonic() < end:
                    time.sleep(0.05)

    def _step(self) -> bool:
        """Looks, predicts a study, sends a result, tidies; returns whether anything was done."""
        before, self._obstacle = self._obstacle, ""
        try:
            self._incoming.scan(time.time())
            worked = self._predict_next()
            worked = self._delivery.send_next() or worked
            self._finish()
            self._write_metrics()
        except (OSError, sqlite3.OperationalError, UserError) as error:
            if self._rules.once or not _is_full(error):
                raise
            worked, self._obstacle = False, f"no room in {self._out}: waiting for some"
            with contextlib.suppress(UserError):  # nor for these, perhaps
                self._write_metrics()
        if self._obstacle != before:
            log.info("%s", self._obstacle or "going on")
        return worked

    def _predict_next(self) -> bool:
        study = self._queue.next_study(time.time(), self._rules.still)
        if study and self._queue.total_bytes() > self._rules.keep:
            self._obstacle, study = "no more unsent results are kept: waiting", None
        if study:
            try:
                if study.attempts >= self._rules.patience.attempts:
                    raise WatchError(study.reason)
                # Before it is made: a study that ends the process is not tried for ever.
                self._note_attempt(study, study.attempts + 1, "the process ended each time")
                self._predict(study)
            except Exception as error:
                self._note_failure(study, error)
        return study is not None

    def _note_attempt(self, study: Study, attempts: int, reason: str) -> float:
        pause = self._rules.patience.wait(attempts)
        self._queue.note_attempt(study, attempts, due=time.time() + pause, reason=reason)
        return pause

    def _note_failure(self, study: Study, error: Exception) -> None:
        reason, most = reason_of(error), self._rules.patience.attempts
        attempts = min(study.attempts + 1, most)
        bad_input = isinstance(error, UserError) and not isinstance(error.__cause__, OSError)
        if _is_full(error):  # which is not the study's fault
            self._note_attempt(study, study.attempts, "")
            raise error
        if bad_input or attempts == most:
            entry = {"study": study.study, "images": study.files, "attempts": attempts}
            self._queue.add_result(study, "failed", entry | {"reason": reason}, now=time.time())
        else:
            pause = self._note_attempt(study, attempts, reason)
            log.info("study %s: %s; a pause of %.0f s", study.study, reason, pause)

    def _predict(self, study: Study) -> None:
        """Adds the results of a study to the others, unless it has grown meanwhile."""
        images, began = self._incoming.images(study), time.time()
        if not 0 < len(images) <= MOST_FILES:
            raise WatchError(f"expected 1 to {MOST_FILES} whole files, got {len(images)}")
        with _staged(self._out / "staged", images) as staged:
            new, place = staged / "results", self._results / study.name
            given = self._model, [str(staged / "images")], new / "tables"
            counts, _ = predict_all(*given, dicom_out=new / "dicom")
            self._incoming.scan(time.time())
            if not self._queue.is_current(study):
                return
            self._results.mkdir(exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)  # of a process that was killed
            new.rename(place)
        found = [path for path in place.rglob("*") if path.is_file()]
        entry: dict[str, object] = dict(counts, images=len(images), attempts=study.attempts + 1)
        entry["objects"] = sum(path.suffix == ".dcm" for path in found)
        about = {"study": study.study, "result": place.name, "model": self._model.fingerprint}
        entry["seconds"] = round(time.time() - began, 3)
        size = sum(path.stat().st_size for path in found)
        self._queue.add_result(study, "predicted", entry | about, size=size)

    def _finish(self) -> None:
        """Ends what nobody waits for: its line in the log, its images, results beyond the limit."""
        self._queue.settle(time.time())
        for one, entry in self._queue.unlogged():
            at = datetime.datetime.fromtimestamp(entry.pop("finished"), datetime.UTC)
            append_line(self._out / "log.jsonl", entry | {"time": at.isoformat()})
            self._queue.note_logged(one)
            self.failed += entry["state"] == "failed"
            log.info("study %s: %s", one.study, entry["state"])
        for study in self._queue.done_studies() if self._rules.delete_images else ():
            self._incoming.remove(study)
        while self._queue.total_bytes() > self._rules.keep and (old := self._queue.oldest_done()):
            shutil.rmtree(self._results / old.name, ignore_errors=True)
            self._queue.note_removed(old)

    def _write_metrics(self) -> None:
        unsent, away = self._queue.unsent(), self._delivery.away
        values: list[Sample] = [("last_pass_seconds", {}, time.time())]
        values += [("studies", {"state": s}, n) for s, n in self._queue.counts().items()]
        for name in self._delivery.destinations:
            values.append(("unsent", {"destination": name}, unsent.get(name, 0)))
            values.append(("destination_up", {"destination": name}, name not in away))
        values.append(("passed_over", {}, self._incoming.passed_over()))
        size, stuck = self._queue.total_bytes(), bool(self._obstacle)
        values += [("result_bytes", {}, size), ("stuck", {}, stuck)]
        write_metrics(self._rules.metrics, values)


def _study_of(path: Path) -> str | None:
    """Returns the UID of the study of a CT image; see :class:`Incoming`."""
    try:
        header = dicom.read_elements(path, ("SOPClassUID", "StudyInstanceUID"))
    except dicom.DicomError as error:
        return None if isinstance(error.__cause__, OSError) else ""
    uid = str(header.get("StudyInstanceUID") or "")
    return uid if str(header.get("SOPClassUID")) in CT else ""


@contextlib.contextmanager
def _staged(folder: Path, images: Sequence[Path]) -> Iterator[Path]:
    """Gives a folder with links to images, in "images": their names say nothing of a patient."""
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    (folder / "images").mkdir(parents=True)
    try:
        for number, image in enumerate(images):
            os.symlink(image.resolve(), folder / f"images/{number:05}.dcm")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        no_room = isinstance(error, OSError) and error.errno in _NO_ROOM
        if no_room or (isinstance(error, sqlite3.OperationalError) and "is full" in str(error)):
            return True
        error = error.__cause__
    return False
