"""What the tests of the maps found: a line a method, with its verdict."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from msa_flax.reporting import points
from msa_flax.reporting.artefacts import Artefacts
from msa_flax.reporting.gallery import TITLES
from msa_flax.reporting.tables import Table

_SHOWN = ("deletion (logit)", "insertion (logit)", "ROAD (logit)", "mass inside")


def verdicts(run: Artefacts) -> list[Table]:
    """Returns a table for each set of methods that was tested on the same images.

    There is none where :func:`why_not` says that other maps were tested.
    """
    parts = [] if why_not(run) else run.faithfulness.get("tables", [])
    found = [_verdicts(part) for part in parts]
    if found:
        layer = run.faithfulness.get("layer")
        shown = f"Maps at the layer {layer} of" if layer else "Maps of"
        note = f"{shown} the class that was called, one image of each slice."
        found[-1] = dataclasses.replace(found[-1], note=f"{note} {run.faithfulness['rule']}")
    return found


def why_not(run: Artefacts) -> str:
    """Returns that the maps of another checkpoint were tested, "" where they were not."""
    checkpoint, step = (run.faithfulness.get(name) for name in ("checkpoint", "step"))
    if not run.faithfulness or run.step is None or (checkpoint, step) == ("best", run.step):
        return ""
    return (
        f"Those of checkpoint {checkpoint}, step {step}, have been tested, but this run's is now "
        f"best, step {run.step}."
    )


def _verdicts(part: Mapping[str, Any]) -> Table:
    lines = part["rows"]
    shown = [name for name in _SHOWN if any(line["measure"] == name for line in lines)]
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_method.setdefault(line["method"], []).append(line)
    references = {name for name, own in by_method.items() if own[0]["verdict"] == "reference"}
    rows = []
    for method in sorted(by_method, key=lambda name: name in references):  # these come last
        own, correlation = by_method[method], part["random_weights"].get(method)
        rows.append(
            [
                _title(method),
                own[0]["verdict"],
                str(own[0]["images"]),
                *(_score(own, name) for name in shown),
                "" if correlation is None else points.shown(correlation),
                _in_words(own[0]["verdict_reason"], references),
            ]
        )
    head = [
        "Method",
        "Better than the controls?",
        "Images",
        *(_arrow(lines, name) for name in shown),
    ]
    return Table(
        title=f"Do the maps mean anything? {_named([m for m in by_method if m not in references])}",
        head=[*head, "Rank correlation with maps of random weights", "Why"],
        rows=rows,
    )


def _title(method: str) -> str:
    words = method.replace("_", " ")
    return TITLES.get(method, words[:1].upper() + words[1:])


def _named(judged: Sequence[str]) -> str:
    """Returns the methods that were judged, the first of them where they are many."""
    names = [_title(name) for name in judged]
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} others"


def _in_words(reason: str, references: set[str]) -> str:
    for name in references:
        reason = reason.replace(name, f"the {name.replace('_', ' ')}")
    return reason


def _score(lines: Sequence[Mapping[str, Any]], measure: str) -> str:
    """Returns a method's own score, "undefined" where there is none."""
    for line in lines:
        if line["measure"] == measure:
            return points.shown(line["score"])
    return ""


def _arrow(lines: Sequence[Mapping[str, Any]], measure: str) -> str:
    better = next(line["better"] for line in lines if line["measure"] == measure)
    return f"{measure}, {better} is better"
