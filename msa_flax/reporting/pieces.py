"""Pieces of Plotly figures as plain JSON: lines, bands, axes, and the colours of curves."""

import math
from typing import Any

import numpy as np

COLOURS = ("#1f7fbf", "#d55e00", "#0a9e78", "#c66a9c")
GREY = "#808080"
_DASHES = ("solid", "dash", "dot", "dashdot")
_FILL = "rgba(31, 127, 191, 0.35)"
_MOST_POINTS = 600  # of one curve


def line(x: Any, y: Any, name: str, colour: str, dash: str) -> dict[str, Any]:
    """Returns a line without markers."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": text(name),
        "x": plain(x),
        "y": plain(y),
        "line": {"color": colour, "dash": dash, "width": 1.5 if colour == GREY else 2.5},
    }


def band(x: np.ndarray, limits: tuple[np.ndarray, np.ndarray] | None) -> list[dict[str, Any]]:
    """Returns the area between two limits; nothing where there are none."""
    if limits is None:
        return []
    low, high = limits
    kept = ~np.isnan(low)
    outline = (np.append(x[kept], x[kept][::-1]), np.append(high[kept], low[kept][::-1]))
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "95 % band",
            "x": plain(outline[0]),
            "y": plain(outline[1]),
            "fill": "toself",
            "fillcolor": _FILL,
            "line": {"width": 0},
            "hoverinfo": "skip",
        }
    ]


def layout(x: str, y: str, x_range: Any, y_range: Any) -> dict[str, Any]:
    """Returns axes and legend; None for a range that Plotly is to choose."""

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


def style(number: int) -> tuple[str, str]:
    """Returns colour and dashes; curves that lie on each other are told apart by the dashes."""
    colours = len(COLOURS)
    return COLOURS[number % colours], _DASHES[(number + number // colours) % len(_DASHES)]


def corners(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the points of a curve that are no inner points of level or upright pieces."""
    if len(x) < 3:
        return np.arange(len(x))
    level = (y[1:-1] == y[:-2]) & (y[1:-1] == y[2:])
    upright = (x[1:-1] == x[:-2]) & (x[1:-1] == x[2:])
    kept = np.flatnonzero(np.concatenate([[True], ~(level | upright), [True]]))
    if len(kept) > _MOST_POINTS:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, _MOST_POINTS).round().astype(int))]
    return kept


def plain(values: Any) -> list[float | None]:
    """Returns numbers as JSON can say them, with six digits; NaN is None."""
    found = np.asarray(values, np.float64).round(6).tolist()
    return [None if math.isnan(value) else value for value in found]  # JSON has no NaN


def text(name: str) -> str:
    """Returns a name that Plotly, which reads some HTML in names, shows as it is."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
