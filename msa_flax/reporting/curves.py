"""The curves of a report as plain Plotly JSON: dictionaries, lists, numbers and text.

Colours are readable on white and on black; the page sets those of text and grid. Where one run is
shown the curves have bands; several runs are drawn without, so that they can be told apart.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.evaluation.predictions import Predictions
from msa_flax.reporting import bands, pieces, points

_GRID = np.linspace(0, 1, 101)
_ROWS = 11  # of the table below a curve
_DECISIONS = np.arange(1, 100) / 100

Runs = Mapping[str, Predictions]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A figure and what can be read instead of it.

    Attributes:
        key: its name in the page.
        title: above the figure.
        figure: Plotly's "data" and "layout", or None where the curve is undefined.
        notes: sentences below the figure.
        head, rows: some of its values as a table.
    """

    key: str
    title: str
    figure: Mapping[str, Any] | None
    notes: Sequence[str]
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def roc(runs: Runs, *, threshold: float) -> Chart:
    """Returns the ROC curves; of one run with its band and its operating point."""
    title, notes, traces = (
        "ROC curve",
        [],
        [pieces.line([0, 1], [0, 1], "chance", pieces.GREY, "dot")],
    )
    rows: list[list[str]] = []
    for i, (name, run) in enumerate(runs.items()):
        if len(np.unique(run.label)) < 2:
            notes.append(_undefined(name, "its images are of one class only"))
            continue
        fpr, tpr, _ = _once(bands.roc, run)
        if len(runs) == 1:
            drawn = bands.resamples(run)
            x, y, _ = bands.roc(run.label, run.probability, drawn.weight)
            traces += pieces.band(_GRID, bands.percentiles(bands.at(x, y, _GRID)))
            notes.append(drawn.note)
        kept = pieces.corners(fpr, tpr)
        traces.append(pieces.line(fpr[kept], tpr[kept], name, *pieces.style(i)))
        grid = np.linspace(0, 1, _ROWS)
        rows += _rows(name, runs, grid, bands.at(fpr[None], tpr[None], grid)[0])
        if len(runs) == 1:
            traces.append(_operating_point(run, threshold))
    head = ["1 - specificity", "sensitivity"]
    layout = pieces.layout("1 - specificity", "sensitivity", [-0.01, 1.01], [-0.01, 1.02])
    return _chart(
        "roc", title, runs, traces=traces, layout=layout, notes=notes, head=head, rows=rows
    )


def precision_recall(runs: Runs) -> Chart:
    """Returns precision against recall; the dotted line is the share of fractures."""
    notes, traces, rows = [], [], []
    for share in sorted({float(run.label.mean()) for run in runs.values()}):
        traces.append(
            pieces.line([0, 1], [share, share], f"prevalence {share:.3f}", pieces.GREY, "dot")
        )
    for i, (name, run) in enumerate(runs.items()):
        if not run.label.any():
            notes.append(_undefined(name, "there is no fracture among its images"))
            continue
        recall, precision, _ = _once(bands.precision_recall, run)
        if len(runs) == 1:
            drawn = bands.resamples(run)
            x, y, _ = bands.precision_recall(run.label, run.probability, drawn.weight)
            draws = bands.at(x, y, _GRID, step=True)
            traces += pieces.band(_GRID, bands.percentiles(draws))
            notes.append(drawn.note)
        average = float(np.sum(np.diff(recall, prepend=0) * precision))
        notes.append(f"Average precision of {name}: {points.shown(average)}.")
        # A precision holds from its recall down to the next lower one.
        x, y = np.append(0, recall), np.append(precision[0], precision)
        kept = pieces.corners(x, y)
        line = pieces.line(x[kept], y[kept], name, *pieces.style(i))
        traces.append(line | {"line": line["line"] | {"shape": "vh"}})
        grid = np.linspace(0, 1, _ROWS)
        rows += _rows(name, runs, grid, bands.at(recall[None], precision[None], grid, step=True)[0])
    head = ["recall", "precision"]
    layout = pieces.layout("recall (sensitivity)", "precision (PPV)", [-0.01, 1.01], [-0.01, 1.02])
    return _chart(
        "pr",
        "Precision and recall",
        runs,
        traces=traces,
        layout=layout,
        notes=notes,
        head=head,
        rows=rows,
    )


def reliability(runs: Runs) -> Chart:
    """Returns the share of fractures against the predicted probability in ten bins."""
    traces, notes, rows = (
        [pieces.line([0, 1], [0, 1], "perfectly calibrated", pieces.GREY, "dot")],
        [],
        [],
    )
    for i, (name, run) in enumerate(runs.items()):
        total, mean, share = _once(bands.reliability, run)
        kept = total > 0
        colour, dash = pieces.style(i)
        trace = pieces.line(mean[kept], share[kept], name, colour, dash)
        trace |= {
            "mode": "lines+markers",
            "marker": {"color": colour, "size": 8},
            "text": [f"{int(count)} images" for count in total[kept]],
        }
        if len(runs) == 1:
            drawn = bands.resamples(run)
            draws = bands.reliability(run.label, run.probability, drawn.weight)[2]
            if (limits := bands.percentiles(draws)) is not None:
                trace["error_y"] = {
                    "type": "data",
                    "symmetric": False,
                    "array": pieces.plain(np.maximum(limits[1] - share, 0)[kept]),
                    "arrayminus": pieces.plain(np.maximum(share - limits[0], 0)[kept]),
                    "color": colour,
                }
            notes.append(drawn.note)
        traces.append(trace)
        brier = float(np.mean((run.probability.astype(np.float64) - run.label) ** 2))
        notes.append(
            f"{name}: Brier score {points.shown(brier)}. Ten bins of equal width; calibration "
            "errors in the table of metrics use bins of equally many images."
        )
        for values in zip(mean[kept], share[kept], total[kept], strict=True):
            cells = [points.shown(values[0], 3), points.shown(values[1], 3), str(int(values[2]))]
            rows.append(([name] if len(runs) > 1 else []) + cells)
    layout = pieces.layout(
        "mean predicted probability", "share of fractures", [-0.02, 1.02], [-0.02, 1.02]
    )
    head = ["mean probability", "share of fractures", "images"]
    return _chart(
        "reliability",
        "Reliability",
        runs,
        traces=traces,
        layout=layout,
        notes=notes,
        head=head,
        rows=rows,
    )


