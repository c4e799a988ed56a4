"""Calibrated probabilities and conformal sets of images, and the table they are written to."""

import dataclasses
import os

import numpy as np

from msa_flax.evaluation import calibration as fitting
from msa_flax.evaluation import conformal
from msa_flax.evaluation.postprocess import Calibration
from msa_flax.evaluation.predictions import sigmoid
from msa_flax.files import write_atomically

ALPHA = 0.1
COLUMNS = (
    *("example_id", "temperature", "isotonic"),
    *("venn_abers", "venn_abers_low", "venn_abers_high"),
    *("set", "p_fracture", "p_normal"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibrated:
    """Calibrated values of n images, in the order of their predictions.

    Attributes:
        probability: float32 [n] by column: temperature, isotonic, venn_abers, venn_abers_low,
            venn_abers_high; empty where they could not be fitted.
        logit: float32 [n], divided by the temperature; None where that could not be fitted.
        p_values: float64 [n, 2], normal and fracture.
        sets: str [n], "fracture", "normal", "both" or "neither".
    """

    probability: dict[str, np.ndarray]
    logit: np.ndarray | None
    p_values: np.ndarray
    sets: np.ndarray

    def write(self, path: str | os.PathLike[str], example_id: np.ndarray) -> None:
        """Writes ``calibrated.csv``: :data:`COLUMNS`, rows sorted by example id.

        Probabilities are empty where they could not be fitted.
        """
        columns: dict[str, list[str]] = dict.fromkeys(COLUMNS, [""] * len(example_id))
        columns |= {name: _texts(values) for name, values in self.probability.items()}
        columns |= {
            "example_id": [_quoted(name) for name in example_id.tolist()],
            "set": self.sets.tolist(),
            "p_normal": _texts(self.p_values[:, 0]),
            "p_fracture": _texts(self.p_values[:, 1]),
        }
        order = np.argsort(example_id, kind="stable").tolist()
        rows = [COLUMNS, *([columns[name][i] for name in COLUMNS] for i in order)]
        text = "".join(",".join(row) + "\n" for row in rows)
        write_atomically(path, text.encode("utf-8", "surrogateescape"))


def apply(calibration: Calibration, logits: np.ndarray, *, alpha: float = ALPHA) -> Calibrated:
    """Returns the calibrated values of images from their logits, float32 [n].

    Args:
        calibration: fitted on other images.
        logits: of the network, of the same checkpoint.
        alpha: of the conformal sets, above 0 and below 1.

    Raises:
        ValueError: alpha is not between 0 and 1.
    """
    known = calibration.logits, calibration.labels
    found: dict[str, np.ndarray] = {}
    logit = None
    if calibration.temperature and calibration.isotonic:
        logit = calibration.temperature.apply(logits).astype(np.float32)
        low, high = fitting.venn_abers(*known, logits)
        found = {
            "temperature": sigmoid(logit),
            "isotonic": calibration.isotonic.apply(logits).astype(np.float32),
            "venn_abers": fitting.merge(low, high).astype(np.float32),
            "venn_abers_low": low.astype(np.float32),
            "venn_abers_high": high.astype(np.float32),
        }
    p = conformal.p_values(*known, logits)
    return Calibrated(probability=found, logit=logit, p_values=p, sets=conformal.sets(p, alpha))


def _texts(values: np.ndarray) -> list[str]:
    """Returns numbers as text: nine significant digits for float32, all of them for float64."""
    if values.dtype == np.float32:
        return [f"{float(value):.9g}" for value in values]
    return [repr(float(value)) for value in values]


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\r\n') else cell
