"""The charts of a report as plain Plotly JSON: dictionaries, lists, numbers and text.

The page sets the colours of text and grid. plotly.graph_objects would make the same dictionaries in
as many lines and a quarter of a second; the tests validate these with it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.evaluation.metrics import CLASSES
from msa_flax.evaluation.predictions import Predictions
from msa_flax.plots import bands
from msa_flax.plots.bands import Curve, Resamples
from msa_flax.plots.style import COLOURS, GREY, VERMILION

_COLOURS = COLOURS[:4]  # those that are readable on white and on the dark ground of the page
_DASHES = ("solid", "dash", "dot", "dashdot")
_FILL = "rgba(0, 114, 178, 0.35)"  # the first colour
_MOST_POINTS = 600  # of one curve
_TABLE = np.linspace(0, 1, 11)  # where the table below a curve has its rows


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart, and what can be read instead of it.

    Attributes:
        key: its name in the page.
        title: above the chart.
        figure: Plotly's "data" and "layout", or None where no curve is defined.
        notes: sentences below the chart.
        head, rows: some of its values as a table.
    """

    key: str
    title: str
    figure: Mapping[str, Any] | None
    notes: Sequence[str]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def draw_curves(
    runs: Mapping[str, Predictions],
    point: tuple[float | None, float | None] | None = None,
    *,
    positive: str = CLASSES[1],
) -> list[Chart]:
    """Returns the ROC, precision-recall, reliability and decision charts of runs.

    One run has bands; several are drawn without, so that they can be told apart.

    Args:
        runs: name to predictions of the same images.
        point: 1 - specificity and sensitivity at the run's threshold, to be marked.
        positive: name of the positive class.
    """
    alone = len(runs) == 1
    resamples = bands.resample(next(iter(runs.values()))) if alone else None

    def drawn(curve: Callable[[Predictions, Resamples | None], Curve]) -> dict[str, Curve]:
        return {name: curve(run, resamples) for name, run in runs.items()}

    found = [
        _roc(drawn(bands.roc), point),
        _precision_recall(drawn(bands.precision_recall), runs),
        _reliability(drawn(bands.reliability), positive),
        _decision(drawn(bands.decision), next(iter(runs.values()))),
    ]
    note = resamples.note if resamples else "No bands: a run's own report has them."
    return [dataclasses.replace(c, notes=[*c.notes, note]) if c.figure else c for c in found]


def draw_learning(rows: Sequence[Mapping[str, Any]], quantity: str) -> Chart:
    """Returns a quantity of ``metrics.jsonl``, "loss" or "accuracy", against the epoch."""
    traces, table = [], []
    series = (("train", "training", "dash"), ("validation", "validation", "solid"))
    for i, (split, name, dash) in enumerate(series):
        epochs, values = bands.learning(rows, split, quantity)
        marker = {"color": _COLOURS[i], "symbol": ("circle", "square")[i]}
        line = _line(epochs, values, name, _COLOURS[i], dash)  # dashes as in the figures
        traces.append(line | {"mode": "lines+markers", "marker": marker})
        table += [
            [name, str(epoch), f"{value:.4f}"] for epoch, value in zip(epochs, values, strict=True)
        ]
    layout = _axes("epoch", quantity)
    last = max((row.get("epoch", 0) for row in rows), default=0)
    ticks = {"tick0": 0, "dtick": max(1, math.ceil(last / 8))}  # whole epochs
    layout["xaxis"] |= ticks | {"rangemode": "tozero"}
    layout["yaxis"] |= {"rangemode": "tozero" if quantity == "loss" else "normal"}
    return Chart(
        key=quantity,
        title=f"{quantity.capitalize()} while training",
        figure={"data": traces, "layout": layout},
        notes=["Training values are means over an epoch, while the network still changes."],
        head=["split", "epoch", quantity],
        rows=table,
    )


