"""Are maps better than chance on this model? A verdict on each method, and the table.

References are maps made without the network: a random one, a prior of the centre. A method's gain
is the mean over images of its score minus a reference's, in the direction that is better. A verdict
rests on the logit in deletion, insertion and ROAD, against every reference; see :data:`RULE`.

For a "yes" all gains must be shown, so that the largest of their p-values is the method's own, and
no measure is picked out (an intersection-union test, Berger 1982). For a "no" one is enough, so
that it is the smallest times their number (Bonferroni). That a gain is not significant is no
evidence of its absence; therefore "no" is tested against a margin. P-values are one-sided, of
Student's t, and Holm-adjusted over the methods that are judged together.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.saliency.comparisons import FEWEST, Difference, Measure, Result

REFERENCES = ("random", "centre_prior")
MARGIN = 0.05  # of what there is to gain: less is not worth having
INSENSITIVE = 0.7  # of rank correlation: half of the ranks' variance is there without the weights
LEVEL = 0.025  # one-sided, so that a "yes" fits intervals of 95 %

RULE = (
    "Better than the references on this model? Yes: every gain in the logit, in deletion, "
    f"insertion and ROAD and over each reference, is above 0 (p below {LEVEL:g}, one-sided, "
    "adjusted for the number of methods). No: failing that, one of them is shown, idem, to be "
    f"below {MARGIN:.0%} of the mean change of the logit when the whole image is filled in. "
    "Otherwise it cannot be told. A method is called insensitive to the weights if its maps and "
    f"those of random weights have a rank correlation of {INSENSITIVE:g} or more. With fewer than "
    f"{FEWEST} groups, or unknown ones, all is said of these images, not of new patients."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a method is better than the references on this model, by :data:`RULE`.

    Attributes:
        answer: "yes", "no", "cannot be told", or "reference".
        reason: in words.
        p_yes: Holm-adjusted, one-sided; NaN where there is none.
        p_no: idem.
    """

    answer: str
    reason: str
    p_yes: float = np.nan
    p_no: float = np.nan


def judge(
    results: Sequence[Result],
    *,
    references: Sequence[str] = REFERENCES,
    reach: float,
    weights_correlation: Mapping[str, float] | None = None,
) -> list[Result]:
    """Returns the results, all of a method together, with its verdict by :data:`RULE`.

    Args:
        results: of all methods that are judged together, from
            :func:`msa_flax.saliency.comparisons.compare`.
        references: names that are not judged.
        reach: the mean change of the logit when the whole image is filled in, above 0 or 0.
        weights_correlation: as in :func:`msa_flax.saliency.assessment.assess`.
    """
    methods = list(dict.fromkeys(result.method for result in results))
    gains = {
        name: [
            (result.measure, difference)
            for result in results
            if result.method == name and result.measure.decides
            for difference in result.differences
        ]
        for name in methods
        if name not in references
    }
    raw = np.array([_p_values(found, MARGIN * reach) for found in gains.values()]).reshape(-1, 2)
    adjusted = zip(holm(raw[:, 0]).tolist(), holm(raw[:, 1]).tolist(), strict=True)
    verdicts = {
        name: _verdict(found, p_yes, p_no, (weights_correlation or {}).get(name))
        for (name, found), (p_yes, p_no) in zip(gains.items(), adjusted, strict=True)
    }
    other = Verdict(answer="reference", reason="it knows nothing of the network")
    return [
        dataclasses.replace(result, verdict=verdicts.get(name, other))
        for name in methods
        for result in results
        if result.method == name
    ]


def holm(p: np.ndarray) -> np.ndarray:
    """Returns Holm's (1979) adjusted p-values; NaN stays, and counts as a test.

    Args:
        p: float [m].
    """
    order = np.argsort(p)  # NaN comes last
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns a plain dictionary for each result and reference, for CSV or JSON.

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
            "score": _plain(result.score),
            **_row(difference),
            "verdict": result.verdict and result.verdict.answer,
            "verdict_reason": result.verdict and result.verdict.reason,
            "p_yes": result.verdict and _plain(result.verdict.p_yes),
            "p_no": result.verdict and _plain(result.verdict.p_no),
        }
        for result in results
        for difference in result.differences or [None]
    ]


