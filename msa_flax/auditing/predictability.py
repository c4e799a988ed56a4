"""What predicts the label, or the split, without a look at what the images show: fact by fact."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from msa_flax.auditing.findings import Finding
from msa_flax.data.examples import Examples
from msa_flax.evaluation.intervals import wilson

WHERE = {"family": "in other families", "group": "in other groups"}
_CONSTANT, _ONE_ANSWER = "it is the same for every image", "there is only one answer"
_SEPARATES = 0.95  # AUC in the images themselves from which a fact is named, with few families too
_OPEN = "Too little is known to say that it is not told by"
_ENOUGH = 5  # images of an answer, below which order is chance
_MARGIN = 0.1  # by how much a fact must beat the commonest class to be a shortcut
_FOLDS, _LEFT_OUT = 5, 10  # folds; up to so many groups are left out one by one


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Predictability:
    """How well something predicts, in images that were not fitted on.

    Attributes:
        accuracy: share of right answers, 0..1; NaN with a ``reason`` where it is undefined.
        low, high: 95 % Wilson interval that takes families, not images, as independent.
        majority: accuracy of always saying the commonest class.
        folds: number of folds.
        reason: why there is no number.
        auc: how well the fact orders the images themselves, nothing held out, 0.5 (not at all)..1
            (completely); NaN where it is undefined. It needs no families.
    """

    majority: float
    accuracy: float = np.nan
    low: float = np.nan
    high: float = np.nan
    folds: int = 0
    reason: str = ""
    auc: float = np.nan

    def __str__(self) -> str:
        return self.reason or f"{self.accuracy:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON takes them: None in place of NaN."""
        values = dataclasses.asdict(self)
        undefined = [name for name in ("accuracy", "low", "high", "auc") if np.isnan(values[name])]
        return values | dict.fromkeys(undefined)


Predictabilities = Mapping[str, Mapping[str, Predictability]]  # by fact, then by what is left out


def predictabilities(
    examples: Examples, target: np.ndarray, units: Mapping[str, np.ndarray], source: np.ndarray
) -> Predictabilities:
    """Returns how well each fact about the images predicts a target, asked of each unit.

    Args:
        examples: n images.
        target: what is to be predicted, int [n].
        units: what a fold keeps whole, by its key in :data:`WHERE`, each [n].
        source: what is one trial to the intervals, int [n].
    """
    return {
        name: {unit: predictability(fact, target, column, source) for unit, column in units.items()}
        for name, fact in _facts(examples).items()
    }


def as_dicts(found: Predictabilities) -> dict[str, dict[str, Any]]:
    """Returns what :func:`predictabilities` returned as ``audit.json`` holds it."""
    return {
        fact: {unit: value.to_dict() for unit, value in values.items()}
        for fact, values in found.items()
    }


def _facts(examples: Examples) -> dict[str, np.ndarray]:
    """Returns every fact that might predict something, by name, float64 [n] or [n, 2]."""
    facts = {}
    if (examples.slice_index >= 0).all():
        facts["slice position"] = examples.slice_index.astype(np.float64)
    facts |= examples.facts
    if "height" in facts:
        facts["dimensions"] = np.stack([facts.pop("height"), facts.pop("width")], axis=1)
    return facts


def predictability(
    fact: np.ndarray, target: np.ndarray, unit: np.ndarray, source: np.ndarray
) -> Predictability:
    """Cross-validates a small decision tree that sees nothing but one fact.

    Args:
        fact: float [n] or [n, f], finite.
        target: what is to be predicted, int [n].
        unit: what a fold keeps whole, [n]: groups, to ask about new ones, or families. Up to ten
            are left out in turn, more of them go into five folds.
        source: what is one trial to the interval, int [n].
    """
    from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_predict

    majority = float(np.bincount(target).max() / len(target))
    number = len(np.unique(unit))
    reasons = {
        _CONSTANT: np.ptp(fact, axis=0).max() == 0,
        _ONE_ANSWER: len(np.unique(target)) < 2,
        "there is nothing to leave out": number < 2,
    }
    for reason, applies in reasons.items():
        if applies:
            auc = _separation(fact, target)
            return Predictability(majority=majority, reason=reason, auc=auc)
    folds = LeaveOneGroupOut() if number <= _LEFT_OUT else GroupKFold(_FOLDS)
    seen = fact.reshape(len(fact), -1)
    right = cross_val_predict(make_tree(), seen, target, groups=unit, cv=folds) == target
    trials = len(np.unique(source))
    interval = wilson(round(float(right.mean()) * trials), trials)
    return Predictability(
        majority=majority,
        accuracy=float(right.mean()),
        low=interval.low,
        high=interval.high,
        folds=number if number <= _LEFT_OUT else _FOLDS,
        auc=_separation(fact, target),
    )


