"""The tables of a report on one run: head and rows of text."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from msa_flax.auditing import shortcuts
from msa_flax.evaluation.intervals import METHODS
from msa_flax.evaluation.metrics import rates
from msa_flax.evaluation.summary import NAMES
from msa_flax.files import flatten
from msa_flax.reporting.saved import SavedRun
from msa_flax.reporting.text import in_words, interval, plain, shown

_TITLES = {  # where the name in words would not do
    "precision": "Precision (PPV)",
    "recall": "Recall (sensitivity)",
    "auc": "AUC",
    "npv": "NPV",
    "mcc": "MCC",
    "sensitivity_at_specificity_95": "Sensitivity at specificity 0.95",
    "net_benefit": "Net benefit at the threshold",
    "brier": "Brier score",
    "ece": "Expected calibration error",
    "ece_debiased": "Calibration error, debiased (root mean square)",
}
# metric of a confusion matrix -> what it is in counts; the page's script computes the same ones
FORMULAS = {
    "accuracy": "(TP + TN) / all",
    "recall": "TP / (TP + FN)",
    "specificity": "TN / (TN + FP)",
    "precision": "TP / (TP + FP)",
    "npv": "TN / (TN + FN)",
    "f1": "2 TP / (2 TP + FP + FN)",
    "mcc": "correlation of predicted and true class, -1 to 1",
}
_OF_GROUPS = ("accuracy", "recall", "specificity", "precision", "f1")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Text in rows; the first cell of a row is its name."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def metric_name(key: str) -> str:
    """Returns the name of a metric of metrics.json as it is shown."""
    return _TITLES.get(key, in_words(key))


def in_order(names: Iterable[str]) -> list[str]:
    """Returns names of metrics, those of the paper's table first, unknown ones last."""
    return sorted(names, key=lambda name: NAMES.index(name) if name in NAMES else len(NAMES))


def main_metrics(run: SavedRun) -> Table:
    """Returns every metric of metrics.json with its interval, or why there is none."""
    rows = []
    for name in in_order(run.metrics["metrics"]):
        entry = run.metrics["metrics"][name]
        reason = entry.get("reason") if entry["value"] is None else entry.get("interval_reason")
        method = str(entry.get("method", "none"))
        how = METHODS.get(method, "no interval" if method == "none" else method)
        counts = [str(entry.get("n", "")), str(entry.get("groups", "") or "unknown")]
        limits = interval(entry) or "none"
        rows.append([metric_name(name), shown(entry["value"]), limits, *counts, reason or how])
    head = ["Metric", "Value", "95 % interval", "Images", "Groups"]
    return Table(
        title="Main metrics",
        head=[*head, "How the interval was made, or why there is none"],
        rows=rows,
        note="Images and groups: those that a metric is about; for recall, those of "
        f"{run.classes[1]!r}.",
    )


def beside_shortcuts(run: SavedRun) -> str:
    """Says what the model adds to the best shortcut; "" where that is not known."""
    best = shortcuts.best_shortcut(run.audit.get("ladder") or [], run.split)
    accuracy = run.metrics["metrics"].get("accuracy", {}).get("value")
    if not best or accuracy is None:
        return ""
    gain = best.gain(accuracy)
    return (
        f"The best shortcut, {best.name}, reaches an accuracy of {shown(best.accuracy)} on these "
        f"images, the model {shown(accuracy)}: it adds {'nothing' if gain <= 0 else shown(gain)}."
    )


def ladder(run: SavedRun) -> Table | None:
    """Returns the ladder of shortcuts with the model last; None where there is none."""
    found = run.audit.get("ladder")
    if not found:
        return None
    model: dict[str, dict[str, Any]] = dict(run.audit.get("model") or {})
    entries = run.metrics["metrics"]
    model[run.split] = {k: entries[k]["value"] for k in ("accuracy", "auc") if k in entries}
    head, *rows = shortcuts.ladder_table(found, model)
    return Table(title="Ladder of shortcuts", head=head, rows=rows)


def groups(run: SavedRun) -> Table:
    """Returns the numbers of every group, at the run's threshold."""
    rows = []
    for group in sorted(set(run.predictions.group.tolist())):
        outcome = run.outcome[run.predictions.group == group].tolist()
        counts = {key: outcome.count(key) for key in ("tp", "fn", "fp", "tn")}
        found = rates(**counts)
        rows.append(
            [
                group or "unknown",
                str(len(outcome)),
                str(counts["tp"] + counts["fn"]),
                *map(str, counts.values()),
                *(shown(float(found[key]), 3) for key in _OF_GROUPS),
            ]
        )
    head = ["Group", "Images", f"Of {run.classes[1]!r}", "TP", "FN", "FP", "TN"]
    return Table(
        title="Numbers by group",
        head=[*head, *map(metric_name, _OF_GROUPS)],
        rows=rows,
        note="A group is a series or a patient. A number is undefined where the group has no "
        "image of the class. Single groups have no intervals; those of the summary are about all.",
    )


def configuration(run: SavedRun) -> Table:
    """Returns every field of the configuration."""
    rows = [[name, plain(value)] for name, value in flatten(run.config).items()]
    return Table(title="Configuration", head=["Field", "Value"], rows=rows)


def origin(run: SavedRun) -> Table:
    """Returns what run.json says of data, weights, software and machine."""
    rows = [[name, plain(v)] for name, v in flatten(run.run).items() if name != "bad_files"]
    rows.append(["files left out", str(len(run.run.get("bad_files") or []))])
    return Table(title="Fingerprints, weights and environment", head=["What", "Value"], rows=rows)
