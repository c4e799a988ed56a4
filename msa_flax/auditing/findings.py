"""A finding: what an audit says about one thing that it looked at, good news included."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

SEVERITIES = ("high", "medium", "open", "low", "none")
SHOWN = 6  # example files that a finding names

_NUMBER = (float, None)  # null where it is undefined
_SCORES = {"accuracy": _NUMBER, "auc": _NUMBER}
SHAPE = {  # what readers need of audit.json, see msa_flax.files.misshapen
    "findings": [
        dict.fromkeys(("severity", "title", "evidence", "advice"), str) | {"examples": [str]}
    ],
    "ladder?": [{"rung": str, "reason?": str} | dict.fromkeys(("validation?", "test?"), _SCORES)],
    "model?": {"*": {"accuracy?": _NUMBER, "auc?": _NUMBER}},
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        key: its name in ``audit.json``.
        severity: "high": a number from these splits will not mean what it seems to; "medium": it
            may not; "open": it cannot be told, or nothing was found by a search that leaves
            something out; "low": worth knowing; "none": all was looked at and nothing was found.
        title: a few words.
        evidence: one or two sentences with the counts.
        advice: what to do, "" where there is nothing to do.
        counts: the same counts, by name.
        examples: some of the files concerned.
    """

    key: str
    severity: str
    title: str
    evidence: str
    advice: str = ""
    counts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    examples: Sequence[str] = ()


def listed(names: Sequence[str], unit: str = "", *, limit: int = 8) -> str:
    """Returns the first names, and how many more there are, counted in ``unit``."""
    rest = len(names) - limit
    more = f" and {rest} more{f' {unit}' if unit else ''}" if rest > 0 else ""
    return ", ".join(names[:limit]) + more
