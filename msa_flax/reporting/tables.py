"""The tables of a report: head and rows of text."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.auditing import auditing, shortcuts
from msa_flax.evaluation import compare
from msa_flax.evaluation.intervals import METHODS
from msa_flax.evaluation.summary import NAMES
from msa_flax.files import flatten
from msa_flax.reporting import points
from msa_flax.reporting.artefacts import Artefacts

_NAMES = {
    "accuracy": "Accuracy",
    "precision": "Precision (PPV)",
    "recall": "Recall (sensitivity)",
    "specificity": "Specificity",
    "f1": "F1",
    "auc": "AUC",
    "npv": "NPV",
    "mcc": "MCC",
    "average_precision": "Average precision",
    "sensitivity_at_specificity_95": "Sensitivity at specificity 0.95",
    "net_benefit": "Net benefit at the threshold",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "ece": "Expected calibration error",
    "ece_debiased": "Calibration error, debiased (root mean square)",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration intercept",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Text in rows; the first cell of a row is its name."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def main_metrics(run: Artefacts) -> Table:
    """Returns every metric of metrics.json with its interval, or why there is none."""
    rows = []
    for name in ordered(run.metrics["metrics"]):
        entry = run.metrics["metrics"][name]
        limits = points.interval(entry)
        reason = entry.get("reason") if entry["value"] is None else entry.get("interval_reason")
        method = str(entry.get("method", "none"))
        how = METHODS.get(method, "no interval" if method == "none" else method)
        counts = [str(entry.get("n", "")), str(entry.get("groups", "") or "unknown")]
        rows.append(
            [_name(name), points.shown(entry["value"]), limits or "none", *counts, reason or how]
        )
    head = ["Metric", "Value", "95 % interval", "Images", "Groups"]
    return Table(
        title="Main metrics",
        head=[*head, "How the interval was made, or why there is none"],
        rows=rows,
        note="Images and groups: those that a metric is about, for recall the fractures.",
    )


def beside_shortcuts(run: Artefacts) -> str:
    """Says what the model adds to the best shortcut, or how to know."""
    best = shortcuts.best_shortcut(run.audit.get("ladder") or [], run.split)
    accuracy = run.metrics["metrics"].get("accuracy", {}).get("value")
    if not best or accuracy is None:
        return ""
    reached = best[run.split]["accuracy"]
    gain = accuracy - reached
    added = "nothing" if gain <= 0 else f"{points.shown(gain)}"
    return (
        f"The best shortcut, {best['rung']}, reaches an accuracy of {points.shown(reached)} on "
        f"these images, the model {points.shown(accuracy)}: it adds {added}."
    )


def ladder(run: Artefacts) -> Table | None:
    """Returns the ladder of shortcuts with the model last; None where there is none."""
    found = run.audit.get("ladder")
    if not found:
        return None
    model: dict[str, dict[str, Any]] = dict(run.audit.get("model") or {})
    entries = run.metrics["metrics"]
    model[run.split] = {k: entries[k]["value"] for k in ("accuracy", "auc") if k in entries}
    head, *rows = auditing.ladder_table(found, model)
    return Table(title="Ladder of shortcuts", head=head, rows=rows)


def groups(run: Artefacts) -> Table:
    """Returns the numbers of every group, as at the run's threshold."""
    rows = []
    for group in sorted(set(run.predictions.group.tolist())):
        counts = {
            key: int(((run.outcome == key) & (run.predictions.group == group)).sum())
            for key in ("tp", "fn", "fp", "tn")
        }
        found = points.values(counts)
        rows.append(
            [
                group or "unknown",
                str(sum(counts.values())),
                str(counts["tp"] + counts["fn"]),
                *(str(counts[key]) for key in ("tp", "fn", "fp", "tn")),
                *(points.shown(found[key], 3) for key in _GROUP_COLUMNS),
            ]
        )
    return Table(
        title="Numbers by group",
        head=[
            "Group",
            "Images",
            "Fractures",
            *("TP", "FN", "FP", "TN"),
            *(points.NUMBERS[key][0] for key in _GROUP_COLUMNS),
        ],
        rows=rows,
        note="A group is a series or a patient. A number is undefined where the group has no "
        "image of the class. Single groups have no intervals: see those of the summary.",
    )


def comparison(runs: Mapping[str, Artefacts]) -> list[Table]:
    """Returns the metrics of several runs beside each other, and where they disagree."""
    names = ordered(dict.fromkeys(n for run in runs.values() for n in run.metrics["metrics"]))
    rows = [["Threshold", *(f"{run.threshold:g}" for run in runs.values())]]
    for name in names:
        entries = [run.metrics["metrics"].get(name) for run in runs.values()]
        cells = [f"{points.shown(e['value'])} {points.interval(e)}" if e else "" for e in entries]
        rows.append([_name(name), *map(str.strip, cells)])
    rows.append(["Stamps", *("; ".join(r.metrics["stamps"]) or "none" for r in runs.values())])
    beside = Table(title="Metrics side by side", head=["Metric", *runs], rows=rows)
    (first, reference), *others = runs.items()
    disagree = []
    for title, run in others:
        mine, theirs = _right(reference), _right(run)
        counts = [
            sum(mine[k] and theirs[k] for k in mine),
            sum(mine[k] and not theirs[k] for k in mine),
            sum(theirs[k] and not mine[k] for k in mine),
            sum(not mine[k] and not theirs[k] for k in mine),
        ]
        disagree.append([title, *map(str, counts)])
    pairs = Table(
        title="Where they agree",
        head=["Run", "Both right", f"Only {first} right", "Only this run right", "Both wrong"],
        rows=disagree,
        note="Each at its own threshold, on the same images.",
    )
    tested = {title: (run.predictions, run.threshold) for title, run in runs.items()}
    return [beside, paired(compare.compare_runs(tested)), pairs, _differences(runs)]


