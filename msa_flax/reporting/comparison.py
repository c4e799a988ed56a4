"""Runs that were evaluated on the same images, compared: as tables of the page, as CSV, as text."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from msa_flax.evaluation.compare import METHODS, PairedDifference, as_csv, compare_runs
from msa_flax.evaluation.terminal import text_table
from msa_flax.files import flatten
from msa_flax.reporting.saved import SavedRun
from msa_flax.reporting.tables import Table, in_order, metric_name
from msa_flax.reporting.text import interval, plain, shown, with_interval

_UNGROUPED = (
    "No group is known: images are taken as independent, which slices of one patient are not, so "
    "that intervals are too narrow and p values too small."
)


def compare(runs: Mapping[str, SavedRun]) -> tuple[str, str]:
    """Returns the paired differences of every further run from the first, as CSV and as text.

    The CSV has a row per run and metric, with the columns of
    :class:`msa_flax.evaluation.compare.PairedDifference`.

    Raises:
        ComparisonError: the runs were not evaluated on the same images.
    """
    found = _differences(runs)
    stamps = [f"stamp: {n}: {stamp}\n" for n, r in runs.items() for stamp in r.metrics["stamps"]]
    return as_csv(found), _as_text(paired(found)) + "".join(stamps)


def tables(runs: Mapping[str, SavedRun]) -> list[Table]:
    """Returns how the metrics and the settings of runs differ, and where the runs agree.

    Raises:
        ComparisonError: the runs were not evaluated on the same images.
    """
    return [_beside(runs), paired(_differences(runs)), _agreement(runs), _settings(runs)]


def paired(found: Sequence[PairedDifference]) -> Table:
    """Returns how runs differ from the first, with intervals and p values, and what these mean."""
    rows = []
    for row in found:
        how = [f"interval: {row.method}"] * (row.method != "none")
        how += [f"p: {row.test}"] * (row.test != "none")
        rows.append(
            [
                f"{row.second}: {metric_name(row.metric)}",
                shown(row.first_value),
                shown(row.second_value),
                _signed(row.difference),
                interval({"low": row.low, "high": row.high}) or "none",
                *("" if n is None else str(n) for n in (row.only_first, row.only_second)),
                *(_p_value(p) for p in (row.p, row.p_holm)),
                "; ".join([*how, *[row.reason] * bool(row.reason)]),
            ]
        )
    head = ["Run and metric", found[0].first, "This run", "Difference", "95 % interval"]
    head += ["b", "c", "p", "p, Holm", "How, or why not"]
    return Table(title="Paired differences", head=head, rows=rows, note=_paired_note(found))


def _differences(runs: Mapping[str, SavedRun]) -> list[PairedDifference]:
    tables = {name: (run.predictions, run.threshold) for name, run in runs.items()}
    return compare_runs(tables, classes=next(iter(runs.values())).classes)


def _beside(runs: Mapping[str, SavedRun]) -> Table:
    names = in_order(dict.fromkeys(n for run in runs.values() for n in run.metrics["metrics"]))
    rows = [["Threshold", *(f"{run.threshold:g}" for run in runs.values())]]
    for name in names:
        entries = [run.metrics["metrics"].get(name) for run in runs.values()]
        rows.append([metric_name(name), *(with_interval(e) if e else "" for e in entries)])
    rows.append(["Stamps", *("; ".join(r.metrics["stamps"]) or "none" for r in runs.values())])
    return Table(title="Metrics side by side", head=["Metric", *runs], rows=rows)


def _agreement(runs: Mapping[str, SavedRun]) -> Table:
    right = {
        name: np.isin(run.outcome, ("tp", "tn"))[np.argsort(run.predictions.example_id)]
        for name, run in runs.items()
    }
    (first, a), *others = right.items()
    rows = [
        [name, *(str(int(part.sum())) for part in (a & b, a & ~b, b & ~a, ~a & ~b))]
        for name, b in others
    ]
    return Table(
        title="Where they agree",
        head=["Run", "Both right", f"Only {first} right", "Only this run right", "Both wrong"],
        rows=rows,
        note="Each at its own threshold, on the same images.",
    )


def _settings(runs: Mapping[str, SavedRun]) -> Table:
    flat = [flatten(run.config) for run in runs.values()]
    fields = sorted({name for values in flat for name in values} - {"name"})
    rows = [[field, *(plain(values.get(field, "")) for values in flat)] for field in fields]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    note = "" if rows else "Their configurations are equal."
    head = ["Field", *runs]
    return Table(title="How they were made differently", head=head, rows=rows, note=note)


def _paired_note(found: Sequence[PairedDifference]) -> str:
    tests = sum(row.p is not None for row in found)
    used = dict.fromkeys(name for row in found for name in (row.method, row.test))
    images, groups = (max(getattr(row, what) for row in found) for what in ("images", "groups"))
    lines = [
        f"{images} images; groups: {groups or 'not used'}.",
        f"This run minus {found[0].first}, on the same images, each run at its own threshold; for "
        "the Brier score and the log loss less is better. b: images that only "
        f"{found[0].first} predicts correctly; c: images that only this run does.",
        f"p: two-sided. p, Holm: corrected for the {tests} tests of this table as one family, all "
        "metrics and all runs.",
        *(f"{name}: {METHODS[name]}." for name in used if name != "none"),
    ]
    if not {"delong", "agresti-min", "mcnemar"}.isdisjoint(used):
        lines.append(_UNGROUPED)
    return " ".join(lines)


def _signed(value: float | None) -> str:
    if value is None:
        return shown(value)
    size = shown(abs(value))
    return size if float(size) == 0 else f"{'+' if value > 0 else '-'}{size}"


def _p_value(p: float | None) -> str:
    if p is None:
        return "none"
    return shown(p) if p >= 0.001 else f"{p:.1e}"


def _as_text(table: Table) -> str:
    note = "\n".join(["", *textwrap.wrap(table.note, 100)]) + "\n"
    return text_table([table.head, *table.rows]) + note
