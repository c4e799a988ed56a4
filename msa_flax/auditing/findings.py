"""What an audit says: one finding for each thing that was looked at, good news included."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SEVERITIES = ("high", "medium", "low", "none")
SHOWN = 6  # example files a finding names


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        key: its name in ``audit.json``.
        severity: "high": a number from these splits will not mean what it seems to; "medium": it
            may not; "low": worth knowing; "none": nothing was found.
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """What is known of n images, one row an image.

    Attributes:
        example_id: str [n].
        label: int [n], index into ``classes``.
        classes: their names.
        split: the part that each image is used for, "" where there are no parts, str [n].
        group: series or patient, "" unknown, str [n].
        family: source slice by name, "" unknown, str [n].
        pixels: equal only for images of equal pixels, str [n].
    """

    example_id: np.ndarray
    label: np.ndarray
    classes: Sequence[str]
    split: np.ndarray
    group: np.ndarray
    family: np.ndarray
    pixels: np.ndarray

    @property
    def splits(self) -> list[str]:
        """The parts' names, training first."""
        order = ("train", "training", "validation", "valid", "val", "test", "testing")
        rank = {name: i for i, name in enumerate(order)}
        found = sorted(set(self.split.tolist()) - {""})
        return sorted(found, key=lambda name: rank.get(name.casefold(), len(order)))
