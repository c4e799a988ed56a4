"""What the trials have shown, as ``faithfulness.json`` and as tables in Markdown."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from msa_flax.files import markdown_table
from msa_flax.saliency.trials.agreement import TOP
from msa_flax.saliency.trials.examine import Examination
from msa_flax.saliency.trials.verdicts import RULE, ControlDifference, MethodScore

# The columns of a difference in files, where a control is called a reference.
_COLUMNS = {"control": "reference", "control_score": "reference_score"}


def examination_json(examinations: Sequence[Examination]) -> dict[str, Any]:
    """Returns what ``faithfulness.json`` holds of some examinations, with the rule of verdicts.

    What is undefined is None.
    """
    return {"rule": RULE, "tables": [_examination(one) for one in examinations]}


def examination_text(examination: Examination) -> str:
    """Returns the tables of an examination in Markdown."""
    names, weights = examination.agreement.names, examination.random_weights
    lines = [
        [name, *(_shown(value, 2, "") for value in line)]
        for name, line in zip(names, examination.agreement.correlation, strict=True)
    ]
    lines.append(
        ["**random weights**", *(_shown(weights.get(name, np.nan), 2, "") for name in names)]
    )
    beside = markdown_table(["rank correlation", *names], lines)
    return (
        f"{results_table(examination.results)}\nMaps beside each other, and beside those of the "
        f"same method with random weights; mean over the images.\n\n{beside}\n"
    )


def result_rows(results: Sequence[MethodScore]) -> list[dict[str, Any]]:
    """Returns a plain dictionary for each result and control, for CSV or JSON.

    What is undefined is None, with the reason beside it.
    """
    return [
        {
            "method": result.method,
            "measure": result.measure.name,
            "better": "higher" if result.measure.better > 0 else "lower",
            "settings": result.measure.settings,
            "n": result.n,
            "images": result.images,
            "score": _number(result.score),
            **_difference_row(difference),
            "verdict": result.verdict and result.verdict.answer,
            "verdict_reason": result.verdict and result.verdict.reason,
            "p_yes": result.verdict and _number(result.verdict.p_yes),
            "p_no": result.verdict and _number(result.verdict.p_no),
        }
        for result in results
        for difference in result.differences or [None]
    ]


def results_table(results: Sequence[MethodScore]) -> str:
    """Returns the results as a table in Markdown, with settings, verdicts and the rule below it."""
    controls = list(dict.fromkeys(each.control for one in results for each in one.differences))
    minus = [f"minus {name}" for name in controls]
    lines = []
    for result in results:
        beside = {each.control: each for each in result.differences}
        decided = result.verdict and result.measure.decides
        lines.append(
            [
                result.method,
                f"{result.measure.name} {'↑' if result.measure.better > 0 else '↓'}",
                str(result.n) if result.n == result.images else f"{result.n} of {result.images}",
                _shown(result.score),
                *(_shown(beside[c].control_score) if c in beside else "" for c in controls),
                *(_interval(beside[c]) if c in beside else "" for c in controls),
                result.verdict.answer if result.verdict and decided else "",
            ]
        )
    measures = dict.fromkeys(result.measure for result in results if result.measure.settings)
    verdicts = {result.method: result.verdict for result in results if result.verdict}
    notes = ["↑ more is better, ↓ less is better; intervals are of 95 %, paired by image."]
    notes += [f"{measure.name}: {measure.settings}." for measure in measures]
    notes += [
        f"**{name}**: {verdict.answer}; {verdict.reason}." for name, verdict in verdicts.items()
    ]
    head = ["method", "measure", "n", "score", *controls, *minus, "verdict"]
    table = markdown_table(head, lines)
    return "\n".join([table, "", *(f"- {note}" for note in notes), "", RULE, ""])


def _examination(examination: Examination) -> dict[str, Any]:
    agreement = examination.agreement
    return {
        "rows": result_rows(examination.results),
        "random_weights": {n: _number(value) for n, value in examination.random_weights.items()},
        "agreement": {
            "methods": list(agreement.names),
            "top": TOP,
            "correlation": [[_number(value) for value in line] for line in agreement.correlation],
            "overlap": [[_number(value) for value in line] for line in agreement.overlap],
        },
    }


def _difference_row(difference: ControlDifference | None) -> dict[str, Any]:
    if difference is None:
        values = dict.fromkeys(field.name for field in dataclasses.fields(ControlDifference))
        values["reason"] = "no image on which all scores are defined"
    else:
        values = dataclasses.asdict(difference)
    return {
        _COLUMNS.get(name, name): _number(value) if isinstance(value, float) else value
        for name, value in values.items()
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _shown(value: float, digits: int = 3, undefined: str = "undefined") -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else undefined


def _interval(difference: ControlDifference) -> str:
    ends = "no interval"
    if np.isfinite(difference.low):
        ends = f"{difference.low:+.3f} to {difference.high:+.3f}"
    return f"{difference.value:+.3f} [{ends}]"
