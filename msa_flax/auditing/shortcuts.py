"""The ladder of shortcuts: ever better guesses at the label without a look at the anatomy.

They are fitted on a run's own training split and scored on its other splits. What a model adds is
what it adds to the best of them.
"""

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from msa_flax.auditing.predictability import make_tree
from msa_flax.data.examples import Examples

THUMBNAIL = 32  # pixels, the side of the images that the simplest learners see
PERMUTATIONS = 3  # draws of permuted labels
PERMUTED = "permuted labels"  # the rung that is no shortcut, but the test of the test
_FEATURES = "frozen ImageNet features, linear"
_MISSING = {  # why a rung sees nothing
    "slice position": "slice positions are not known",
    "facts about the files": "there are no files",
    _FEATURES: "there are no ImageNet weights",
    PERMUTED: "there are no ImageNet weights",
}


def ladder(
    examples: Examples, source: np.ndarray, features: np.ndarray | None, *, seed: int
) -> list[dict[str, Any]]:
    """Fits every shortcut on part "train" and scores it on every other part.

    The last rung is the test of the test: labels are permuted, one label per source. Where sources
    are whole it must stay near chance. Where it does not, copies of training images are scored.

    Args:
        examples: n images of label 0 or 1, with the split of each as their part.
        source: what must share a permuted label, int [n].
        features: a frozen network's, float [n, d]; None where there is none.
        seed: of what is random.

    Returns:
        One dictionary per rung: "rung", and for each split "accuracy", "auc", "n"; or "reason"
        where the rung does not apply. An AUC is None where it is undefined.
    """
    found: list[dict[str, Any]] = []
    for name, seen, learner in _rungs(examples, features, seed):
        if seen is None:
            found.append({"rung": name, "reason": _MISSING[name]})
        else:
            scores = _fit_and_score(learner, seen, examples.label, examples.part)
            found.append({"rung": name, **scores})
    if features is None:
        return [*found, {"rung": PERMUTED, "reason": _MISSING[PERMUTED]}]
    return [*found, {"rung": PERMUTED, **_permuted(examples, source, features, seed)}]


def _rungs(
    examples: Examples, features: np.ndarray | None, seed: int
) -> list[tuple[str, np.ndarray | None, Any]]:
    """Returns the name of each rung, what it sees, None for nothing, and who learns from it."""
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier

    known = bool((examples.slice_index >= 0).all())
    position = examples.slice_index[:, None].astype(np.float64) if known else None
    facts = np.stack(list(examples.facts.values()), axis=1) if examples.facts else None
    forest = RandomForestClassifier(100, min_samples_leaf=5, random_state=seed, n_jobs=-1)
    small = thumbnails(examples.images)
    return [
        ("majority class", np.zeros((len(examples), 1)), DummyClassifier(strategy="prior")),
        ("slice position", position, make_tree()),
        ("facts about the files", facts, forest),
        ("thumbnail, nearest neighbour", small, KNeighborsClassifier(1)),
        ("thumbnail, logistic regression", small, _linear()),
        (_FEATURES, features, _linear()),
    ]


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Returns images as rows of 32 x 32 grey values, 0..1, float32 [n, 1024]."""
    side = (THUMBNAIL, THUMBNAIL)
    small = [cv2.resize(image, side, interpolation=cv2.INTER_AREA) for image in images]
    return np.stack(small).reshape(len(images), -1).astype(np.float32) / 255


def _permuted(
    examples: Examples, source: np.ndarray, features: np.ndarray, seed: int
) -> dict[str, dict[str, Any]]:
    """Returns the mean score of linear heads on labels that were permuted among sources."""
    _, first, member = np.unique(source, return_index=True, return_inverse=True)
    draws = []
    for i in range(PERMUTATIONS):
        rng = np.random.default_rng([seed, i])
        label = rng.permutation(examples.label[first])[member]
        if len(np.unique(label[examples.part == "train"])) == 2:
            draws.append(_fit_and_score(_linear(), features, label, examples.part))
    scores = {part: [draw[part] for draw in draws] for part in (draws[0] if draws else ())}
    return {
        part: {
            "accuracy": _mean(score["accuracy"] for score in drawn),
            "auc": _mean(score["auc"] for score in drawn),
            "n": drawn[0]["n"],
        }
        for part, drawn in scores.items()
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _fit_and_score(
    learner: Any, seen: np.ndarray, label: np.ndarray, part: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Fits a learner on part "train"; returns its accuracy and AUC on the other parts there are."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import roc_auc_score

    with warnings.catch_warnings():
        # A shortcut that has not quite converged is a shortcut all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        learner.fit(seen[part == "train"], label[part == "train"])
    scores = {}
    for name in ("validation", "test"):
        if (part == name).any():
            truth = label[part == name]
            probabilities = learner.predict_proba(seen[part == name])
            probability = probabilities[:, list(learner.classes_).index(1)]
            both = 0 < truth.sum() < len(truth)
            scores[name] = {
                "accuracy": float(((probability >= 0.5) == truth).mean()),
                "auc": float(roc_auc_score(truth, probability)) if both else None,
                "n": len(truth),
            }
    return scores


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BestShortcut:
    """The shortcut of the highest accuracy on a split, and what a model adds to it."""

    name: str
    accuracy: float

    def gain(self, accuracy: float) -> float:
        """Returns by how much a model's accuracy is higher than the shortcut's."""
        return accuracy - self.accuracy


def best_shortcut(ladder: Sequence[Mapping[str, Any]], split: str) -> BestShortcut | None:
    """Returns the shortcut of the highest accuracy on a split; None where none was scored.

    Args:
        ladder: see :func:`ladder`.
        split: "validation" or "test".
    """
    scored = [
        rung
        for rung in ladder
        if rung["rung"] != PERMUTED and rung.get(split, {}).get("accuracy") is not None
    ]
    best = max(scored, key=lambda rung: rung[split]["accuracy"], default=None)
    if best is None:
        return None
    return BestShortcut(name=best["rung"], accuracy=best[split]["accuracy"])


def ladder_table(
    ladder: Sequence[Mapping[str, Any]], model: Mapping[str, Mapping[str, Any]]
) -> list[list[str]]:
    """Returns the ladder as rows of cells, head first, the model last if there is one.

    Args:
        ladder: see :func:`ladder`.
        model: the model's "accuracy" and "auc" by split.
    """
    splits = [split for split in ("validation", "test") if any(split in rung for rung in ladder)]
    head = ["shortcut", *(f"{split} {name}" for split in splits for name in ("accuracy", "AUC"))]

    def cells(scores: Mapping[str, Any]) -> list[str]:
        found = [scores.get(split, {}).get(key) for split in splits for key in ("accuracy", "auc")]
        return ["" if value is None else f"{value:.3f}" for value in found]

    rows = [
        [rung["rung"], *([rung["reason"]] if "reason" in rung else cells(rung))] for rung in ladder
    ]
    if model:
        rows += [["the model", *cells(model)], ["what the model adds to the best shortcut"]]
        for split in splits:
            best, accuracy = best_shortcut(ladder, split), model.get(split, {}).get("accuracy")
            rows[-1] += [f"{best.gain(accuracy):+.3f}" if best and accuracy is not None else "", ""]
    return [head, *(row + [""] * (len(head) - len(row)) for row in rows)]
