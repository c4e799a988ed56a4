"""Tables of whole studies, where ``evaluate --level study`` has made them; what is published."""

import csv
import importlib.resources
from collections.abc import Mapping
from typing import Any

from msa_flax.evaluation.terminal import SCORES_OF_STUDIES
from msa_flax.reporting.saved import SavedRun
from msa_flax.reporting.tables import Table, in_order, metric_name
from msa_flax.reporting.text import interval, shown

_PUBLISHED = importlib.resources.files("msa_flax.reporting") / "templates/published_studies.csv"
_HEAD = ("Whose", "Studies", "With a fracture", "AUC", "Sensitivity", "Specificity", "Source")


def tables(run: SavedRun) -> list[Table]:
    """Returns the tables of studies, of levels where these are known, and of what is published.

    Nothing where studies have not been evaluated.
    """
    section = run.metrics.get("study")
    if not section:
        return []
    levels = [_levels(section["level_auc"])] if "level_auc" in section else []
    return [_metrics(section, run.classes[1]), *levels, published()]


def _metrics(section: Mapping[str, Any], positive: str) -> Table:
    rows = []
    for name in in_order(section["metrics"]):
        entry = section["metrics"][name]
        reason = entry.get("reason") if entry["value"] is None else entry.get("interval_reason")
        rows.append([metric_name(name), shown(entry["value"]), interval(entry) or reason or "none"])
    counts, name = section["confusion"], section["aggregation"]["name"]
    broken = counts["tp"] + counts["fn"]
    return Table(
        title="Whole studies",
        head=["Metric", "Value", "95 % interval, or why there is none"],
        rows=rows,
        note=f"{section['n']} studies of {section['groups']} patients, {broken} of them "
        f"{positive!r}: found {counts['tp']}, missed {counts['fn']}, false alarms {counts['fp']}. "
        f"The score of a study is {SCORES_OF_STUDIES.get(name, name)}; this and the threshold, "
        f"{section['threshold']:.4g}, were chosen on the validation studies.",
    )


def _levels(found: Mapping[str, float | None]) -> Table:
    return Table(
        title="AUC by level",
        head=["Level", "AUC"],
        rows=[[name, shown(value)] for name, value in found.items()],
        note="The studies with a fracture of the level against those without any fracture. The "
        "network does not say which level is fractured; this shows where it misses fractures. "
        "Undefined: no study has a fracture there.",
    )


def published() -> Table:
    """Returns what others have published about whole studies of patients, with the sources."""
    rows = list(csv.reader(_PUBLISHED.read_text(encoding="utf-8").splitlines()))[1:]
    return Table(
        title="Published: whole studies of patients",
        head=_HEAD,
        rows=[[cell or "not given" for cell in row] for row in rows],
        note="For orientation. These are other patients, other scanners and other definitions of a "
        "fracture, so nothing here is better or worse than this run by the difference alone. "
        "Square brackets: 95 % intervals; round ones: lowest and highest of the seven.",
    )
