"""Calibration: what is fitted on the validation images, stored, and applied to other images.

The file ``checkpoints/calibration-<best or last>.json`` holds the validation logits by class, from
which Venn-Abers and conformal prediction follow at any level, the fitted temperature and isotonic
curve, and the operating point where one was asked for. It belongs to one step of one run:
:meth:`Calibration.check_belongs` refuses it for another one. What it makes of other images is the
table ``calibrated.csv``.
"""

import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msa_flax.evaluation import calibrators, conformal
from msa_flax.evaluation.calibrators import Isotonic, Temperature
from msa_flax.evaluation.metrics import CLASSES
from msa_flax.evaluation.operating_point import OperatingPoint, threshold_for_sensitivity
from msa_flax.evaluation.predictions import Predictions, float_text, sigmoid
from msa_flax.files import UserError, csv_text, read_json, write_json, write_text

PROBABILITIES = ("temperature", "isotonic", "venn_abers", "venn_abers_low", "venn_abers_high")
log = logging.getLogger("msa_flax")
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
        groups: how many groups are known: "all", and those that hold each class, by its name.
        temperature: None where there is a reason.
        isotonic: None where there is a reason.
        reason: why nothing but conformal sets could be fitted, or "".
        operating_point: the threshold for a wanted sensitivity, None if none was asked for.
        classes: names of the labels 0 and 1.
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
    classes: tuple[str, str] = CLASSES

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
        """How many validation images there are: "all", and of each class, by its name."""
        negative, positive = self.classes
        counts = {positive: len(self.fractures), negative: len(self.normal)}
        return {"all": sum(counts.values()), **counts}

    def check_belongs(
        self,
        *,
        checkpoint: str,
        step: int,
        data_fingerprint: str,
        classes: tuple[str, str] = CLASSES,
    ) -> None:
        """Refuses to be used with another checkpoint or other data than it was fitted with.

        Raises:
            CalibrationError: says what differs and what to do.
        """
        for name, mine, other in (
            ("checkpoint", self.checkpoint, checkpoint),
            ("step", self.step, step),
            ("data fingerprint", self.data_fingerprint[:12], data_fingerprint[:12]),
            ("classes", ", ".join(self.classes), ", ".join(classes)),
        ):
            if mine != other:
                raise CalibrationError(
                    f"the stored calibration is of {name} {mine}, this is {name} {other}; {_AGAIN}"
                )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes a small JSON file, whole or not at all; :meth:`read` returns the same numbers."""
        write_json(path, self.values())

    def values(self) -> dict[str, Any]:
        """Returns what :meth:`write` writes; :func:`from_values` returns the same numbers."""
        values = dataclasses.asdict(self)
        negative, positive = self.classes
        logits = {positive: values.pop("fractures"), negative: values.pop("normal")}
        if self.operating_point is None:
            del values["operating_point"]
        # The shortest decimals that give the float32 values back.
        shortest = {name: [float(str(x)) for x in found] for name, found in logits.items()}
        return values | {"split": "validation", "images": self.images, "logits": shortest}

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Calibration":
        """Returns what :meth:`write` wrote.

        Raises:
            CalibrationError: the file is no such file, or a damaged one.
        """
        try:
            return from_values(read_json(path, SHAPE))
        except (ValueError, KeyError) as error:
            said = error if isinstance(error, ValueError) else f"no {error}"
            raise CalibrationError(
                f"{path}: expected a stored calibration, got {said}; {_AGAIN}"
            ) from error


def file_of(folder: Path, checkpoint: str) -> Path:
    """Returns where the calibration of a checkpoint is kept, "best" or "last"."""
    return folder / f"calibration-{checkpoint}.json"


def stored(folder: Path, *, checkpoint: str, **identity: Any) -> tuple[Any, str]:
    """Returns a checkpoint's :class:`Calibration`, or None and why it cannot be used, as a warning.

    The reason is "" where there is no file.

    Args:
        folder: of the checkpoints.
        checkpoint: "best" or "last".
        identity: what else :meth:`Calibration.check_belongs` takes.
    """
    path = file_of(folder, checkpoint)
    if not path.exists():
        return None, ""
    try:
        found = Calibration.read(path)
        found.check_belongs(checkpoint=checkpoint, **identity)
    except CalibrationError as error:
        log.warning("calibration is not used: %s", error)
        return None, str(error)
    return found, ""


def fit(
    predictions: Predictions,
    *,
    checkpoint: str,
    step: int,
    data_fingerprint: str,
    sensitivity: float | None = None,
    classes: tuple[str, str] = CLASSES,
) -> Calibration:
    """Fits everything on the predictions of the validation split, and of no other.

    Args:
        predictions: of the validation images, as in ``eval/validation/predictions.csv``.
        checkpoint: "best" or "last", the one that made them.
        step: of that checkpoint.
        data_fingerprint: of the run's images and labels.
        sensitivity: choose the operating point that has it, where given.
        classes: names of the labels 0 and 1.

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
    reason = calibrators.unusable(logits, labels, classes)
    group = predictions.group if np.any(predictions.group != "") else None
    point = None
    if sensitivity is not None:
        point = threshold_for_sensitivity(
            *(labels, predictions.probability, sensitivity), group=group, positive=classes[1]
        )
    return Calibration(
        checkpoint=checkpoint,
        step=step,
        data_fingerprint=data_fingerprint,
        fractures=np.sort(logits[fracture]),
        normal=np.sort(logits[~fracture]),
        groups=count_groups(predictions, classes),
        temperature=None if reason else calibrators.fit_temperature(logits, labels),
        isotonic=None if reason else calibrators.fit_isotonic(logits, labels),
        reason=reason,
        operating_point=point,
        classes=classes,
    )