def table(results: Sequence[Result]) -> str:
    """Returns the results as a table in Markdown, with settings, verdicts and the rule below it."""
    names = list(dict.fromkeys(each.reference for result in results for each in result.differences))
    head = ["method", "measure", "n", "score", *names, *(f"minus {name}" for name in names)]
    lines = [_line([*head, "verdict"]), _line(["---"] * (len(head) + 1))]
    for result in results:
        found = {each.reference: each for each in result.differences}
        n = f"{result.n}" if result.n == result.images else f"{result.n} of {result.images}"
        lines.append(
            _line(
                [
                    result.method,
                    f"{result.measure.name} {'↑' if result.measure.better > 0 else '↓'}",
                    n,
                    _shown(result.score),
                    *(
                        _shown(found[name].reference_score) if name in found else ""
                        for name in names
                    ),
                    *(_interval(found[name]) if name in found else "" for name in names),
                    result.verdict.answer if result.verdict and result.measure.decides else "",
                ]
            )
        )
    measures = dict.fromkeys(result.measure for result in results if result.measure.settings)
    verdicts = {result.method: result.verdict for result in results if result.verdict}
    notes = [f"{measure.name}: {measure.settings}." for measure in measures]
    notes += [f"**{name}**: {found.answer}; {found.reason}." for name, found in verdicts.items()]
    arrows = "↑ more is better, ↓ less is better; intervals are of 95 %, paired by image."
    return "\n".join([*lines, "", *(f"- {note}" for note in [arrows, *notes]), "", RULE, ""])


def _p_values(gains: Sequence[tuple[Measure, Difference]], margin: float) -> tuple[float, float]:
    """Returns one-sided p-values of "some gain is not above 0" and of "all reach the margin"."""
    from scipy.special import stdtr

    if not gains or any(math.isnan(difference.error) for _, difference in gains):
        return np.nan, np.nan
    gain = np.array([measure.better * difference.value for measure, difference in gains])
    error = np.array([difference.error for _, difference in gains])
    freedom = np.array([difference.units - 1 for _, difference in gains])
    above = float(stdtr(freedom, -gain / error).max())
    below = float(stdtr(freedom, (gain - margin) / error).min())
    return above, min(1.0, below * len(gains))


def _verdict(
    gains: Sequence[tuple[Measure, Difference]],
    p_yes: float,
    p_no: float,
    correlation: float | None,
) -> Verdict:
    answer = "yes" if p_yes < LEVEL else "no" if p_no < LEVEL else "cannot be told"
    if not gains:
        reasons = ["nothing was measured that decides"]
    elif missing := _not_shown(gains):
        reasons = [f"no gain is shown {missing}"]
    elif answer == "yes":
        reasons = ["every gain is shown"]
    else:
        reasons = ["every gain is shown by itself, but not adjusted for the number of methods"]
    reasons += sorted({found.reason for _, found in gains if found.reason})
    if any(found.over == "images" for _, found in gains):
        reasons.append("of these images, not of new patients")
    if correlation is not None and correlation >= INSENSITIVE:
        reasons.append(f"insensitive to the model's weights (rank correlation {correlation:.2f})")
    return Verdict(answer=answer, reason="; ".join(reasons), p_yes=p_yes, p_no=p_no)


def _not_shown(gains: Sequence[tuple[Measure, Difference]]) -> str:
    """Returns over which reference and in which measures no gain is shown, "" if there is none."""
    found: dict[str, list[str]] = {}
    for measure, difference in gains:
        if not (difference.low > 0 if measure.better > 0 else difference.high < 0):
            name = measure.name.removesuffix(" (logit)")
            found.setdefault(difference.reference, []).append(name)
    return "; ".join(f"over {name} in {', '.join(names)}" for name, names in found.items())


def _row(found: Difference | None) -> dict[str, Any]:
    if found is None:
        names = [field.name for field in dataclasses.fields(Difference)]
        return dict.fromkeys(names) | {"reason": "no image on which all scores are defined"}
    return {
        name: _plain(value) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(found).items()
    }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "undefined"


def _interval(found: Difference) -> str:
    ends = f"{found.low:+.3f} to {found.high:+.3f}" if math.isfinite(found.low) else "no interval"
    return f"{found.value:+.3f} [{ends}]"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
