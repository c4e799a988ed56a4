"""The page: one HTML file that holds everything it shows and asks the network for nothing."""

import base64
import hashlib
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from msa_flax.files import NOTICE
from msa_flax.plots import charts
from msa_flax.reporting import (
    calibration,
    card,
    checklist,
    gallery,
    maps,
    points,
    tables,
)
from msa_flax.reporting.artefacts import SPLITS, Artefacts, check_same_examples

_STAMPS = {
    "copies cross the split": "Copies of training images are among the evaluated images: the "
    "numbers measure memory, and say nothing about new patients.",
    "series cross the split": "Slices of one CT series are on both sides of the split: the "
    "numbers do not hold for new series.",
    "groups unknown": "It is not known which images belong to one patient or series, so nobody "
    "can tell whether the split leaks.",
}
_TEMPLATES = importlib.resources.files("msa_flax.reporting") / "templates"


def page(
    run: Artefacts,
    others: Sequence[Artefacts] = (),
    *,
    commands: Sequence[tuple[str, str]] = (),
) -> str:
    """Returns the report as HTML.

    Args:
        run: what the report is about.
        others: runs to compare it with.
        commands: (what it does, command) to repeat the run.

    Raises:
        ReportError: the runs were not evaluated on the same images.
    """
    runs = _named([run, *others])
    check_same_examples(list(runs.values()))
    entries = run.metrics["metrics"]
    specificity, recall = (entries[name]["value"] for name in ("specificity", "recall"))
    point = (None if specificity is None else 1 - specificity, recall)
    tables_of_predictions = {name: one.predictions for name, one in runs.items()}
    drawn = {
        "learning": [charts.learning(run.history, q) for q in ("loss", "accuracy") if run.history],
        "curves": charts.of_predictions({run.name: run.predictions}, point),
        "comparison": charts.of_predictions(tables_of_predictions) if others else [],
    }
    script, plotly = _text("report.js"), _plotly()
    context = {
        "run": run,
        "notice": NOTICE,
        "stamps": [(stamp, _STAMPS.get(stamp, "")) for stamp in run.metrics["stamps"]],
        "facts": _facts(run),
        "metrics": tables.main_metrics(run),
        "beside": tables.beside_shortcuts(run),
        "ladder": tables.ladder(run),
        "charts": drawn,
        "numbers": points.NUMBERS,
        "outcomes": points.OUTCOMES,
        "threshold": f"{run.threshold:g}",
        "confusion": run.metrics["confusion"],
        "point": {k: points.shown(v) for k, v in points.values(run.metrics["confusion"]).items()},
        "gallery": gallery.gallery(run),
        "verdicts": maps.verdicts(run),
        "untested": maps.why_not(run),
        "calibrated": calibration.tables(run),
        "uncalibrated": calibration.why_not(run),
        "groups": tables.groups(run),
        "compared": tables.comparison(runs) if others else [],
        "origin": [tables.configuration(run), tables.origin(run)],
        "commands": commands,
        "card": card.card(run),
        "checklist": checklist.checklist(run),
        "data": embedded(_data(run, drawn)),
        "css": _text("report.css"),
        "script": script,
        "plotly": plotly,
        "policy": _policy(script, plotly),
    }
    return _environment().get_template("report.html.j2").render(context)


def embedded(values: Any) -> str:
    """Returns values as JSON that cannot end the script element it is put into.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = points.shown
    return environment


def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _policy(*scripts: str) -> str:
    """Returns a content security policy under which these scripts run, and nothing is loaded."""
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _named(runs: Sequence[Artefacts]) -> dict[str, Artefacts]:
    """Returns runs by names that differ: the run's own, its folder's where that is not enough."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{run.name} ({run.workdir.name})" for run in runs]
    if len(set(names)) < len(names):
        names = [f"{run.name} ({run.workdir})" for run in runs]
    if len(set(names)) < len(names):
        names = [f"{i}: {name}" for i, name in enumerate(names, 1)]
    return dict(zip(names, runs, strict=True))


def _facts(run: Artefacts) -> list[tuple[str, str]]:
    sizes = ", ".join(f"{name} {run.sizes[name]}" for name in SPLITS if run.sizes[name])
    data, fractures = run.config.get("data", {}), int(run.predictions.label.sum())
    known = run.metrics.get("groups")
    return [
        ("Run", run.name),
        ("Network", checklist.network(run)),
        ("Data", str(data.get("root") or data.get("source") or "unknown")),
        ("Images by split", sizes),
        (
            "Evaluated",
            f"{run.split}: {len(run.predictions)} images, {fractures} of them "
            f"{run.classes[1]}; groups: {known or 'unknown'}",
        ),
        ("Threshold", f"{run.threshold:g}"),
        ("Trained", str(run.run.get("date", "unknown"))),
    ]


def _data(run: Artefacts, drawn: Mapping[str, Sequence[charts.Chart]]) -> dict[str, Any]:
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
