"""The page: one HTML file that holds everything it shows and asks the network for nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from msa_flax.evaluation.metrics import rates
from msa_flax.evaluation.terminal import operating_point_lines
from msa_flax.plots import charts
from msa_flax.reporting import calibration, comparison, facts, maps, studies, tables
from msa_flax.reporting.checklist import NOT_STATED, fill_checklist
from msa_flax.reporting.gallery import OUTCOMES, choose_cases
from msa_flax.reporting.saved import SavedRun
from msa_flax.reporting.template import fill
from msa_flax.reporting.text import shown

_STAMPS = {
    "copies cross the split": "Copies of training images are among the evaluated images: the "
    "numbers measure memory, and say nothing about new patients.",
    "series cross the split": "Slices of one CT series are on both sides of the split: the "
    "numbers do not hold for new series.",
    "groups unknown": "It is not known which images belong to one patient or series, so nobody "
    "can tell whether the split leaks.",
}
_RECOMPUTED = (
    "All numbers of this page are computed from predictions.csv and the stored calibration. The "
    "saved ones differ in: "
)


def render_page(
    run: SavedRun,
    others: Sequence[SavedRun] = (),
    *,
    commands: Sequence[tuple[str, str]] = (),
) -> str:
    """Returns the report as HTML.

    Args:
        run: what the report is about.
        others: runs to compare it with.
        commands: (what it does, command) to repeat the run.

    Raises:
        ComparisonError: the runs were not evaluated on the same images.
    """
    runs = _named([run, *others])
    drawn = _charts(run, runs)
    changed = [("saved results were changed", _RECOMPUTED + "; ".join(run.differences))]
    changed *= bool(run.differences)
    return fill(
        "report.html.j2",
        scripts=("operating_point.js", "charts.js", "report.js"),
        data=_data(run, drawn),
        run=run,
        phantom=facts.phantom(run),
        stamps=[(stamp, _STAMPS.get(stamp, "")) for stamp in run.metrics["stamps"]] + changed,
        facts=facts,
        not_stated=NOT_STATED,
        metrics=tables.main_metrics(run),
        beside=tables.beside_shortcuts(run),
        ladder=tables.ladder(run),
        charts=drawn,
        metric_name=tables.metric_name,
        formulas=tables.FORMULAS,
        outcomes={key: title.format(*run.classes) for key, title in OUTCOMES.items()},
        threshold=f"{run.threshold:g}",
        chosen=operating_point_lines(run.metrics),
        point={k: shown(float(v)) for k, v in rates(**run.metrics["confusion"]).items()},
        gallery=choose_cases(run),
        verdicts=maps.verdicts(run),
        untested=maps.why_not(run),
        calibrated=calibration.tables(run),
        uncalibrated=calibration.why_not(run),
        groups=tables.groups(run),
        studies=studies.tables(run),
        compared=comparison.tables(runs) if others else [],
        origin=[tables.configuration(run), tables.origin(run)],
        commands=commands,
        checklist=fill_checklist(run),
    )


def _named(runs: Sequence[SavedRun]) -> dict[str, SavedRun]:
    """Returns runs by names that differ: the run's own, its folder's where that is not enough."""
    for names in (
        [run.name for run in runs],
        [f"{run.name} ({run.workdir.name})" for run in runs],
        [f"{run.name} ({run.workdir})" for run in runs],
    ):
        if len(set(names)) == len(names):
            break
    else:
        names = [f"{i}: {name}" for i, name in enumerate(names, 1)]
    return dict(zip(names, runs, strict=True))


def _charts(run: SavedRun, runs: Mapping[str, SavedRun]) -> dict[str, list[charts.Chart]]:
    """Returns the charts of each section."""
    entries = run.metrics["metrics"]
    specificity, recall = (entries[name]["value"] for name in ("specificity", "recall"))
    point = (None if specificity is None else 1 - specificity, recall)
    several, name = {key: one.predictions for key, one in runs.items()}, run.classes[1]
    return {
        "learning": [
            charts.draw_learning(run.history, q) for q in ("loss", "accuracy") if run.history
        ],
        "curves": charts.draw_curves({run.name: run.predictions}, point, positive=name),
        "comparison": charts.draw_curves(several, positive=name) if len(runs) > 1 else [],
    }


def _data(run: SavedRun, drawn: Mapping[str, Sequence[charts.Chart]]) -> dict[str, Any]:
    """Returns what the page's script needs: figures, labels and probabilities."""
    return {
        "charts": {
            f"{section}-{chart.key}": chart.figure
            for section, members in drawn.items()
            for chart in members
            if chart.figure
        },
        "labels": run.predictions.label.tolist(),
        # Nine digits tell float32 numbers apart; the script compares in float32 too.
        "probabilities": [float(f"{p:.9g}") for p in run.predictions.probability.tolist()],
        "threshold": run.threshold,
        "threshold_text": f"{run.threshold:g}",
    }
