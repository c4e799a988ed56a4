"""The numbers of a set of predictions: confusion matrix, metrics, their intervals, their table."""

from collections.abc import Mapping, Sequence
from typing import Any

from msa_flax.evaluation.estimates import NAMES, compute
from msa_flax.evaluation.intervals import METHODS
from msa_flax.evaluation.predictions import Predictions, PredictionsError
from msa_flax.files import NOTICE

SCHEMA_VERSION = 1
_MANY = 8  # metrics; a note names fewer than so many


def metrics_json(
    predictions: Predictions,
    *,
    split: str,
    threshold: float,
    stamps: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    """Returns what ``metrics.json`` holds for the predictions of one split.

    Args:
        predictions: the rows of that split, and of no other.
        split: its name, as in the column ``split``.
        threshold: see :func:`msa_flax.evaluation.estimates.compute`, which makes the metrics.
        stamps: warnings that belong to the data, such as "series cross the split".
        seconds: wall-clock time of the evaluation; the one value two equal runs do not share.

    Raises:
        PredictionsError: rows of another split are among the predictions.
    """
    others = sorted(set(predictions.split.tolist()) - {split})
    if others:
        raise PredictionsError(
            f"split: expected rows of {split!r} only, got rows of {', '.join(map(repr, others))}"
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "split": split,
        "n": len(predictions),
        "groups": len(set(predictions.group.tolist()) - {""}),
        "positive": "fracture",
        "threshold": float(threshold),
        "stamps": list(stamps),
        **compute(
            predictions.label,
            predictions.probability,
            threshold=threshold,
            group=predictions.group,
            logits=predictions.logit,
        ),
        "seconds": float(seconds),
    }


def table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a plain text table, one column a split, paper 1's Table 4 first.

    Below it stand the methods of the intervals, and once each the reasons why some are missing.

    Args:
        metrics: column title to what :func:`metrics_json` returned.
    """
    columns = {title: _cells(values) for title, values in metrics.items()}
    names = list(next(iter(columns.values()), {}))
    rows = [
        ["", *columns],
        *([name, *(cells[name] for cells in columns.values())] for name in names),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns) + 1)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines.insert(1, "-" * (sum(widths) + 2 * len(columns)))
    stamps = dict.fromkeys(stamp for values in metrics.values() for stamp in values["stamps"])
    notes = [
        *_methods(metrics),
        *_reasons(metrics, "reason", "undefined"),
        *_reasons(metrics, "interval_reason", "no interval"),
        *(f"stamp: {stamp}" for stamp in stamps),
        NOTICE,
    ]
    return "\n".join([*lines, "", *notes]) + "\n"


def _cells(values: Mapping[str, Any]) -> dict[str, str]:
    confusion, metrics = values["confusion"], values["metrics"]
    return {
        "images": str(values["n"]),
        "groups": str(values["groups"] or "unknown"),
        **{name: _cell(metrics[name]) for name in NAMES},
        "TP FN FP TN": " ".join(str(confusion[key]) for key in ("tp", "fn", "fp", "tn")),
        "threshold": f"{values['threshold']:g}",
        "seconds": f"{values['seconds']:.1f}",
    }


def _cell(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "undefined"
    text = f"{entry['value']:.4f}"
    return text if entry["low"] is None else f"{text} [{entry['low']:.4f}, {entry['high']:.4f}]"


def _methods(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Says how the intervals in the table were made, all of them or each kind."""
    named = {
        method: [
            name
            for name in NAMES
            if any(values["metrics"][name]["method"] == method for values in metrics.values())
        ]
        for method in METHODS
    }
    used = {method: names for method, names in named.items() if names}
    return [
        f"[low, high] at 95 %{f' of {_listed(names)}' if len(used) > 1 else ''}: {METHODS[method]}"
        for method, names in sorted(used.items(), key=lambda item: len(item[1]) >= _MANY)
    ]


def _reasons(metrics: Mapping[str, Mapping[str, Any]], key: str, what: str) -> list[str]:
    """Returns a line a reason, with the columns and the metrics that it holds for."""
    found: dict[tuple[str, str], list[str]] = {}
    for title, values in metrics.items():
        by_reason: dict[str, list[str]] = {}
        for name in NAMES:
            if reason := values["metrics"][name].get(key):
                by_reason.setdefault(reason, []).append(name)
        for reason, names in by_reason.items():
            found.setdefault((reason, _listed(names)), []).append(title)
    return [
        f"{', '.join(titles)}: {what} ({reason}): {names}"
        for (reason, names), titles in found.items()
    ]


def _listed(names: Sequence[str]) -> str:
    if len(names) == len(NAMES):
        return "all metrics"
    return ", ".join(names) if len(names) < _MANY else "all others"