def _separation(fact: np.ndarray, target: np.ndarray) -> float:
    """Returns the best AUC, 0.5..1, of one column of a fact for one answer; NaN if undefined."""
    from scipy.stats import rankdata

    best = np.nan
    for column in fact.reshape(len(fact), -1).T:
        rank = rankdata(column)
        for answer in np.unique(target).tolist():
            inside, number = rank[target == answer], int((target == answer).sum())
            others = len(target) - number
            if min(number, others) >= _ENOUGH:
                auc = (inside.sum() - number * (number + 1) / 2) / (number * others)
                best = float(np.nanmax([best, auc, 1 - auc]))
    return best


def make_tree() -> Any:
    """Returns the learner that sees one fact: thresholds of it, and few."""
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, random_state=0)


def shortcut_findings(target: str, found: Predictabilities) -> list[Finding]:
    """Returns a finding for each fact that predicts the target, and for the others together.

    Too few families to be sure are no reason for silence: a fact that tells the answer in these
    images is a finding, and what cannot be told is "open", not good news.

    Args:
        target: "label" or "split".
        found: how well each fact predicts it.
    """
    findings: list[Finding] = []
    rest: dict[str, list[str]] = {"open": [], "none": []}
    for name, values in found.items():
        said = "; ".join(f"{WHERE[u]} {value}" for u, value in values.items() if not value.reason)
        reasons = ", ".join(sorted({value.reason for value in values.values() if value.reason}))
        severity = _severity(list(values.values()))
        if severity in rest:
            rest[severity].append(f"{name} {said}" if said else f"{name} ({reasons})")
            continue
        first = next(iter(values.values()))
        evidence = f"Right {said}; the commonest answer alone {first.majority:.3f}."
        if severity == "medium":
            held = f"held out, it is right {said}" if said else f"it could not be tested: {reasons}"
            evidence = (
                f"AUC {first.auc:.3f} in these images; {held}. There are too few families to say "
                "whether it holds in others."
            )
        findings.append(
            Finding(
                key=f"{target} from {name}",
                severity=severity if target == "label" else "medium",
                title=f"{target} from {name}",
                evidence=evidence,
                advice="A model can do this without looking at the anatomy."
                if target == "label"
                else "The splits are not drawn from the same images.",
                counts={unit: value.to_dict() for unit, value in values.items()},
            )
        )
    if target == "label" and "slice position" not in found:
        rest["open"].append("slice position (not known of every image)")
    together = {
        "open": ("{}, cannot be told", "{} from facts that could not be judged", _OPEN),
        "none": ("{} from other facts", "{} from other facts", "Little or nothing is told by"),
    }
    for severity, (key, title, beginning) in together.items():
        if rest[severity]:
            findings.append(
                Finding(
                    key=key.format(target),
                    severity=severity,
                    title=title.format(target),
                    evidence=f"{beginning} {'; '.join(rest[severity])}.",
                )
            )
    return findings


def _severity(values: list[Predictability]) -> str:
    """Judges a fact: "high" predicts, "medium" may well, "open" cannot be told, "none" does not."""
    measured = [value for value in values if not value.reason]
    if any(value.low > value.majority + _MARGIN for value in measured):
        return "high"
    if all(value.reason in (_CONSTANT, _ONE_ANSWER) for value in values):
        return "none"
    if values[0].auc >= _SEPARATES:
        return "medium"
    unsure = not measured or any(
        value.high > value.majority + _MARGIN or value.folds < _FOLDS for value in measured
    )
    return "open" if unsure else "none"
