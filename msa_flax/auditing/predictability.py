"""What predicts the label, or the split, without a look at what the images show: fact by fact."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from msa_flax.auditing.findings import Finding
from msa_flax.data.examples import Examples
from msa_flax.evaluation.intervals import wilson

WHERE = {"family": "in other families", "group": "in other groups"}
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
    """

    majority: float
    accuracy: float = np.nan
    low: float = np.nan
    high: float = np.nan
    folds: int = 0
    reason: str = ""

    def __str__(self) -> str:
        return self.reason or f"{self.accuracy:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON takes them: None in place of NaN."""
        undefined = dict.fromkeys(("accuracy", "low", "high")) if self.reason else {}
        return dataclasses.asdict(self) | undefined


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
        "it is the same for every image": np.ptp(fact, axis=0).max() == 0,
        "there is only one answer": len(np.unique(target)) < 2,
        "there is nothing to leave out": number < 2,
    }
    for reason, applies in reasons.items():
        if applies:
            return Predictability(majority=majority, reason=reason)
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
    )


def make_tree() -> Any:
    """Returns the learner that sees one fact: thresholds of it, and few."""
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, random_state=0)


def shortcut_findings(target: str, found: Predictabilities) -> list[Finding]:
    """Returns a finding for each fact that predicts the target, and one for all the others.

    Args:
        target: "label" or "split".
        found: how well each fact predicts it.
    """
    findings, weak = [], []
    for name, values in found.items():
        measured = {unit: value for unit, value in values.items() if not value.reason}
        said = "; ".join(f"{WHERE[unit]} {value}" for unit, value in measured.items())
        strong = [value for value in measured.values() if value.low > value.majority + _MARGIN]
        if not strong:
            reasons = ", ".join(sorted({value.reason for value in values.values()}))
            weak.append(f"{name} {said}" if said else f"{name} ({reasons})")
            continue
        finding = Finding(
            key=f"{target} from {name}",
            severity="medium",
            title=f"{target} from {name}",
            evidence=f"Right {said}; the commonest answer alone {strong[0].majority:.3f}.",
            advice="The splits are not drawn from the same images.",
            counts={unit: value.to_dict() for unit, value in values.items()},
        )
        if target == "label":
            advice = "A model can do this without looking at the anatomy."
            finding = dataclasses.replace(finding, severity="high", advice=advice)
        findings.append(finding)
    if weak:
        findings.append(
            Finding(
                key=f"{target} from other facts",
                severity="none",
                title=f"{target} from other facts",
                evidence=f"Little or nothing is told by {'; '.join(weak)}.",
            )
        )
    return findings
