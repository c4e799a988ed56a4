"""An audit: all findings about a set of images, as a table, a file and pictures."""

import dataclasses
import os
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.auditing import composition, leakage, sheets, shortcuts
from msa_flax.auditing.families import Families
from msa_flax.auditing.findings import SEVERITIES, Finding, Images
from msa_flax.auditing.shortcuts import Predictability
from msa_flax.files import NOTICE, write_atomically, write_json

SCHEMA_VERSION = 1
_MARGIN = 0.1  # by how much a fact must beat the commonest class to be a shortcut
_SIZE = ("height", "width")
_WHERE = {"family": "in other families", "group": "in other groups"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Audit:
    """Everything that an audit found.

    Attributes:
        name: of the data set.
        images: what was audited.
        findings: the worst first.
        label_from, split_from: how well each fact tells the label, and the split: "family", in
            other families; "group", in groups that were not seen, where groups are known.
        ladder: the rungs of :func:`msa_flax.auditing.shortcuts.ladder`, empty if not asked for.
        model: "accuracy" and "auc" of the run that is audited, by split, empty if there is none.
        found: the families by pixels.
        slice_index: -1 unknown, int [n].
        pictures: grey, uint8 [n, s, s].
    """

    name: str
    images: Images
    findings: Sequence[Finding]
    label_from: Mapping[str, Mapping[str, Predictability]]
    split_from: Mapping[str, Mapping[str, Predictability]]
    ladder: Sequence[Mapping[str, Any]]
    model: Mapping[str, Mapping[str, Any]]
    found: Families
    slice_index: np.ndarray
    pictures: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Returns what ``audit.json`` holds."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "n": len(self.images.example_id),
            "classes": list(self.images.classes),
            "splits": self.images.splits,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "label_from": {name: _plain(values) for name, values in self.label_from.items()},
            "split_from": {name: _plain(values) for name, values in self.split_from.items()},
            "ladder": list(self.ladder),
            "model": dict(self.model),
        }

    def text(self) -> str:
        """Returns the findings as a table for a terminal, and what they are about."""
        lines = [f"{self.name}: {len(self.images.example_id)} images", ""]
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
        folder.mkdir(parents=True, exist_ok=True)
        sheets.overview(
            self.images,
            self.slice_index,
            self.label_from,
            folder / "audit.png",
            title=self.name,
        )
        sheets.pairs(self.images, self.found, self.pictures, folder / "families.png")
        write_atomically(folder / "audit.md", self.markdown().encode("utf-8"))
        write_json(folder / "audit.json", self.to_dict())  # last: it says that all is there


def audit(
    images: Images,
    found: Families,
    *,
    name: str,
    facts: Mapping[str, np.ndarray],
    slice_index: np.ndarray,
    pictures: np.ndarray,
    bad_files: Sequence[tuple[str, str]] = (),
    ladder: Sequence[Mapping[str, Any]] = (),
    model: Mapping[str, Mapping[str, Any]] | None = None,
) -> Audit:
    """Looks at everything and sorts what it found, the worst first.

    Args:
        images: n images.
        found: their families by pixels.
        name: of the data set.
        facts: about the files, by name, float [n]; see ``msa_flax.data.inspection``.
        slice_index: -1 unknown, int [n].
        pictures: grey, uint8 [n, s, s].
        bad_files: (name, reason) of what could not be read.
        ladder: see :class:`Audit`.
        model: see :class:`Audit`.
    """
    source = leakage.all_sources(images, found)
    findings = [
        composition.unreadable(bad_files, len(images.label) + len(bad_files)),
        leakage.duplicates(images),
        *leakage.family_findings(images, found),
        *composition.group_findings(images),
        composition.balance(images),
    ]
    if all(key in facts for key in _SIZE):
        findings.append(composition.sizes(images, facts["height"], facts["width"], source))
    seen = {key: value for key, value in facts.items() if key not in _SIZE}
    if all(key in facts for key in _SIZE):
        seen["dimensions"] = np.stack([facts[key] for key in _SIZE], axis=1)
    if (slice_index >= 0).all():
        seen = {"slice position": slice_index.astype(np.float64), **seen}
    known = bool((images.group != "").all()) and len(np.unique(images.group)) > 1
    units = {"family": source, **({"group": images.group} if known else {})}
    label_from = _predictabilities(seen, images.label, units, source)
    split_from = {}
    if len(images.splits) > 1:
        split = np.unique(images.split, return_inverse=True)[1]
        split_from = _predictabilities(seen, split, {"family": source}, source)
    findings += _shortcuts("label", label_from) + _shortcuts("split", split_from)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Audit(
        name=name,
        images=images,
        findings=findings,
        label_from=label_from,
        split_from=split_from,
        ladder=ladder,
        model=model or {},
        found=found,
        slice_index=slice_index,
        pictures=pictures,
    )


def ladder_table(
    ladder: Sequence[Mapping[str, Any]], model: Mapping[str, Mapping[str, Any]]
) -> list[list[str]]:
    """Returns the ladder as rows of cells, head first, the model last if there is one.

    Args:
        ladder: see :func:`msa_flax.auditing.shortcuts.ladder`.
        model: the model's "accuracy" and "auc" by split.
    """
    splits = [split for split in ("validation", "test") if any(split in rung for rung in ladder)]
    head = ["shortcut", *(f"{split} {name}" for split in splits for name in ("accuracy", "AUC"))]

    def cells(scores: Mapping[str, Any]) -> list[str]:
        found = [scores.get(split, {}).get(key) for split in splits for key in ("accuracy", "auc")]
        return ["" if value is None else f"{value:.3f}" for value in found]

    rows = [
        [str(rung["rung"]), *(cells(rung) if "reason" not in rung else [str(rung["reason"])])]
        for rung in ladder
    ]
    if model:
        rows.append(["the model", *cells(model)])
        gains = []
        for split in splits:
            best = shortcuts.best_shortcut(ladder, split)
            value = model.get(split, {}).get("accuracy")
            gains += [
                "" if not best or value is None else f"{value - best[split]['accuracy']:+.3f}"
            ]
            gains += [""]
        rows.append(["what the model adds to the best shortcut", *gains])
    return [head, *(row + [""] * (len(head) - len(row)) for row in rows)]


def _predictabilities(
    seen: Mapping[str, np.ndarray],
    target: np.ndarray,
    units: Mapping[str, np.ndarray],
    source: np.ndarray,
) -> dict[str, dict[str, Predictability]]:
    return {
        name: {
            unit: shortcuts.predictability(value, target, column, source)
            for unit, column in units.items()
        }
        for name, value in seen.items()
    }


def _shortcuts(target: str, found: Mapping[str, Mapping[str, Predictability]]) -> list[Finding]:
    """Returns a finding for each fact that tells label or split, and one for all that do not."""
    findings, weak = [], []
    for name, values in found.items():
        strong = [v for v in values.values() if not v.reason and v.low > v.majority + _MARGIN]
        said = "; ".join(
            f"{_WHERE[unit]} {_share(value)}" for unit, value in values.items() if not value.reason
        )
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


def _predictability_table(found: Mapping[str, Mapping[str, Predictability]]) -> str:
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