def draw_positions(
    key: str, title: str, rows: Sequence[Mapping[str, Any]], threshold: float
) -> Chart:
    """Returns the probability of each slice of a series, rows of slices.csv, along its position."""
    known = all(row["position_mm"] is not None for row in rows)
    x = [row["position_mm"] if known else i for i, row in enumerate(rows, 1)]
    y, odd = [row["probability"] for row in rows], [i for i, row in enumerate(rows) if row["flags"]]
    limit = _line([min(x), max(x)], [threshold] * 2, f"threshold {threshold:.4g}", GREY, "dot")
    curve = _line(x, y, "probability", _COLOURS[0], "solid") | {"mode": "lines+markers"}
    flagged = _line([x[i] for i in odd], [y[i] for i in odd], "flagged", VERMILION, "solid")
    flagged |= {"mode": "markers", "marker": {"color": VERMILION, "size": 10, "symbol": "x"}}
    axis = "position in mm, towards the head" if known else "slice, in the order of file names"
    layout = _axes(axis, "probability", None, [-0.02, 1.02])
    if not known:
        layout["xaxis"] |= {"tick0": 0, "dtick": max(1, math.ceil(len(rows) / 8))}
    return Chart(
        key=key,
        title=title,
        figure={"data": [limit, curve, *[flagged] * bool(odd)], "layout": layout},
        notes=[],
        head=["position in mm" if known else "slice", "probability", "flags"],
        rows=[
            [f"{at:g}", f"{row['probability']:.4f}", row["flags"]]
            for at, row in zip(x, rows, strict=True)
        ],
    )


def _roc(drawn: Mapping[str, Curve], point: tuple[float | None, float | None] | None) -> Chart:
    traces = [_line([0, 1], [0, 1], "chance", GREY, "dot"), *_traces(drawn)]
    if point is not None:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "operating point",
                "meta": "operating point",  # by this the page's script finds it
                "x": [point[0]],
                "y": [point[1]],
                "marker": {"color": VERMILION, "size": 12, "symbol": "diamond"},
            }
        )
    return _chart(
        "roc",
        "ROC curve",
        drawn,
        traces=traces,
        axes=_axes("1 - specificity", "sensitivity", [-0.01, 1.01], [-0.01, 1.02]),
        head=["1 - specificity", "sensitivity"],
        rows=lambda curve: _at(curve, _TABLE),
    )


def _precision_recall(drawn: Mapping[str, Curve], runs: Mapping[str, Predictions]) -> Chart:
    prevalences = [
        _line([0, 1], [share, share], f"prevalence {share:.3f}", GREY, "dot")
        for share in sorted({float(run.label.mean()) for run in runs.values()})
    ]
    return _chart(
        "pr",
        "Precision and recall",
        drawn,
        traces=[*prevalences, *_traces(drawn, shape="vh")],  # y is the height of the step to x
        axes=_axes("recall (sensitivity)", "precision (PPV)", [-0.01, 1.01], [-0.01, 1.02]),
        head=["recall", "precision"],
        rows=lambda curve: _at(curve, _TABLE, step=True),
    )


def _reliability(drawn: Mapping[str, Curve], positive: str) -> Chart:
    share = f"share of {positive!r}"
    traces = [_line([0, 1], [0, 1], "perfectly calibrated", GREY, "dot")]
    for i, (name, curve) in enumerate(drawn.items()):
        trace = _line(curve.x, curve.y, name, *_look(i))
        trace |= {
            "mode": "lines+markers",
            "marker": {"color": _look(i)[0], "size": 8},
            "text": [f"{int(count)} images" for count in curve.count],
        }
        if curve.band is not None:
            _, low, high = curve.band
            trace["error_y"] = {
                "type": "data",
                "symmetric": False,
                "array": _plain(np.maximum(high - curve.y, 0)),
                "arrayminus": _plain(np.maximum(curve.y - low, 0)),
                "color": _look(i)[0],
            }
        traces.append(trace)
    return _chart(
        "reliability",
        "Reliability",
        drawn,
        traces=traces,
        axes=_axes("mean predicted probability", share, [-0.02, 1.02], [-0.02, 1.02]),
        head=["mean probability", share, "images"],
        rows=lambda curve: [
            [f"{x:.3f}", f"{y:.3f}", str(int(count))]
            for x, y, count in zip(curve.x, curve.y, curve.count, strict=True)
        ],
        note="Ten bins of equal width; calibration errors in the table of metrics use bins of "
        "equally many images.",
    )


