"""Shortcuts: what predicts the label, or the split, without looking at what the images show.

:func:`predictability` asks of one fact how well it predicts, under cross-validation that keeps
families and groups whole. :func:`ladder` fits ever better shortcuts on a run's own training split
and scores them on its other splits: what the model adds is what it adds to the best of them.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from msa_flax.evaluation.intervals import wilson

THUMBNAIL = 32  # pixels, the side of the images that the simplest learners see
PERMUTATIONS = 3  # draws of permuted labels
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


def predictability(
    facts: np.ndarray, target: np.ndarray, unit: np.ndarray, family: np.ndarray
) -> Predictability:
    """Cross-validates a small decision tree that sees nothing but ``facts``.

    Args:
        facts: float [n] or [n, f], finite.
        target: what is to be predicted, int [n].
        unit: what a fold keeps whole, [n]: groups, to ask about new ones, or families. Up to ten
            are left out in turn, more of them go into five folds.
        family: what is one trial to the interval, int [n].
    """
    from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    majority = float(np.bincount(target).max() / len(target))
    number = len(np.unique(unit))
    if np.ptp(facts, axis=0).max() == 0:
        return Predictability(majority=majority, reason="it is the same for every image")
    if len(np.unique(target)) < 2:
        return Predictability(majority=majority, reason="there is only one answer")
    if number < 2:
        return Predictability(majority=majority, reason="there is nothing to leave out")
    folds = LeaveOneGroupOut() if number <= _LEFT_OUT else GroupKFold(_FOLDS)
    tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, random_state=0)
    seen = facts.reshape(len(facts), -1)
    right = cross_val_predict(tree, seen, target, groups=unit, cv=folds) == target
    trials = len(np.unique(family))
    interval = wilson(round(float(right.mean()) * trials), trials)
    return Predictability(
        majority=majority,
        accuracy=float(right.mean()),
        low=interval.low,
        high=interval.high,
        folds=number if number <= _LEFT_OUT else _FOLDS,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """What the shortcuts may see of n images.

    Attributes:
        label: 0 or 1, int [n].
        split: str [n]; "train" is fitted on, the others are scored.
        source: what must share a permuted label, int [n].
        slice_index: -1 unknown, int [n].
        facts: of the files, by name, float [n].
        images: grey, uint8 [n, s, s].
        features: a frozen network's, float [n, d]; None where there is none.
    """

    label: np.ndarray
    split: np.ndarray
    source: np.ndarray
    slice_index: np.ndarray
    facts: Mapping[str, np.ndarray]
    images: np.ndarray
    features: np.ndarray | None = None


def ladder(rows: Rows, *, seed: int = 0) -> list[dict[str, Any]]:
    """Fits every shortcut on "train" and scores it on every other split.

    The last rung is the test of the test: labels permuted, one label a source. Where families are
    whole it must stay near chance. Where it does not, copies of training images are scored.

    Args:
        rows: the images.
        seed: of what is random.

    Returns:
        One dictionary a rung: "rung", and for each split "accuracy", "auc", "n"; or "reason" where
        the rung does not apply. An AUC is None where it is undefined.
    """
    train = np.flatnonzero(rows.split == "train")
    others = [split for split in ("validation", "test") if (rows.split == split).any()]
    small = thumbnails(rows.images)
    rungs: list[tuple[str, np.ndarray | None, Any, str]] = [
        ("majority class", np.zeros((len(rows.label), 1)), _majority(), ""),
        (
            "slice position",
            rows.slice_index[:, None].astype(np.float64),
            _tree(),
            "" if (rows.slice_index >= 0).all() else "slice positions are not known",
        ),
        (
            "facts about the files",
            np.stack(list(rows.facts.values()), axis=1) if rows.facts else None,
            _forest(seed),
            "" if rows.facts else "there are no files",
        ),
        ("thumbnail, nearest neighbour", small, _nearest(), ""),
        ("thumbnail, logistic regression", small, _linear(), ""),
        (
            "frozen ImageNet features, linear",
            rows.features,
            _linear(),
            "" if rows.features is not None else "there are no ImageNet weights",
        ),
    ]
    found: list[dict[str, Any]] = []
    for name, seen, learner, reason in rungs:
        if reason:
            found.append({"rung": name, "reason": reason})
            continue
        assert seen is not None
        fitted = _fit(learner, seen[train], rows.label[train])
        scores = {split: _score(fitted, seen, rows.label, rows.split == split) for split in others}
        found.append({"rung": name, **scores})
    name = "permuted labels"
    if rows.features is None:
        found.append({"rung": name, "reason": "there are no ImageNet weights"})
    else:
        found.append({"rung": name, **_permuted(rows, train, others, seed)})
    return found


def best_shortcut(found: Sequence[Mapping[str, Any]], split: str) -> Mapping[str, Any] | None:
    """Returns the rung of the highest accuracy on a split, permuted labels left out."""
    scored = [rung for rung in found if split in rung and rung["rung"] != "permuted labels"]
    return max(scored, key=lambda rung: rung[split]["accuracy"], default=None)


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Returns images as rows of 32 x 32 grey values, 0..1, float32 [n, 1024]."""
    side = (THUMBNAIL, THUMBNAIL)
    small = [cv2.resize(image, side, interpolation=cv2.INTER_AREA) for image in images]
    return np.stack(small).reshape(len(images), -1).astype(np.float32) / 255


def _permuted(
    rows: Rows, train: np.ndarray, others: list[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Returns the mean score of linear heads on labels that were permuted among sources."""
    assert rows.features is not None
    _, first, member = np.unique(rows.source, return_index=True, return_inverse=True)
    drawn: dict[str, list[dict[str, Any]]] = {split: [] for split in others}
    for i in range(PERMUTATIONS):
        rng = np.random.default_rng([seed, i])
        label = rng.permutation(rows.label[first])[member]
        if len(np.unique(label[train])) < 2:
            continue
        fitted = _fit(_linear(), rows.features[train], label[train])
        for split in others:
            drawn[split].append(_score(fitted, rows.features, label, rows.split == split))

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    return {
        split: {
            "accuracy": mean([score["accuracy"] for score in scores]),
            "auc": mean([score["auc"] for score in scores]),
            "n": scores[0]["n"],
        }
        for split, scores in drawn.items()
        if scores
    }


def _fit(learner: Any, seen: np.ndarray, label: np.ndarray) -> Any:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # A shortcut that has not quite converged is a shortcut all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return learner.fit(seen, label)


def _score(fitted: Any, seen: np.ndarray, label: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    rows = np.flatnonzero(chosen)
    probability = fitted.predict_proba(seen[rows])[:, list(fitted.classes_).index(1)]
    truth = label[rows]
    both = 0 < truth.sum() < len(truth)
    return {
        "accuracy": float(((probability >= 0.5) == truth).mean()),
        "auc": float(roc_auc_score(truth, probability)) if both else None,
        "n": len(rows),
    }


def _majority() -> Any:
    from sklearn.dummy import DummyClassifier

    return DummyClassifier(strategy="prior")


def _tree() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, random_state=0)


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, min_samples_leaf=5, random_state=seed, n_jobs=-1)


def _nearest() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(1)


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
