"""From the scores of slices to one score per study, and what that score is worth.

A study is fractured if one of its slices shows a fracture. What makes one score of many is chosen
on validation studies, never on those that are evaluated.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.evaluation import metrics
from msa_flax.evaluation.predictions import PredictionsError
from msa_flax.evaluation.summary import compute_metrics

TOP = 5  # slices: a fracture is seen in several neighbours, noise in one
LOGISTIC = "logistic"
_LEAST = 1e-6  # probabilities are kept this far from 0 and 1 where their logit is taken
_FOLDS, _SEED = 5, 0  # cross-validation of the logistic regression
_FEWEST = 10  # studies of each class: below it nothing is chosen
_OVERALL_WEIGHT, _LEVEL_WEIGHT = 7.0, 1.0  # of the challenge's loss; twice that where fractured


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudyScores:
    """What n studies are known to be, and the scores of their slices."""

    study: np.ndarray  # str [n], unique, sorted
    patient: np.ndarray  # str [n], "" unknown
    label: np.ndarray  # int [n], 1 if fractured, 0 if not
    slices: tuple[np.ndarray, ...]  # n arrays: the probability of each slice

    def __len__(self) -> int:
        return len(self.study)

    @property
    def features(self) -> np.ndarray:
        """The logits of the greatest, the mean of the top and the mean probability: [n, 3]."""
        parts = (AGGREGATIONS["max"], AGGREGATIONS["top"], AGGREGATIONS["mean"])
        values = np.array([[part(p) for part in parts] for p in self.slices]).reshape(-1, 3)
        values = np.clip(values, _LEAST, 1 - _LEAST)
        logits: np.ndarray = np.log(values) - np.log1p(-values)
        return logits


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """How one score is made of a study's slices."""

    name: str  # a key of AGGREGATIONS, or LOGISTIC
    weights: tuple[float, ...] = ()  # of the logistic regression: of each feature, and the constant
    validation_auc: Mapping[str, float] = dataclasses.field(default_factory=dict)  # of every choice

    def apply(self, scores: StudyScores) -> np.ndarray:
        """Returns the probability of a fracture for each study: float [n]."""
        if self.name == LOGISTIC:
            *weights, constant = self.weights
            return _sigmoid(scores.features @ np.array(weights) + constant)
        return np.array([AGGREGATIONS[self.name](one) for one in scores.slices])


def greatest(probabilities: np.ndarray) -> float:
    """Returns the greatest probability of a study's slices."""
    return float(np.max(probabilities))


def mean_of_top(probabilities: np.ndarray, top: int = TOP) -> float:
    """Returns the mean of the greatest probabilities, of all where there are fewer."""
    return float(np.mean(np.sort(probabilities)[-top:]))


def noisy_or(probabilities: np.ndarray) -> float:
    """Returns the chance that at least one slice shows a fracture, if slices were independent.

    It is 1 - prod(1 - p). Neighbouring slices are not independent, so it is too high.
    """
    p = np.clip(np.asarray(probabilities, np.float64), 0, 1 - np.finfo(np.float32).eps)
    return float(-np.expm1(np.log1p(-p).sum()))


def mean(probabilities: np.ndarray) -> float:
    """Returns the mean probability of a study's slices."""
    return float(np.mean(probabilities))


AGGREGATIONS: dict[str, Callable[[np.ndarray], float]] = {
    "max": greatest,
    "top": mean_of_top,
    "noisy_or": noisy_or,
    "mean": mean,
}


def gather(
    study: np.ndarray,
    probability: np.ndarray,
    *,
    label: np.ndarray | Mapping[str, int],
    patient: np.ndarray,
) -> StudyScores:
    """Gathers the scores of slices by study.

    Args:
        study: str [m], the study of each slice, none empty.
        probability: float [m], of a fracture.
        label: int [m] of the slices, of which the greatest counts; or of each study by its name.
        patient: str [m], "" unknown.

    Raises:
        PredictionsError: a slice of no study, a study of two patients or of unknown label.
    """
    names, first, member = np.unique(study, return_index=True, return_inverse=True)
    if "" in names:
        raise PredictionsError(
            f"study: expected the study of every image, {int((study == '').sum())} have none"
        )
    mixed = np.unique(member[patient != patient[first][member]])
    if len(mixed):
        raise PredictionsError(f"study {names[mixed[0]]}: expected one patient, got several")
    if isinstance(label, Mapping):
        unknown = [name for name in names.tolist() if name not in label]
        if unknown:
            raise PredictionsError(f"study {unknown[0]}: its label is not known")
        found = np.array([label[name] for name in names.tolist()], np.int64)
    else:
        found = np.zeros(len(names), np.int64)
        np.maximum.at(found, member, np.asarray(label, np.int64))
    order = np.argsort(member, kind="stable")
    slices = np.split(
        np.asarray(probability, np.float64)[order], np.cumsum(np.bincount(member))[:-1]
    )
    return StudyScores(
        study=names, patient=patient[first], label=found, slices=tuple(slices) if len(names) else ()
    )


