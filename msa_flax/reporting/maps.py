"""What the tests of the maps found: a line a method, with its verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

from msa_flax.reporting import points
from msa_flax.reporting.artefacts import Artefacts
from msa_flax.reporting.gallery import TITLES
from msa_flax.reporting.tables import Table

_SHOWN = ("deletion (logit)", "insertion (logit)", "ROAD (logit)", "mass inside")


def verdicts(run: Artefacts) -> list[Table]:
    """Returns a table for each set of methods that was tested on the same images."""
    return [_verdicts(part, run.faithfulness) for part in run.faithfulness.get("tables", [])]


def _verdicts(part: Mapping[str, Any], whole: Mapping[str, Any]) -> Table:
    lines = part["rows"]
    shown = [name for name in _SHOWN if any(line["measure"] == name for line in lines)]
    methods = dict.fromkeys(line["method"] for line in lines)
    rows = []
    for method in methods:
        own = [line for line in lines if line["method"] == method]
        correlation = part["random_weights"].get(method)
        rows.append(
            [
                TITLES.get(method, method.replace("_", " ")),
                str(own[0]["images"]),
                *(_score(own, name) for name in shown),
                "" if correlation is None else points.shown(correlation),
                own[0]["verdict"],
                own[0]["verdict_reason"],
            ]
        )
    head = ["Method", "Images", *(_arrow(lines, name) for name in shown)]
    return Table(
        title=f"Do the maps mean anything? {_named(lines)}",
        head=[*head, "Rank correlation with maps of random weights", "Better than chance?", "Why"],
        rows=rows,
        note=f"Maps of the class that was called, one image of each slice. {whole['rule']}",
    )


def _named(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns the methods that were judged, the first of them where they are many."""
    judged = dict.fromkeys(line["method"] for line in lines if line["verdict"] != "reference")
    names = [TITLES.get(name, name.replace("_", " ")) for name in judged]
    return ", ".join(names if len(names) <= 2 else [names[0], f"and {len(names) - 1} others"])


def _score(lines: Sequence[Mapping[str, Any]], measure: str) -> str:
    found = [line["score"] for line in lines if line["measure"] == measure]
    return points.shown(found[0]) if found else ""


def _arrow(lines: Sequence[Mapping[str, Any]], measure: str) -> str:
    better = next(line["better"] for line in lines if line["measure"] == measure)
    return f"{measure}, {better} is better"
