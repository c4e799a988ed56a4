"""What is fitted on the validation images after training, and stored beside the checkpoint.

The file holds the validation logits by class, from which Venn-Abers and conformal prediction follow
at any level, and the fitted temperature and isotonic curve. It belongs to one step of one run: for
another one :meth:`Calibration.check` refuses it.
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np

from msa_flax.evaluation import calibration
from msa_flax.evaluation.calibration import Isotonic, Temperature
from msa_flax.evaluation.predictions import Predictions
from msa_flax.files import UserError, write_json

SCHEMA_VERSION = 1
_AGAIN = "fit it again with python -m msa_flax.evaluate --calibrate"


class CalibrationError(UserError):
    """A calibration is damaged, of another checkpoint, or asked of other predictions."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """What the validation images of one checkpoint say about its logits.

    Attributes:
        checkpoint: "best" or "last".
        step: the training step of the checkpoint.
        data_fingerprint: of the run's images and labels.
        fractures: float32 [m], logits of the fractures, rising.
        normal: float32 [n], logits of the normal images, rising.
        groups: how many groups are known: "all", "fracture", "normal".
        temperature: None where there is a reason.
        isotonic: idem.
        reason: why nothing but conformal limits could be fitted, or "".
    """

    checkpoint: str
    step: int
    data_fingerprint: str
    fractures: np.ndarray
    normal: np.ndarray
    groups: dict[str, int]
    temperature: Temperature | None
    isotonic: Isotonic | None
    reason: str

    @property
    def logits(self) -> np.ndarray:
        """The logits of all images, float32 [n + m], the normal ones first."""
        return np.concatenate([self.normal, self.fractures])

    @property
    def labels(self) -> np.ndarray:
        """The labels of :attr:`logits`, int [n + m]."""
        return np.repeat([0, 1], [len(self.normal), len(self.fractures)])

    def check(self, *, checkpoint: str, step: int, data_fingerprint: str) -> None:
        """Refuses to be used with another checkpoint or other data than it was fitted with.

        Raises:
            CalibrationError: says what differs and what to do.
        """
        for name, mine, other in (
            ("checkpoint", self.checkpoint, checkpoint),
            ("step", self.step, step),
            ("data fingerprint", self.data_fingerprint[:12], data_fingerprint[:12]),
        ):
            if mine != other:
                raise CalibrationError(
                    f"the stored calibration is of {name} {mine}, this is {name} {other}; {_AGAIN}"
                )

    def images(self) -> dict[str, int]:
        """Returns how many validation images there are: "all", "fracture", "normal"."""
        fractures, normal = len(self.fractures), len(self.normal)
        return {"all": fractures + normal, "fracture": fractures, "normal": normal}

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes a small JSON file, whole or not at all; :meth:`read` returns the same numbers."""
        values = {
            "schema_version": SCHEMA_VERSION,
            "split": "validation",
            "checkpoint": self.checkpoint,
            "step": self.step,
            "data_fingerprint": self.data_fingerprint,
            "images": self.images(),
            "groups": self.groups,
            "logits": {"fracture": _short(self.fractures), "normal": _short(self.normal)},
            "temperature": self.temperature and dataclasses.asdict(self.temperature),
            "isotonic": self.isotonic and dataclasses.asdict(self.isotonic),
            "reason": self.reason,
        }
        write_json(path, values)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Calibration":
        """Returns what :meth:`write` wrote.

        Raises:
            CalibrationError: the file is no such file, or a damaged one.
        """
        try:
            return _from_json(json.loads(pathlib.Path(path).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(
                f"{path}: expected a stored calibration, got {type(error).__name__}: {error}; "
                f"{_AGAIN}"
            ) from error


def fit(
    predictions: Predictions, *, checkpoint: str, step: int, data_fingerprint: str
) -> Calibration:
    """Fits everything on the predictions of the validation split, and of no other.

    Args:
        predictions: of the validation images, as in ``eval/validation/predictions.csv``.
        checkpoint: "best" or "last", the one that made them.
        step: of that checkpoint.
        data_fingerprint: of the run's images and labels.

    Raises:
        CalibrationError: predictions of other splits are among them.
    """
    others = sorted(set(predictions.split.tolist()) - {"validation"})
    if others:
        raise CalibrationError(
            f"expected predictions of the split 'validation' only, got {', '.join(others)}; "
            "evaluate the validation split"
        )
    logits, labels, fracture = predictions.logit, predictions.label, predictions.label == 1
    reason = calibration.unusable(logits, labels)
    return Calibration(
        checkpoint=checkpoint,
        step=step,
        data_fingerprint=data_fingerprint,
        fractures=np.sort(logits[fracture]),
        normal=np.sort(logits[~fracture]),
        groups=count_groups(predictions),
        temperature=None if reason else calibration.fit_temperature(logits, labels),
        isotonic=None if reason else calibration.fit_isotonic(logits, labels),
        reason=reason,
    )


def count_groups(predictions: Predictions) -> dict[str, int]:
    """Returns how many known groups there are: "all", with a "fracture", with a "normal" image."""
    chosen = {
        "all": np.ones(len(predictions), bool),
        "fracture": predictions.label == 1,
        "normal": predictions.label == 0,
    }
    return {
        name: len(set(predictions.group[rows].tolist()) - {""}) for name, rows in chosen.items()
    }


def _from_json(values: dict[str, Any]) -> Calibration:
    if values["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {values['schema_version']}")
    warm, curve = values["temperature"], values["isotonic"]
    found = Calibration(
        checkpoint=str(values["checkpoint"]),
        step=int(values["step"]),
        data_fingerprint=str(values["data_fingerprint"]),
        fractures=np.array(values["logits"]["fracture"], np.float32),
        normal=np.array(values["logits"]["normal"], np.float32),
        groups={name: int(values["groups"][name]) for name in ("all", "fracture", "normal")},
        temperature=None if warm is None else Temperature(**warm),
        isotonic=None if curve is None else Isotonic(**{k: tuple(v) for k, v in curve.items()}),
        reason=str(values["reason"]),
    )
    if found.images() != values["images"]:
        raise ValueError("other numbers of images than it has logits")
    return found


def _short(values: np.ndarray) -> list[float]:
    """Returns float32 values as the shortest decimals that give them back."""
    return [float(str(value)) for value in values]
