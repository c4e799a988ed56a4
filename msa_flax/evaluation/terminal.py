"""What the command prints: the table of metrics with its notes."""

from collections.abc import Mapping, Sequence
from typing import Any

from msa_flax.evaluation.intervals import METHODS
from msa_flax.evaluation.summary import NAMES
from msa_flax.files import NOTICE

_MANY = 8  # metrics; a note names fewer than so many


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
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
