"""An audit: all findings about a set of images, as a table, a file and pictures."""

import dataclasses
import os
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.auditing import composition, copies, pictures
from msa_flax.auditing.findings import SEVERITIES, Finding
from msa_flax.auditing.predictability import (
    WHERE,
    Predictabilities,
    as_dicts,
    predictabilities,
    shortcut_findings,
)
from msa_flax.auditing.shortcuts import ladder_table
from msa_flax.data.examples import Examples
from msa_flax.data.families import Families, all_sources
from msa_flax.evaluation.terminal import text_table
from msa_flax.files import NOTICE, markdown_table, write_json, write_text


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Audit:
    """Everything that an audit found.

    Attributes:
        name: of the data set.
        examples: what was audited.
        families: their families by pixels.
        findings: the worst first.
        label_from, split_from: how well each fact predicts the label, and the split: "family", in
            other families; "group", in groups that were not seen, where groups are known.
        ladder: the rungs of :func:`msa_flax.auditing.shortcuts.ladder`, empty if not asked for.
        model: "accuracy" and "auc" of the run that is audited, by split, empty if there is none.
    """

    name: str
    examples: Examples
    families: Families
    findings: Sequence[Finding]
    label_from: Predictabilities
    split_from: Predictabilities
    ladder: Sequence[Mapping[str, Any]]
    model: Mapping[str, Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Returns what ``audit.json`` holds."""
        return {
            "name": self.name,
            "n": len(self.examples),
            "classes": list(self.examples.classes),
            "splits": self.examples.parts,
            "bad_files": [list(item) for item in self.examples.bad_files],
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "label_from": as_dicts(self.label_from),
            "split_from": as_dicts(self.split_from),
            "ladder": list(self.ladder),
            "model": dict(self.model),
        }

    def text(self) -> str:
        """Returns the findings as a table for a terminal, and what they are about."""
        lines = [f"{self.name}: {len(self.examples)} images", ""]
        for finding in self.findings:
            severity = "ok" if finding.severity == "none" else finding.severity
            said = f"{finding.title}: {finding.evidence}"
            if finding.advice:
                said += f" -> {finding.advice}"
            lines += textwrap.wrap(
                said, 96, initial_indent=f"{severity.upper():<8}", subsequent_indent=" " * 8
            )
            if finding.severity in ("high", "medium") and finding.examples:
                lines.append(f"{'':8}for instance {'; '.join(finding.examples[:2])}")
        if self.ladder:
            lines += ["", text_table(ladder_table(self.ladder, self.model)).rstrip()]
        return "\n".join([*lines, "", NOTICE])

    def markdown(self) -> str:
        """Returns the same, and the tables of shortcuts, as markdown."""
        rows = [
            [finding.severity, finding.title, finding.evidence, finding.advice]
            for finding in self.findings
        ]
        parts = [
            f"# Audit of {self.name}",
            NOTICE,
            markdown_table(["severity", "what", "evidence", "advice"], rows),
            "![position, and what predicts the label](audit.png)",
            "## What predicts the label",
            _predictability_table(self.label_from),
        ]
        if self.split_from:
            parts += ["## What predicts the split", _predictability_table(self.split_from)]
        if self.ladder:
            head, *body = ladder_table(self.ladder, self.model)
            parts += ["## Shortcut ladder", markdown_table(head, body)]
        parts += [
            "## Copies",
            "![pairs of copies](families.png)",
            "Predictions: a decision tree of depth 3 sees one fact, under cross-validation that "
            "keeps families, or groups, whole. Intervals: 95 % Wilson, a family a trial.",
        ]
        return "\n\n".join(parts) + "\n"

    def write(self, out: str | os.PathLike[str]) -> None:
        """Writes audit.json, audit.md, audit.png and families.png into a folder."""
        folder = pathlib.Path(out)
        pictures.overview(self.examples, self.label_from, folder / "audit.png", title=self.name)
        pictures.pairs(self.examples, self.families, folder / "families.png")
        write_text(folder / "audit.md", self.markdown())
        write_json(folder / "audit.json", self.to_dict())  # last: it says that all is there


def audit(
    examples: Examples,
    families: Families,
    *,
    name: str,
    ladder: Sequence[Mapping[str, Any]] = (),
    model: Mapping[str, Mapping[str, Any]] | None = None,
) -> Audit:
    """Looks at everything and sorts what it found, the worst first.

    Args:
        examples: n images in one size with the facts about them, see
            :mod:`msa_flax.data.facts`; what they are used for is their part.
        families: their families by pixels.
        name: of the data set.
        ladder: see :class:`Audit`.
        model: see :class:`Audit`.
    """
    source = all_sources(examples, families)
    findings = [
        composition.unreadable(examples),
        copies.duplicates(examples),
        *copies.family_findings(examples, families),
        *composition.group_findings(examples),
        composition.balance(examples),
        *([composition.sizes(examples, source)] if "height" in examples.facts else []),
    ]
    units = {"family": source}
    if examples.groups_known and len(np.unique(examples.group)) > 1:
        units["group"] = examples.group
    label_from = predictabilities(examples, examples.label, units, source)
    split_from: Predictabilities = {}
    if len(examples.parts) > 1:
        part = np.unique(examples.part, return_inverse=True)[1]
        split_from = predictabilities(examples, part, {"family": source}, source)
    findings += shortcut_findings("label", label_from) + shortcut_findings("split", split_from)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Audit(
        name=name,
        examples=examples,
        families=families,
        findings=findings,
        label_from=label_from,
        split_from=split_from,
        ladder=ladder,
        model=model or {},
    )


def _predictability_table(found: Predictabilities) -> str:
    units = list(next(iter(found.values()), {}))
    rows = []
    for name, values in found.items():
        majority = f"{values[units[0]].majority:.3f}"
        rows.append([name, *map(str, values.values()), majority])
    head = ["fact", *(WHERE[unit] for unit in units), "commonest answer"]
    return markdown_table(head, rows)
