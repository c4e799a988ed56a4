"""What ``evaluate`` prints: the table of metrics with its notes, and lines on calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

from msa_flax.evaluation.intervals import METHODS
from msa_flax.evaluation.summary import NAMES
from msa_flax.files import NOTICE

_MANY = 8  # metrics; a note names fewer than so many
_TITLES = {"temperature": "temperature", "isotonic": "isotonic", "venn_abers": "Venn-Abers"}
_OF_STUDIES = {"AUC": "auc", "sensitivity": "recall", "specificity": "specificity"}
SCORES_OF_STUDIES = {  # how one score is made of a study's slices, in words
    "max": "the greatest of its slices",
    "top": "the mean of its greatest slices",
    "noisy_or": "the noisy-or of its slices",
    "mean": "the mean of its slices",
    "logistic": "a logistic regression on the greatest, the mean of the top and the mean",
}


def metrics_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a plain text table, one column per split, paper 1's Table 4 first.

    Below it stand the methods of the intervals, and once each the reasons why some are missing.

    Args:
        results: column title to what ``metrics.json`` holds.
    """
    columns = {title: _cells(values) for title, values in results.items()}
    names = list(next(iter(columns.values()), {}))
    rows = [
        ["", *columns],
        *([name, *(cells[name] for cells in columns.values())] for name in names),
    ]
    stamps = dict.fromkeys(stamp for values in results.values() for stamp in values["stamps"])
    notes = [
        *_methods(results),
        *_reasons(results, "reason", "undefined"),
        *_reasons(results, "interval_reason", "no interval"),
        *(f"stamp: {stamp}" for stamp in stamps),
        NOTICE,
    ]
    return text_table(rows) + "\n".join(["", *notes]) + "\n"


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows as aligned columns, with a line below the first row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    return "".join(f"{line}\n" for line in lines)


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
    ends = "" if entry["low"] is None else f" [{entry['low']:.4f}, {entry['high']:.4f}]"
    return _value(entry) + ends


def _methods(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Says how the intervals in the table were made, all of them or each kind."""
    found = [values["metrics"] for values in results.values()]
    used = {
        method: names
        for method in METHODS
        if (names := [n for n in NAMES if any(m[n]["method"] == method for m in found)])
    }
    return [
        f"[low, high] at 95 %{f' of {_listed(names)}' if len(used) > 1 else ''}: {METHODS[method]}"
        for method, names in sorted(used.items(), key=lambda item: len(item[1]) >= _MANY)
    ]


def _reasons(results: Mapping[str, Mapping[str, Any]], key: str, what: str) -> list[str]:
    """Returns a line per reason, with the columns and the metrics that it holds for."""
    found: dict[tuple[str, str], list[str]] = {}
    for title, values in results.items():
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


def calibration_lines(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns what is said of calibration, abstention and the threshold, "" if nothing is stored.

    Args:
        results: split to what ``metrics.json`` holds.
    """
    lines = []
    for split, values in results.items():
        found, sets = values.get("calibration", {}), values.get("conformal", {})
        said = operating_point_lines(values)
        if "coverage" in sets:
            said += [_errors(found), *_sets(sets, values["negative"], values["positive"])]
        elif sets:
            said += [f"not calibrated: {sets['reason']}"]
        lines += [f"{split}: {line}\n" for line in said]
    return "".join(lines)


def study_lines(split: str, section: Mapping[str, Any], positive: str) -> str:
    """Returns what ``metrics.json`` says of whole studies, as a plain text table.

    Args:
        split: its name.
        section: "study" of ``metrics.json``.
        positive: name of the positive class.
    """
    confusion, found = section["confusion"], section["metrics"]
    found_in = confusion["tp"] + confusion["fn"]
    name = section["aggregation"]["name"]
    rows = [
        ["studies", split],
        [f"studies, with {positive!r}", f"{section['n']}, {found_in}"],
        ["score of a study", SCORES_OF_STUDIES.get(name, name)],
        *([title, _cell(found[key])] for title, key in _OF_STUDIES.items()),
        ["threshold, of validation", f"{section['threshold']:.4g}"],
    ]
    return text_table(rows)


def operating_point_lines(values: Mapping[str, Any]) -> list[str]:
    """Returns how the threshold was chosen and what it promises; nothing if it was not chosen.

    Args:
        values: what ``metrics.json`` holds.
    """
    point = values.get("operating_point")
    if point is None:
        return []
    name, wanted = repr(values["positive"]), f"{100 * point['sensitivity']:g} %"
    promised = {
        "images": f"at least {wanted} of new {name} images",
        "groups": f"every {name} image of at least {wanted} of new groups (patients or series)",
    }[point["counted"]]
    lines = [
        f"images with a probability of {point['threshold']:.4g} or more are called {name}; with "
        f"{100 * point['confidence']:g} % confidence this threshold finds {promised}; it was "
        f"chosen on {point['n']} validation {point['counted']} with {name}"
    ]
    if not point["guarantee"]:
        lines.append(f"that sensitivity is not guaranteed: {point['reason']}")
    return lines


def _errors(part: Mapping[str, Any]) -> str:
    number = part["fitted_on"]["images"]["all"]
    if reason := part["temperature"].get("reason"):
        return f"nothing was calibrated on {number} validation images: {reason}"
    eces = ", ".join(
        f"{title}{_warmth(part[name])} {_value(part[name]['metrics']['ece'])}"
        for name, title in _TITLES.items()
    )
    raw = _value(part["uncalibrated"]["ece"])
    return f"ECE {raw} as it is; calibrated on {number} validation images: {eces}"


def _warmth(part: Mapping[str, Any]) -> str:
    value = part["parameters"].get("temperature")
    return "" if value is None else f" ({value:.3g})"


def _sets(part: Mapping[str, Any], negative: str, positive: str) -> list[str]:
    coverage, decided = part["coverage"], part["decided"]
    lines = [
        f"sets at alpha {part['alpha']:g} hold the right class of {_percent(coverage[positive])} "
        f"of {positive!r} and {_percent(coverage[negative])} of {negative!r} images; abstaining on "
        f"{_percent(part['abstained'])}, accuracy {_value(decided['accuracy'])} on the others"
    ]
    lines += [entry["reason"] for entry in part["thresholds"].values() if "reason" in entry]
    if not part["guarantee"]:
        lines.append(f"that coverage is not guaranteed: {part['reason']}")
    return lines


def _value(entry: Mapping[str, Any]) -> str:
    return "undefined" if entry["value"] is None else f"{entry['value']:.4f}"


def _percent(entry: Mapping[str, Any]) -> str:
    return "undefined" if entry["value"] is None else f"{100 * entry['value']:.1f} %"