def count_groups(predictions: Predictions, classes: Sequence[str]) -> dict[str, int]:
    """Returns how many known groups there are: "all", and those with each class, by its name."""
    chosen = {"all": np.ones(len(predictions), bool)}
    chosen |= {classes[label]: predictions.label == label for label in (1, 0)}
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
        p_values: float64 [n, 2], by label.
        sets: str [n], the name of a class, "both" or "neither".
        classes: names of the labels 0 and 1.
    """

    probability: dict[str, np.ndarray]
    logit: np.ndarray | None
    p_values: np.ndarray
    sets: np.ndarray
    classes: tuple[str, str] = CLASSES

    def write(self, path: str | os.PathLike[str], example_id: np.ndarray) -> None:
        """Writes ``calibrated.csv``, rows sorted by example id.

        The columns: ``example_id``, :data:`PROBABILITIES`, which are empty where they could not be
        fitted, ``set``, and ``p_<class>`` of the positive and of the negative class.
        """
        write_text(path, csv_text(*self.table(example_id)))

    def table(self, example_id: np.ndarray) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Returns what :meth:`write` writes: the names of the columns, and the rows."""
        order = np.argsort(example_id, kind="stable")
        columns: dict[str, Iterable[Any]] = {"example_id": example_id[order].tolist()}
        columns |= dict.fromkeys(PROBABILITIES, [None] * len(order))
        columns |= {name: map(float_text, x[order]) for name, x in self.probability.items()}
        columns["set"] = self.sets[order].tolist()
        for label in (1, 0):
            columns[f"p_{self.classes[label]}"] = self.p_values[order, label].tolist()
        return list(columns), list(zip(*columns.values(), strict=True))


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
        probability=probability,
        logit=logit,
        p_values=p,
        sets=conformal.sets(p, alpha, calibration.classes),
        classes=calibration.classes,
    )


_POINT = dict.fromkeys(
    ("threshold", "sensitivity", "confidence", "guaranteed", "expected"), float
) | {"counted": {"images", "groups"}, "n": int, "missed": int}
SHAPE = {  # of the file
    **dict.fromkeys(("checkpoint", "data_fingerprint", "reason"), str),
    **{"step": int, "classes?": [str]},
    "logits": {"*": [float]},
    "images": {"*": int},
    "groups": {"*": int},
    "temperature": (None, {"value": float, "reason": str}),
    "isotonic": (None, {"logit": [float], "probability": [float]}),
    "operating_point?": _POINT,
}


def from_values(values: Mapping[str, Any]) -> Calibration:
    """Returns what :meth:`Calibration.values` returned; raises ValueError where it cannot be."""
    warm, curve, point = values["temperature"], values["isotonic"], values.get("operating_point")
    negative, positive = values.get("classes", CLASSES)
    found = Calibration(
        **{name: values[name] for name in ("checkpoint", "step", "data_fingerprint", "reason")},
        fractures=_float32(values["logits"][positive]),
        normal=_float32(values["logits"][negative]),
        groups={name: values["groups"][name] for name in ("all", positive, negative)},
        temperature=warm and Temperature(value=warm["value"], reason=warm["reason"]),
        isotonic=curve and Isotonic(**{k: tuple(curve[k]) for k in ("logit", "probability")}),
        operating_point=point and OperatingPoint(**{name: point[name] for name in _POINT}),
        classes=(negative, positive),
    )
    if any(found.images[name] != values["images"].get(name) for name in found.images):
        raise ValueError("other numbers of images than it has logits")
    if not np.isfinite(found.logits).all() or (warm and not 0.01 <= warm["value"] <= 100):
        raise ValueError("logits or a temperature that cannot be")
    if curve and not _rises(curve["logit"], curve["probability"]):
        raise ValueError("an isotonic curve that does not rise from 0 to 1")
    chosen = found.operating_point
    if chosen and not chosen.is_of(sigmoid(found.fractures)):
        raise ValueError("an operating point that its logits do not give")
    if (warm or curve) and (why := calibrators.unusable(found.logits, found.labels)):
        raise ValueError(f"a fit, although {why}")
    return found


def _float32(values: list[float]) -> np.ndarray:
    with np.errstate(over="ignore"):  # what overflows is infinite, and so is refused
        return np.array(values, np.float32)


def _rises(logit: list[float], probability: list[float]) -> bool:
    """Returns whether points are a curve that rises within 0..1."""
    if not 0 < len(logit) == len(probability):
        return False
    return bool((np.diff(logit) >= 0).all() and (np.diff([0, *probability, 1]) >= 0).all())