def choose(validation: StudyScores) -> Aggregation:
    """Returns the aggregation with the greatest AUC on validation studies, the simplest if equal.

    The logistic regression is judged by cross-validation, and fitted to all of them. With fewer
    than ten studies of a class nothing is chosen: it is the mean of the top.
    """
    if min(np.bincount(validation.label, minlength=2)[:2]) < _FEWEST:
        return Aggregation(name="top")
    found = {
        name: metrics.auc(validation.label, Aggregation(name=name).apply(validation))
        for name in AGGREGATIONS
    }
    found[LOGISTIC] = metrics.auc(validation.label, _cross_validated(validation))
    best = max(found, key=lambda name: found[name])
    weights = _fit(validation.features, validation.label) if best == LOGISTIC else ()
    return Aggregation(name=best, weights=weights, validation_auc=found)


def study_metrics(
    label: np.ndarray,
    probability: np.ndarray,
    *,
    patient: np.ndarray,
    threshold: float,
    levels: Mapping[str, np.ndarray] | None = None,
    classes: Sequence[str] = metrics.CLASSES,
) -> dict[str, Any]:
    """Returns the confusion matrix and metrics of n studies, with 95 % intervals over patients.

    Args:
        label: int [n], 1 if fractured, 0 if not.
        probability: float [n], of :meth:`Aggregation.apply`.
        patient: str [n], "" unknown.
        threshold: chosen on validation studies.
        levels: bool [n] by level: whether it is fractured; None where levels are unknown.
        classes: names of the labels 0 and 1.

    Returns:
        As :func:`msa_flax.evaluation.summary.compute_metrics`, without "by_group"; with "levels",
        "level_auc": the AUC of the studies with a fracture of a level against those without any.
    """
    shared: Any = {"threshold": threshold, "group": patient, "classes": classes}
    found = compute_metrics(label, probability, **shared)
    del found["by_group"]
    if levels is not None:
        found["level_auc"] = {
            name: _level_auc(label, np.asarray(probability, np.float32), fractured)
            for name, fractured in levels.items()
        }
    return found


def best_threshold(scores: StudyScores, probability: np.ndarray) -> float:
    """Returns the threshold with the greatest sum of sensitivity and specificity (Youden 1950).

    Args:
        scores: validation studies, of both classes.
        probability: float [n], their scores.

    Raises:
        PredictionsError: the studies are of one class.
    """
    if len(np.unique(scores.label)) < 2:
        raise PredictionsError(
            f"threshold of studies: expected validation studies of both classes, got "
            f"{len(scores)} of one; use more patients, or another fold"
        )
    short = np.asarray(probability, np.float32)
    candidates = np.unique(short)
    fractured = scores.label == 1
    gain = [(short[fractured] >= t).mean() - (short[~fractured] >= t).mean() for t in candidates]
    return float(candidates[int(np.argmax(gain))])


def weighted_log_loss(truth: np.ndarray, probability: np.ndarray) -> float:
    """Returns the RSNA 2022 challenge's loss: the mean over studies of a weighted log loss.

    The eight answers of a study weigh 7 (whole study) and 1 (each level), twice that where there is
    a fracture; the weights of a study sum to 1 after division by their sum.

    Args:
        truth: 0 or 1, [n, 8]: the whole study, then C1 to C7.
        probability: float [n, 8], of a fracture.
    """
    y = np.asarray(truth, np.float64)
    p = np.clip(np.asarray(probability, np.float64), 1e-15, 1 - 1e-15)
    weight = (1 + y) * np.array([_OVERALL_WEIGHT] + [_LEVEL_WEIGHT] * 7)
    loss = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return float(((weight * loss).sum(axis=1) / weight.sum(axis=1)).mean())


def _level_auc(label: np.ndarray, probability: np.ndarray, fractured: np.ndarray) -> float | None:
    rows = fractured | (label == 0)
    value = metrics.auc(fractured[rows], probability[rows])
    return float(value) if np.isfinite(value) else None


def _fit(features: np.ndarray, label: np.ndarray) -> tuple[float, ...]:
    """Returns the weights of a logistic regression and its constant, of features as they are."""
    from sklearn.linear_model import LogisticRegression

    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
    model = LogisticRegression(C=1.0, max_iter=1000).fit((features - centre) / spread, label)
    weights = model.coef_[0] / spread
    return (*weights.tolist(), float(model.intercept_[0] - centre @ weights))


def _cross_validated(scores: StudyScores) -> np.ndarray:
    """Returns each study's score by a regression that was fitted to other patients' studies."""
    from sklearn.model_selection import StratifiedGroupKFold

    patient = np.where(scores.patient == "", scores.study, scores.patient)
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=_SEED)
    found = np.zeros(len(scores))
    for train, test in folds.split(patient, scores.label, patient):
        *weights, constant = _fit(scores.features[train], scores.label[train])
        found[test] = scores.features[test] @ np.array(weights) + constant
    return found


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.exp(-np.logaddexp(0, -logit))
    return result
