"""The table ``studies.csv``: what is known of each study, and what its slices made of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from msa_flax.evaluation.metrics import CLASSES, called_fractures
from msa_flax.evaluation.predictions import PredictionsError, float_text
from msa_flax.evaluation.study import StudyScores
from msa_flax.files import csv_rows, csv_text, write_text

COLUMNS = ("study", "patient", "slices", "label", "probability", "decision", "levels")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudyTable:
    """The columns of n studies that numbers are computed from."""

    patient: np.ndarray  # str [n], "" unknown
    label: np.ndarray  # int [n], 1 if fractured, 0 if not
    probability: np.ndarray  # float32 [n]
    levels: tuple[frozenset[str], ...]  # n sets: which levels are fractured; empty: none, unknown

    def fractured(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns for each level whether it is fractured: bool [n]."""
        return {name: np.array([name in found for found in self.levels], bool) for name in names}


def write_studies(
    path: Path,
    scores: StudyScores,
    probability: np.ndarray,
    *,
    threshold: float,
    levels: Mapping[str, np.ndarray] | None = None,
    classes: Sequence[str] = CLASSES,
) -> None:
    """Writes the table, a row per study.

    Args:
        path: of the file.
        scores: n studies.
        probability: float [n], their scores; written in float32.
        threshold: from which on a study is called fractured.
        levels: bool [n] by level, as "C2;C5" in the last column; None: unknown, an empty column.
        classes: names of the labels 0 and 1.
    """
    called = called_fractures(probability, threshold).astype(int)
    known = levels or {}
    rows = zip(
        scores.study.tolist(),
        scores.patient.tolist(),
        map(len, scores.slices),
        scores.label.tolist(),
        [float_text(one) for one in probability.astype(np.float32)],
        [classes[one] for one in called],
        [";".join(n for n in known if known[n][i]) for i in range(len(scores))],
        strict=True,
    )
    write_text(path, csv_text(COLUMNS, rows))


def read_studies(path: Path) -> StudyTable:
    """Reads the table.

    Raises:
        UserError: the file cannot be read, or is another table.
    """
    head, *rows = csv_rows(path) or [[]]
    if tuple(head) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise PredictionsError(
            f"{path}: expected the columns {', '.join(COLUMNS)} in every row; evaluate again with "
            "--level study"
        )
    columns = dict(zip(COLUMNS, zip(*rows, strict=True) if rows else [()] * 7, strict=True))
    try:
        label = np.array([int(cell) for cell in columns["label"]], np.int64)
        probability = np.array([float(cell) for cell in columns["probability"]], np.float32)
    except ValueError as error:
        raise PredictionsError(f"{path}: {error}; evaluate again with --level study") from error
    if not (np.isin(label, (0, 1)).all() and ((probability >= 0) & (probability <= 1)).all()):
        raise PredictionsError(
            f"{path}: expected labels 0 or 1 and probabilities of 0 to 1; evaluate again with "
            "--level study"
        )
    return StudyTable(
        patient=np.array(columns["patient"], np.str_),
        label=label,
        probability=probability,
        levels=tuple(frozenset(filter(None, cell.split(";"))) for cell in columns["levels"]),
    )
