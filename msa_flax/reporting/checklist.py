"""The reporting checklist CLAIM, filled from a run's own files where they say something.

Items by the numbers of CLAIM's 2024 update (Tejani et al., Radiology: Artificial Intelligence 2024,
6(4), e240300), in our words. What the files do not say is for the authors, and is said to be.
"""

import csv
import dataclasses
import importlib.resources
from collections.abc import Callable

from msa_flax.reporting import facts
from msa_flax.reporting.saved import SavedRun

NOT_STATED = "Not stated by the software: to be filled by the authors."
_ITEMS = importlib.resources.files("msa_flax.reporting") / "templates/claim_2024.csv"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item, answered from the files or left to the authors."""

    number: int
    section: str
    asks: str
    answer: str  # NOT_STATED where the files say nothing


def fill_checklist(run: SavedRun) -> list[Item]:
    """Returns all 44 items."""
    rows = csv.DictReader(_ITEMS.read_text(encoding="utf-8").splitlines())
    return [
        Item(
            number=(number := int(row["number"])),
            section=row["section"],
            asks=row["asks"],
            answer=(_ANSWERS[number](run) if number in _ANSWERS else "") or NOT_STATED,
        )
        for row in rows
    ]


def _robustness(run: SavedRun) -> str:
    said = "What shortcuts reach on the same splits is in the section on the audit."
    return said if run.audit.get("ladder") else ""


def _internal(run: SavedRun) -> str:
    return f"This report: split {run.split!r}, {run.metrics['n']} images. {facts.disjoint(run)}"


def _limits(run: SavedRun) -> str:
    return f"At least this: {facts.disjoint(run)}" if run.metrics["stamps"] else ""


_CHOSEN = "The checkpoint of the lowest validation loss; the test split has no part in it."
_ANSWERS: dict[int, Callable[[SavedRun], str]] = {
    7: facts.data,
    9: facts.preprocessing,
    12: facts.included,
    19: facts.partitions,
    20: facts.disjoint,
    22: facts.network,
    23: facts.software,
    24: facts.initial_weights,
    25: facts.training,
    26: lambda run: _CHOSEN,
    27: lambda run: "None: one network, one checkpoint.",
    28: lambda run: ", ".join(run.metrics["metrics"]) + ".",
    29: facts.uncertainty,
    30: _robustness,
    31: facts.explanations,
    32: _internal,
    35: facts.included,
    37: facts.main_numbers,
    38: facts.main_numbers,
    39: facts.failures,
    40: _limits,
    43: facts.code,
}