def paired(found: Sequence[compare.PairedDifference]) -> Table:
    """Returns how runs differ from the first, with intervals and p values, and what these mean."""
    rows = []
    for row in found:
        how = [f"interval: {row.method}"] * (row.method != "none")
        how += [f"p: {row.test}"] * (row.test != "none")
        rows.append(
            [
                f"{row.second}: {_name(row.metric)}",
                points.shown(row.first_value),
                points.shown(row.second_value),
                _signed(row.difference),
                points.interval({"low": row.low, "high": row.high}) or "none",
                *("" if n is None else str(n) for n in (row.only_first, row.only_second)),
                *(_p_value(p) for p in (row.p, row.p_holm)),
                "; ".join([*how, *[row.reason] * bool(row.reason)]),
            ]
        )
    head = ["Run and metric", found[0].first, "This run", "Difference", "95 % interval"]
    head += ["b", "c", "p", "p, Holm", "How, or why not"]
    return Table(title="Paired differences", head=head, rows=rows, note=_paired_note(found))


def ordered(names: Iterable[str]) -> list[str]:
    """Returns names of metrics, those of the paper's table first, unknown ones last."""
    return sorted(names, key=lambda name: NAMES.index(name) if name in NAMES else len(NAMES))


def configuration(run: Artefacts) -> Table:
    """Returns every field of the configuration."""
    rows = [[name, _plain(value)] for name, value in flatten(run.config).items()]
    return Table(title="Configuration", head=["Field", "Value"], rows=rows)


def origin(run: Artefacts) -> Table:
    """Returns what run.json says of data, weights, software and machine."""
    shown = {name: value for name, value in flatten(run.run).items() if name != "bad_files"}
    rows = [[name, _plain(value)] for name, value in shown.items()]
    rows.append(["files left out", str(len(run.run.get("bad_files") or []))])
    return Table(title="Fingerprints, weights and environment", head=["What", "Value"], rows=rows)


_UNGROUPED = (
    "No group is known: images are taken as independent, which slices of one patient are not, so "
    "that intervals are too narrow and p values too small."
)
_GROUP_COLUMNS = ("accuracy", "sensitivity", "specificity", "ppv", "f1")


def _paired_note(found: Sequence[compare.PairedDifference]) -> str:
    tests = sum(row.p is not None for row in found)
    used = dict.fromkeys(name for row in found for name in (row.method, row.test))
    images, groups = (max(getattr(row, what) for row in found) for what in ("images", "groups"))
    lines = [
        f"{images} images; groups: {groups or 'not used'}.",
        f"This run minus {found[0].first}, on the same images, each run at its own threshold; for "
        "the Brier score and the log loss less is better. b: images that only "
        f"{found[0].first} calls rightly; c: images that only this run does.",
        f"p: two-sided. p, Holm: corrected for the {tests} tests of this table as one family, all "
        "metrics and all runs.",
        *(f"{name}: {compare.METHODS[name]}." for name in used if name != "none"),
    ]
    if not {"delong", "agresti-min", "mcnemar"}.isdisjoint(used):
        lines.append(_UNGROUPED)
    return " ".join(lines)


def _signed(value: float | None) -> str:
    if value is None:
        return points.shown(value)
    shown = points.shown(abs(value))
    return shown if float(shown) == 0 else f"{'+' if value > 0 else '-'}{shown}"


def _p_value(p: float | None) -> str:
    if p is None:
        return "none"
    return points.shown(p) if p >= 0.001 else f"{p:.1e}"


def _name(key: str) -> str:
    return _NAMES.get(key, key.replace("_", " "))


def _right(run: Artefacts) -> dict[str, bool]:
    right = np.isin(run.outcome, ("tp", "tn"))
    return dict(zip(run.predictions.example_id.tolist(), right.tolist(), strict=True))


def _differences(runs: Mapping[str, Artefacts]) -> Table:
    flat = {title: flatten(run.config) for title, run in runs.items()}
    fields = sorted({name for values in flat.values() for name in values} - {"name"})
    values = {name: [_plain(f.get(name, "")) for f in flat.values()] for name in fields}
    rows = [[name, *cells] for name, cells in values.items() if len(set(cells)) > 1]
    head = ["Field", *runs]
    note = "" if rows else "Their configurations are equal."
    return Table(title="How they were made differently", head=head, rows=rows, note=note)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        shown = ", ".join(map(str, value[:12]))
        return shown + (f" and {len(value) - 12} more" if len(value) > 12 else "") or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
