"""From slices to rows: read ahead in threads, score in batches, decide or say why not.

Reading runs beside the network: decoders and XLA both let other threads run. What waits is bounded,
so memory does not grow with the number of files.
"""

import collections
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from msa_flax.config import Config, DataConfig
from msa_flax.data.examples import Examples
from msa_flax.evaluation import calibration
from msa_flax.evaluation.calibration import Calibration
from msa_flax.evaluation.operating_point import OperatingPoint
from msa_flax.evaluation.predictions import sigmoid
from msa_flax.prediction import typicality
from msa_flax.prediction.inputs import PredictionError, Slice, find_inputs, prepare_slice
from msa_flax.prediction.typicality import Describe, Typicality, look

log = logging.getLogger("msa_flax")

UNLIKE = "unlike the training images"
NOT_COMPARED = "not compared with the training images"
_AHEAD = 4  # batches that are read before they are needed
_READERS = 4  # threads; more gain nothing beside two cores of inference

Row = dict[str, Any]  # of slices.csv: the keys are its columns


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A trained network with everything that turns its logits into rows.

    Attributes:
        describe: images uint8 [n, s, s] to (logits [n], pooled features [n, c]).
        data: how images are prepared, and the names of the classes.
        batch_size: images a call.
        configured: the threshold where no operating point is stored.
        calibration: fitted on the validation images; None: there is none.
        typicality: what the training images look like; None: unknown, then nothing is decided.
        problem: why the stored calibration cannot be used; "" where it can, or where there is none.
    """

    describe: Describe
    data: DataConfig
    batch_size: int
    configured: float
    calibration: Calibration | None
    typicality: Typicality | None
    problem: str = ""

    def check(self) -> None:
        """Refuses to decide at another threshold than the one that was chosen.

        Raises:
            PredictionError: there is a calibration that cannot be used.
        """
        if self.problem:
            raise PredictionError(self.problem)

    @property
    def operating_point(self) -> OperatingPoint | None:
        """The stored operating point."""
        return self.calibration.operating_point if self.calibration else None

    @property
    def threshold(self) -> float:
        """The lowest probability of the positive class."""
        point = self.operating_point
        return point.threshold if point else self.configured

    def decide(self, probability: float, flags: Sequence[str]) -> str:
        """Returns the name of a class, or "" where there is a flag."""
        # In float32, the precision that thresholds are chosen in.
        positive = np.float32(probability) >= np.float32(self.threshold)
        return "" if flags else self.data.classes[int(positive)]

    def rows(self, slices: Sequence[Slice], images: np.ndarray, looks: np.ndarray) -> list[Row]:
        """Returns the rows of slices that have been read.

        Args:
            slices: n of them.
            images: uint8 [n, s, s].
            looks: float32 [n, 80], from :func:`~msa_flax.prediction.typicality.look`.
        """
        logits, pooled = self.describe(images)
        warm = self.calibration.temperature if self.calibration else None
        calibrated = sigmoid(warm.apply(logits)).tolist() if warm else [None] * len(slices)
        flags: list[tuple[str, ...]] = [(NOT_COMPARED,)] * len(slices)
        if self.typicality:
            far = self.typicality.distance(pooled, looks) > self.typicality.limit
            flags = [(UNLIKE,) if unlike else () for unlike in far.tolist()]
        return [
            {
                "path": one.path,
                "patient": one.patient,
                "study": one.study,
                "series": one.series,
                "position_mm": one.position_mm,
                "probability": probability,
                "calibrated": warmed,
                "decision": self.decide(probability, odd),
                "flags": ";".join(odd),
            }
            for one, probability, warmed, odd in zip(
                slices, sigmoid(logits).tolist(), calibrated, flags, strict=True
            )
        ]


def kept_scorer(
    folder: Path,
    config: Config,
    describe: Describe,
    splits: Callable[[], Sequence[Examples]],
    identity: Mapping[str, Any],
) -> Scorer:
    """Returns the scorer of a checkpoint, with what is stored beside it.

    Args:
        folder: of the checkpoints; the training images are measured and stored where they are not.
        config: of the run.
        describe: see :class:`Scorer`.
        splits: returns the training and the validation images.
        identity: "checkpoint", "step", "data_fingerprint" and "classes", as the files must have.
    """
    found, reason = calibration.stored(folder, **identity)
    path = calibration.file_of(folder, identity["checkpoint"])
    return Scorer(
        describe=describe,
        data=config.data,
        batch_size=config.eval.batch_size,
        configured=config.eval.threshold,
        calibration=found,
        problem=f"{reason}; or delete {path}, and the configured threshold decides" * bool(reason),
        typicality=typicality.kept(
            folder / f"typicality-{identity['checkpoint']}.npz",
            describe,
            splits,
            f"{identity['step']} {identity['data_fingerprint']}",
        ),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What became of some slices: rows of those that could be read, (path, reason) of the others.

    Attributes:
        taken: how many slices these are.
    """

    rows: list[Row]
    refused: list[tuple[str, str]]
    taken: int


def score(scorer: Scorer, slices: Iterable[Slice]) -> Iterator[Batch]:
    """Yields the rows of slices in their order, by batches, of which only the last may be small.

    What is in a batch depends on the slices alone, so that a run which begins at a batch's end
    gives the same bytes as one that was not interrupted.
    """
    held: list[tuple[Slice, np.ndarray, np.ndarray]] = []
    refused: list[tuple[str, str]] = []

    def batch() -> Batch:
        rows = []
        if held:
            taken, images, looks = zip(*held, strict=True)
            rows = scorer.rows(taken, np.stack(images), np.stack(looks))
        done = Batch(rows=rows, refused=list(refused), taken=len(held) + len(refused))
        held.clear()
        refused.clear()
        return done

    for one, found in _read_ahead(scorer, slices):
        if isinstance(found, str):
            refused.append((one.path, found))
        else:
            held.append((one, *found))
        if len(held) == scorer.batch_size:
            yield batch()
    if held or refused:
        yield batch()


def predict_files(scorer: Scorer, paths: Sequence[str | Path]) -> list[Row]:
    """Returns the rows of all slices in files, folders and trees; warns of what cannot be read.

    Raises:
        PredictionError: a path is not there, or there is a calibration that cannot be used.
    """
    scorer.check()
    found = find_inputs([str(path) for path in paths], scorer.data)
    batches = list(score(scorer, found.slices))
    for path, reason in [*found.refused, *(bad for batch in batches for bad in batch.refused)]:
        log.warning("left out: %s: %s", path, reason)
    return [row for batch in batches for row in batch.rows]


Found = tuple[np.ndarray, np.ndarray] | str


def _read_ahead(scorer: Scorer, slices: Iterable[Slice]) -> Iterator[tuple[Slice, Found]]:
    """Yields slices with their image and its look, or with why they cannot be read."""

    def read(one: Slice) -> Found:
        image = prepare_slice(one, scorer.data)
        return image if isinstance(image, str) else (image, look(image))

    waiting: collections.deque[tuple[Slice, Future[Found]]] = collections.deque()
    with ThreadPoolExecutor(_READERS) as pool:
        try:
            for one in slices:
                waiting.append((one, pool.submit(read, one)))
                if len(waiting) >= _AHEAD * scorer.batch_size:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
