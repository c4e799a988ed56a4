"""Calibration: what is fitted on the validation images, stored, and applied to other images.

The file ``checkpoints/calibration-<best or last>.json`` holds the validation logits by class, from
which Venn-Abers and conformal prediction follow at any level, the fitted temperature and isotonic
curve, and the operating point where one was asked for. It belongs to one step of one run:
:meth:`Calibration.check_belongs` refuses it for another one. What it makes of other images is the
table ``calibrated.csv``.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from msa_flax.evaluation import calibrators, conformal
from msa_flax.evaluation.calibrators import Isotonic, Temperature
from msa_flax.evaluation.operating_point import OperatingPoint, threshold_for_sensitivity
from msa_flax.evaluation.predictions import Predictions, float_text, sigmoid
from msa_flax.files import SCHEMA_VERSION, UserError, csv_text, write_json, write_text

COLUMNS = (  # of calibrated.csv
    *("example_id", "temperature", "isotonic"),
    *("venn_abers", "venn_abers_low", "venn_abers_high"),
    *("set", "p_fracture", "p_normal"),
)
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
        isotonic: None where there is a reason.
        reason: why nothing but conformal sets could be fitted, or "".
        operating_point: the threshold for a wanted sensitivity, None if none was asked for.
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
    operating_point: OperatingPoint | None = None

    @property
    def logits(self) -> np.ndarray:
        """The logits of all images, float32 [n + m], the normal ones first."""
        return np.concatenate([self.normal, self.fractures])

    @property
    def labels(self) -> np.ndarray:
        """The labels of :attr:`logits`, int [n + m]."""
        return np.repeat([0, 1], [len(self.normal), len(self.fractures)])

    @property
    def images(self) -> dict[str, int]:
        """How many validation images there are: "all", "fracture", "normal"."""
        fractures, normal = len(self.fractures), len(self.normal)
        return {"all": fractures + normal, "fracture": fractures, "normal": normal}

    def check_belongs(self, *, checkpoint: str, step: int, data_fingerprint: str) -> None:
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

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes a small JSON file, whole or not at all; :meth:`read` returns the same numbers."""
        values = dataclasses.asdict(self)
        logits = {"fracture": values.pop("fractures"), "normal": values.pop("normal")}
        if self.operating_point is None:
            del values["operating_point"]
        # The shortest decimals that give the float32 values back.
        shortest = {name: [float(str(x)) for x in found] for name, found in logits.items()}
        write_json(
            path, values | {"split": "validation", "images": self.images, "logits": shortest}
        )

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
    predictions: Predictions,
    *,
    checkpoint: str,
    step: int,
    data_fingerprint: str,
    sensitivity: float | None = None,
) -> Calibration:
    """Fits everything on the predictions of the validation split, and of no other.

    Args:
        predictions: of the validation images, as in ``eval/validation/predictions.csv``.
        checkpoint: "best" or "last", the one that made them.
        step: of that checkpoint.
        data_fingerprint: of the run's images and labels.
        sensitivity: choose the operating point that has it, where given.

    Raises:
        CalibrationError: predictions of other splits are among them.
        PredictionsError: there are too few fractures for the sensitivity.
    """
    others = sorted(set(predictions.split.tolist()) - {"validation"})
    if others:
        raise CalibrationError(
            f"expected predictions of the split 'validation' only, got {', '.join(others)}; "
            "evaluate the validation split"
        )
    logits, labels, fracture = predictions.logit, predictions.label, predictions.label == 1
    reason = calibrators.unusable(logits, labels)
    group = predictions.group if np.any(predictions.group != "") else None
    point = None
    if sensitivity is not None:
        point = threshold_for_sensitivity(labels, predictions.probability, sensitivity, group=group)
    return Calibration(
        checkpoint=checkpoint,
        step=step,
        data_fingerprint=data_fingerprint,
        fractures=np.sort(logits[fracture]),
        normal=np.sort(logits[~fracture]),
        groups=count_groups(predictions),
        temperature=None if reason else calibrators.fit_temperature(logits, labels),
        isotonic=None if reason else calibrators.fit_isotonic(logits, labels),
        reason=reason,
        operating_point=point,
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
        order = np.argsort(example_id, kind="stable")
        columns: dict[str, Iterable[Any]] = dict.fromkeys(COLUMNS, [None] * len(order))
        columns |= {name: map(float_text, x[order]) for name, x in self.probability.items()}
        columns |= {
            "example_id": example_id[order].tolist(),
            "set": self.sets[order].tolist(),
            "p_normal": self.p_values[order, 0].tolist(),
            "p_fracture": self.p_values[order, 1].tolist(),
        }
        write_text(path, csv_text(COLUMNS, zip(*columns.values(), strict=True)))


def apply(calibration: Calibration, logits: np.ndarray, *, alpha: float) -> Calibrated:
    """Returns the calibrated values of images from their logits, float32 [n].

    Args:
        calibration: fitted on other images.
        logits: of the network, of the same checkpoint.
        alpha: of the conformal sets, above 0 and below 1.

    Raises:
        ValueError: alpha is not between 0 and 1.
    """
    known = calibration.logits, calibration.labels
    probability: dict[str, np.ndarray] = {}
    logit = None
    if calibration.temperature and calibration.isotonic:
        logit = calibration.temperature.apply(logits).astype(np.float32)
        low, high = calibrators.venn_abers(*known, logits)
        probability = {
            "temperature": sigmoid(logit),
            "isotonic": calibration.isotonic.apply(logits).astype(np.float32),
            "venn_abers": calibrators.merge(low, high).astype(np.float32),
            "venn_abers_low": low.astype(np.float32),
            "venn_abers_high": high.astype(np.float32),
        }
    p = conformal.p_values(*known, logits)
    return Calibrated(
        probability=probability, logit=logit, p_values=p, sets=conformal.sets(p, alpha)
    )


def _from_json(values: dict[str, Any]) -> Calibration:
    if values["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {values['schema_version']}")
    warm, curve, point = values["temperature"], values["isotonic"], values.get("operating_point")
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
        operating_point=None if point is None else OperatingPoint(**point),
    )
    if found.images != values["images"]:
        raise ValueError("other numbers of images than it has logits")
    return found