def decision(runs: Runs) -> Chart:
    """Returns the net benefit against the threshold probability, beside calling all or none."""
    first = next(iter(runs.values()))
    share = float(first.label.mean())
    everyone = share - (1 - share) * _DECISIONS / (1 - _DECISIONS)
    traces = [
        pieces.line([0.01, 0.99], [0, 0], "call none", pieces.GREY, "dot"),
        pieces.line(_DECISIONS, everyone, "call all", pieces.GREY, "dash"),
    ]
    notes, rows = [], []
    for i, (name, run) in enumerate(runs.items()):
        benefit = bands.net_benefit(run.label, run.probability, _DECISIONS, _ones(run))[0]
        if len(runs) == 1:
            drawn = bands.resamples(run)
            draws = bands.net_benefit(run.label, run.probability, _DECISIONS, drawn.weight)
            traces += pieces.band(_DECISIONS, bands.percentiles(draws))
            notes.append(drawn.note)
        traces.append(pieces.line(_DECISIONS, benefit, name, *pieces.style(i)))
        chosen = np.isin(np.round(_DECISIONS * 100), np.arange(10, 100, 10))
        rows += _rows(name, runs, _DECISIONS[chosen], benefit[chosen])
    notes.append(
        "Net benefit: true positives an image, less false positives weighed by the odds of the "
        "threshold. A model is worth using at a threshold where its curve is the highest."
    )
    top = max(share * 1.12, 0.05)
    layout = pieces.layout("threshold probability", "net benefit", [0, 1], [-0.25 * top, top])
    head = ["threshold", "net benefit"]
    return _chart(
        "decision",
        "Decision curve",
        runs,
        traces=traces,
        layout=layout,
        notes=notes,
        head=head,
        rows=rows,
    )


def learning(rows: Sequence[Mapping[str, Any]], quantity: str) -> Chart:
    """Returns a quantity of ``metrics.jsonl``, "loss" or "accuracy", against the epoch."""
    title, traces, table = f"{quantity.capitalize()} while training", [], []
    series = (("train", "training", 0, "circle"), ("validation", "validation", 1, "square"))
    for split, name, i, symbol in series:
        found = [row for row in rows if row.get("split") == split and quantity in row]
        line = pieces.line(
            [row["epoch"] for row in found],
            [row[quantity] for row in found],
            name,
            *pieces.style(i),
        )
        marker = {"color": pieces.COLOURS[i], "symbol": symbol}
        traces.append(line | {"mode": "lines+markers", "marker": marker})
        table += [[name, str(row["epoch"]), points.shown(row[quantity])] for row in found]
    layout = pieces.layout("epoch", quantity, None, None)
    last = max((row.get("epoch", 0) for row in rows), default=0)
    ticks = {"tick0": 0, "dtick": max(1, math.ceil(last / 8))}  # whole epochs
    layout["xaxis"] |= ticks | {"rangemode": "tozero"}
    layout["yaxis"] |= {"rangemode": "tozero" if quantity == "loss" else "normal"}
    return Chart(
        key=quantity,
        title=title,
        figure={"data": traces, "layout": layout},
        notes=["Training values are means over an epoch, while the network still changes."],
        head=["split", "epoch", quantity],
        rows=table,
    )


def _chart(
    key: str,
    title: str,
    runs: Runs,
    *,
    traces: list[dict[str, Any]],
    layout: dict[str, Any],
    notes: list[str],
    head: list[str],
    rows: list[list[str]],
) -> Chart:
    if len(runs) > 1:
        head = ["run", *head]
        notes = [*notes, "No bands: several runs are shown; a run's own report has them."]
    figure = {"data": traces, "layout": layout} if rows else None
    return Chart(key=key, title=title, figure=figure, notes=notes, head=head, rows=rows)


def _once(curve: Any, run: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a, b, c = curve(run.label, run.probability, _ones(run))
    return a[0], b[0], c[0] if c.ndim == 2 else c


def _ones(run: Predictions) -> np.ndarray:
    return np.ones((1, len(run)))


def _rows(name: str, runs: Runs, x: np.ndarray, y: np.ndarray) -> list[list[str]]:
    first = [name] if len(runs) > 1 else []
    return [[*first, points.shown(a, 2), points.shown(b, 3)] for a, b in zip(x, y, strict=True)]


def _operating_point(run: Predictions, threshold: float) -> dict[str, Any]:
    found = points.values(points.counts(run.label, run.probability, threshold))
    specificity, sensitivity = found["specificity"], found["sensitivity"]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "operating point",
        "meta": "operating point",  # by this the page's script finds it
        "x": [None if specificity is None else 1 - specificity],
        "y": [sensitivity],
        "marker": {"color": pieces.COLOURS[1], "size": 12, "symbol": "diamond"},
    }


def _undefined(name: str, reason: str) -> str:
    return f"{name}: undefined, because {reason}."