def _decision(drawn: Mapping[str, Curve], first: Predictions) -> Chart:
    share, thresholds = float(first.label.mean()), bands.THRESHOLDS
    everyone = share - (1 - share) * thresholds / (1 - thresholds)
    top = max(share * 1.12, 0.05)
    return _chart(
        "decision",
        "Decision curve",
        drawn,
        traces=[
            _line([0.01, 0.99], [0, 0], "treat none", GREY, "dot"),
            _line(thresholds, everyone, "treat all", GREY, "dash"),
            *_traces(drawn),
        ],
        axes=_axes("threshold probability", "net benefit", [0, 1], [-0.25 * top, top]),
        head=["threshold", "net benefit"],
        rows=lambda curve: _at(curve, _TABLE[1:-1]),
        note="Net benefit: true positives per image, less false positives weighed by the odds of "
        "the threshold. A model is worth using at a threshold where its curve is the highest.",
    )


def _chart(
    key: str,
    title: str,
    drawn: Mapping[str, Curve],
    *,
    traces: list[dict[str, Any]],
    axes: dict[str, Any],
    head: list[str],
    rows: Callable[[Curve], list[list[str]]],
    note: str = "",
) -> Chart:
    undefined = [
        f"{name}: undefined, because {curve.undefined}."
        for name, curve in drawn.items()
        if curve.undefined
    ]
    several = len(drawn) > 1
    return Chart(
        key=key,
        title=title,
        figure={"data": traces, "layout": axes} if len(undefined) < len(drawn) else None,
        notes=[*undefined, *[note] * bool(note)],
        head=["run", *head] if several else head,
        rows=[
            [name, *cells] if several else cells
            for name, curve in drawn.items()
            if not curve.undefined
            for cells in rows(curve)
        ],
    )


def _at(curve: Curve, grid: np.ndarray, *, step: bool = False) -> list[list[str]]:
    """Returns rows of x and y at the points of a grid."""
    values = bands.at(curve.x[None], curve.y[None], grid, step=step)[0]
    return [[f"{x:.2f}", f"{y:.3f}"] for x, y in zip(grid, values, strict=True)]


def _traces(drawn: Mapping[str, Curve], **line: str) -> list[dict[str, Any]]:
    """Returns a line per defined curve, each after its band."""
    traces = []
    for i, (name, curve) in enumerate(drawn.items()):
        if curve.undefined:
            continue
        if curve.band is not None:
            traces.append(_area(*curve.band))
        kept = _corners(curve.x, curve.y)
        trace = _line(curve.x[kept], curve.y[kept], name, *_look(i))
        traces.append(trace | {"line": trace["line"] | line})
    return traces


def _area(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    """Returns the area between two limits."""
    kept = ~np.isnan(low)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "95 % band",
        "x": _plain(np.append(x[kept], x[kept][::-1])),
        "y": _plain(np.append(high[kept], low[kept][::-1])),
        "fill": "toself",
        "fillcolor": _FILL,
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def _line(x: Any, y: Any, name: str, colour: str, dash: str) -> dict[str, Any]:
    # Plotly reads some HTML in names.
    shown = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {
        "type": "scatter",
        "mode": "lines",
        "name": shown,
        "x": _plain(x),
        "y": _plain(y),
        "line": {"color": colour, "dash": dash, "width": 1.5 if colour == GREY else 2.5},
    }


def _axes(x: str, y: str, x_range: Any = None, y_range: Any = None) -> dict[str, Any]:
    """Returns axes and legend; Plotly chooses a range that is None."""

    def axis(title: str, limits: Any) -> dict[str, Any]:
        shown = {"title": {"text": title}, "automargin": True, "fixedrange": True}
        return shown | ({"range": limits} if limits else {})

    return {
        "xaxis": axis(x, x_range),
        "yaxis": axis(y, y_range),
        "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
    }


def _look(number: int) -> tuple[str, str]:
    """Returns colour and dashes; curves that lie on each other are told apart by the dashes."""
    count = len(_COLOURS)
    return _COLOURS[number % count], _DASHES[(number + number // count) % len(_DASHES)]


def _corners(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the points of a curve that are no inner points of level or upright pieces."""
    level = (y[1:-1] == y[:-2]) & (y[1:-1] == y[2:])
    upright = (x[1:-1] == x[:-2]) & (x[1:-1] == x[2:])
    kept = np.flatnonzero(np.concatenate([[True], ~(level | upright), [True]]))
    if len(kept) > _MOST_POINTS:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, _MOST_POINTS).round().astype(int))]
    return kept


def _plain(values: Any) -> list[float | None]:
    """Returns numbers as JSON can say them, with six digits; NaN is None."""
    found = np.asarray(values, np.float64).round(6).tolist()
    return [None if math.isnan(value) else value for value in found]  # JSON has no NaN
