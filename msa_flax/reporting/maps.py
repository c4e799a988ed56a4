"""What the tests of the maps found: one line per method, with its verdict."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from msa_flax.reporting.gallery import method_title
from msa_flax.reporting.saved import SavedRun
from msa_flax.reporting.tables import Table
from msa_flax.reporting.text import shown

_MEASURES = ("deletion (logit)", "insertion (logit)", "ROAD (logit)", "mass inside")


def verdicts(run: SavedRun) -> list[Table]:
    """Returns a table for each set of methods that was tested on the same images.

    There is none where :func:`why_not` says that other maps were tested.
    """
    parts = [] if why_not(run) else run.faithfulness.get("tables", [])
    found = [_verdicts(part) for part in parts]
    if found:
        layer = run.faithfulness.get("layer")
        which = f"Maps at the layer {layer} of" if layer else "Maps of"
        note = f"{which} the predicted class, one image of each slice. {run.faithfulness['rule']}"
        found[-1] = dataclasses.replace(found[-1], note=note)
    return found


def why_not(run: SavedRun) -> str:
    """Returns that the maps of another checkpoint were tested, "" where they were not."""
    checkpoint, step = (run.faithfulness.get(name) for name in ("checkpoint", "step"))
    if not run.faithfulness or run.step is None or (checkpoint, step) == ("best", run.step):
        return ""
    return (
        f"Those of checkpoint {checkpoint}, step {step}, have been tested, but this run's is now "
        f"best, step {run.step}."
    )


def _verdicts(part: Mapping[str, Any]) -> Table:
    lines: dict[str, dict[str, Mapping[str, Any]]] = {}  # method, measure -> line
    for line in part["rows"]:
        lines.setdefault(line["method"], {})[line["measure"]] = line
    arrows = {line["measure"]: line["better"] for line in part["rows"]}
    measures = [name for name in _MEASURES if name in arrows]
    firsts = {method: next(iter(own.values())) for method, own in lines.items()}
    references = [method for method in lines if firsts[method]["verdict"] == "reference"]
    judged = [method for method in lines if method not in references]
    rows = []
    for method in (*judged, *references):
        first, correlation = firsts[method], part["random_weights"].get(method)
        scores = [lines[method].get(name) for name in measures]
        rows.append(
            [
                method_title(method),
                first["verdict"] or "",
                str(first["images"]),
                *("" if line is None else shown(line["score"]) for line in scores),
                "" if correlation is None else shown(correlation),
                _in_words(first["verdict_reason"] or "", references),
            ]
        )
    head = ["Method", "Better than the controls?", "Images"]
    head += [f"{name}, {arrows[name]} is better" for name in measures]
    return Table(
        title=f"Do the maps mean anything? {_named(judged)}",
        head=[*head, "Rank correlation with maps of random weights", "Why"],
        rows=rows,
    )


def _named(judged: Sequence[str]) -> str:
    """Returns the titles of the methods that were judged, or the first where they are many."""
    names = [method_title(name) for name in judged]
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} others"


def _in_words(reason: str, references: Sequence[str]) -> str:
    for name in references:
        reason = reason.replace(name, f"the {name.replace('_', ' ')}")
    return reason
