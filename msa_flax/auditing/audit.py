"""An audit: all findings about a set of images, as a table, a file and pictures."""

import dataclasses
import os
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.auditing import composition, copies, pictures
from msa_flax.auditing.families import Families
from msa_flax.auditing.findings import SEVERITIES, Finding
from msa_flax.auditing.shortcuts import Predictability, ladder_table, predictability
from msa_flax.data.examples import Examples
from msa_flax.files import NOTICE, write_json, write_text

_MARGIN = 0.1  # by how much a fact must beat the commonest class to be a shortcut
_WHERE = {"family": "in other families", "group": "in other groups"}

Predictabilities = Mapping[str, Mapping[str, Predictability]]  # by fact, then by what is left out


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
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "label_from": {name: _plain(values) for name, values in self.label_from.items()},
            "split_from": {name: _plain(values) for name, values in self.split_from.items()},
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
            lines += ["", *_aligned(ladder_table(self.ladder, self.model))]
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
            _markdown_table(["severity", "what", "evidence", "advice"], rows),
            "![position, and what predicts the label](audit.png)",
            "## What predicts the label",
            _predictability_table(self.label_from),
        ]
        if self.split_from:
            parts += ["## What predicts the split", _predictability_table(self.split_from)]
        if self.ladder:
            head, *body = ladder_table(self.ladder, self.model)
            parts += ["## Shortcut ladder", _markdown_table(head, body)]
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
    source = copies.sources(examples, families)
    bad_files, facts = examples.bad_files, examples.facts
    findings = [
        composition.unreadable(bad_files, len(examples) + len(bad_files)),
        copies.duplicates(examples),
        *copies.family_findings(examples, families),
        *composition.group_findings(examples),
        composition.balance(examples),
        *([composition.sizes(examples, source)] if "height" in facts else []),
    ]
    units = {"family": source}
    if examples.groups_known and len(np.unique(examples.group)) > 1:
        units["group"] = examples.group
    seen = _seen(examples)
    label_from = _predictabilities(seen, examples.label, units, source)
    split_from: Predictabilities = {}
    if len(examples.parts) > 1:
        part = np.unique(examples.part, return_inverse=True)[1]
        split_from = _predictabilities(seen, part, {"family": source}, source)
    findings += _shortcut_findings("label", label_from) + _shortcut_findings("split", split_from)
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


def _seen(examples: Examples) -> dict[str, np.ndarray]:
    """Returns every fact that might predict something, by name, float64 [n] or [n, 2]."""
    seen = {}
    if (examples.slice_index >= 0).all():
        seen["slice position"] = examples.slice_index.astype(np.float64)
    facts = dict(examples.facts)
    seen |= {name: fact for name, fact in facts.items() if name not in ("height", "width")}
    if "height" in facts:
        seen["dimensions"] = np.stack([facts["height"], facts["width"]], axis=1)
    return seen


def _predictabilities(
    seen: Mapping[str, np.ndarray],
    target: np.ndarray,
    units: Mapping[str, np.ndarray],
    source: np.ndarray,
) -> dict[str, dict[str, Predictability]]:
    return {
        name: {
            unit: predictability(value, target, column, source) for unit, column in units.items()
        }
        for name, value in seen.items()
    }


def _shortcut_findings(target: str, found: Predictabilities) -> list[Finding]:
    """Returns a finding for each fact that predicts label or split, and one for all the others."""
    findings, weak = [], []
    for name, values in found.items():
        measured = {unit: value for unit, value in values.items() if not value.reason}
        said = "; ".join(f"{_WHERE[unit]} {_share(value)}" for unit, value in measured.items())
        strong = [value for value in measured.values() if value.low > value.majority + _MARGIN]
        if not strong:
            reasons = sorted({value.reason for value in values.values()})
            weak.append(f"{name} {said}" if said else f"{name} ({', '.join(reasons)})")
            continue
        findings.append(
            Finding(
                key=f"{target} from {name}",
                severity="high" if target == "label" else "medium",
                title=f"{target} from {name}",
                evidence=f"Right {said}; the commonest answer alone {strong[0].majority:.3f}.",
                advice=(
                    "A model can do this without looking at the anatomy."
                    if target == "label"
                    else "The splits are not drawn from the same images."
                ),
                counts=_plain(values),
            )
        )
    if weak:
        findings.append(
            Finding(
                key=f"{target} from other facts",
                severity="none",
                title=f"{target} from other facts",
                evidence=f"Little or nothing is told by {'; '.join(weak)}.",
            )
        )
    return findings


def _share(value: Predictability) -> str:
    return f"{value.accuracy:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _plain(values: Mapping[str, Predictability]) -> dict[str, Any]:
    return {
        unit: {
            key: None if isinstance(field, float) and np.isnan(field) else field
            for key, field in dataclasses.asdict(value).items()
        }
        for unit, value in values.items()
    }


def _predictability_table(found: Predictabilities) -> str:
    units = list(next(iter(found.values()), {}))
    rows = []
    for name, values in found.items():
        cells = [value.reason or _share(value) for value in values.values()]
        rows.append([name, *cells, f"{values[units[0]].majority:.3f}"])
    return _markdown_table(["fact", *(_WHERE[u] for u in units), "commonest answer"], rows)


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(len(rows[0]))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
