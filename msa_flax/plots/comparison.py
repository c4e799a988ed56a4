"""Figures over several runs, from their tables: nothing here needs a model.

Paper 2 draws accuracy and loss, a confusion matrix, a precision-recall or a robustness curve for
each of its three networks, on axes of their own (its Figures 5 to 16). Here those that share an
axis share a plot, in the style and colours of :mod:`msa_flax.plots.figures`. Runs are compared
as if on one test set; that they were is for the caller to check.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from msa_flax.evaluation.predictions import Predictions
from msa_flax.evaluation.summary import compute_metrics
from msa_flax.plots.figures import (
    BLUE,
    GREY,
    VERMILION,
    Path,
    draw_confusion,
    drawn,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's, but yellow, which is too pale for a line on white.
COLOURS = (BLUE, VERMILION, "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
_LINES = ("-", "--", "-.")  # with seven colours no two of 21 curves look the same
_MARKERS = "osD^v<>"
_COLUMNS = 3  # panels beside each other


def roc_curves(
    runs: Mapping[str, Predictions], path: Path, title: str, *, stamps: Sequence[str] = ()
) -> None:
    """Draws the ROC curves of several runs in one plot, each one's AUC in the legend.

    Args:
        runs: name of a run to its predictions of one split.
        path: the PNG file.
        title: above the figure.
        stamps: written below the figure.
    """
    with drawn(path, 7.2, 4.6, stamps) as figure:
        from sklearn.metrics import roc_curve

        axes = _unit_square(figure, "1 - specificity", "recall (sensitivity)", title)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="chance\nAUC 0.5")
        for i, (name, run) in enumerate(runs.items()):
            found = compute_metrics(run.label, run.probability, threshold=0.5)["metrics"]["auc"]
            if found["value"] is None:
                _curve(axes, i, [], [], _entry(name, "AUC undefined"))
                continue
            false_rate, true_rate, _ = roc_curve(run.label, run.probability)
            _curve(axes, i, false_rate, true_rate, _entry(name, f"AUC {found['value']:.4f}"))
        figure.legend(loc="outside right upper")


def precision_recall_curves(
    runs: Mapping[str, Predictions], path: Path, title: str, *, stamps: Sequence[str] = ()
) -> None:
    """Draws precision against recall of several runs in one plot (paper 2 Figures 12 and 16).

    The curves are steps, and the area under one is the average precision in its legend, the mean
    of the precision over the recall, sum of (R_k - R_(k-1)) P_k. The dotted line is the prevalence,
    which is what a score that knows nothing attains.

    Args:
        runs: name of a run to its predictions of one split.
        path: the PNG file.
        title: above the figure.
        stamps: written below the figure.
    """
    with drawn(path, 7.2, 4.6, stamps) as figure:
        axes = _unit_square(figure, "recall (sensitivity)", "precision", title)
        for share in sorted({float(run.label.mean()) for run in runs.values()}):
            label = f"prevalence {share:.3f}"
            axes.axhline(share, color=GREY, linestyle=":", linewidth=1, label=label)
        for i, (name, run) in enumerate(runs.items()):
            if not run.label.any():
                _curve(axes, i, [], [], _entry(name, "undefined, no fracture"))
                continue
            recall, precision, average = precision_recall(run.label, run.probability)
            entry = _entry(name, f"average precision {average:.4f}")
            _curve(axes, i, recall, precision, entry, drawstyle="steps-post")
        figure.legend(loc="outside right upper")


def precision_recall(
    labels: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns recall and precision, from recall 1 down to 0, and the average precision.

    A precision holds from its recall down to the next lower one.

    Args:
        labels: int [n], 1 fracture, 0 normal; there must be a fracture.
        probabilities: float [n].

    Returns:
        float [m], float [m] and the area under these steps.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, probabilities)
    # scikit-learn ends at recall 0 with a precision of 1, which no threshold has.
    precision[-1] = precision[-2]
    return recall, precision, float(average_precision_score(labels, probabilities))


def confusion_matrices(
    runs: Mapping[str, Mapping[str, Any]],
    path: Path,
    title: str,
    *,
    classes: Sequence[str] = ("normal", "fracture"),
    stamps: Sequence[str] = (),
) -> None:
    """Draws the confusion matrices of several runs side by side (paper 2 Figures 7, 11 and 15).

    Args:
        runs: name of a run to what :func:`msa_flax.evaluation.metrics_json` returned for it.
        path: the PNG file.
        title: above the figure.
        classes: names of the labels 0 and 1.
        stamps: written below the figure.
    """
    rows, columns = _grid_shape(len(runs))
    with drawn(path, 3.3 * columns + 0.3, 3.7 * rows + 0.4, stamps) as figure:
        figure.suptitle(title)
        for axes, (name, values) in zip(_panels(figure, len(runs)), runs.items(), strict=True):
            draw_confusion(axes, values["confusion"], classes)
            accuracy = values["metrics"]["accuracy"]["value"]
            shown = "undefined" if accuracy is None else f"{accuracy:.4f}"
            note = f"accuracy {shown} at threshold {values['threshold']:g}"
            axes.set_title(f"{wrapped(name, 36)}\n{note}", fontsize=9)


def learning_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, *, stamps: Sequence[str] = ()
) -> None:
    """Draws accuracy and loss of several runs against the epoch (paper 2 Figures 5, 6, 9 ... 14).

    Args:
        runs: name of a run to the rows of its ``metrics.jsonl``, as
            :func:`msa_flax.plots.figures.learning_curves` takes them.
        path: the PNG file.
        stamps: written below the figure.
    """
    with drawn(path, 9.2, 3.6, stamps) as figure:
        from matplotlib.lines import Line2D

        for axes, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
            for i, rows in enumerate(runs.values()):
                _draw_history(axes, rows, quantity, i)
            axes.set(xlabel="epoch", ylabel=quantity, title=quantity.capitalize())
            _whole_ticks(axes)
        runs_shown = [
            Line2D([], [], color=_colour(i), label=wrapped(name, 24)) for i, name in enumerate(runs)
        ]
        splits_shown = [
            Line2D([], [], color=GREY, linestyle="--", label="training"),
            Line2D([], [], color=GREY, marker="o", markersize=4, label="validation"),
        ]
        figure.legend(handles=[*runs_shown, *splits_shown], loc="outside right upper")


def robustness_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    path: Path,
    title: str,
    *,
    majority: float | None = None,
    stamps: Sequence[str] = (),
) -> None:
    """Draws accuracy against the severity of corruptions, a panel a run (paper 2 Figure 8).

    Args:
        runs: name of a run to its rows with "corruption", "severity" (0, unchanged, to 5) and
            "accuracy", in any order; a corruption has one colour in all panels.
        path: the PNG file.
        title: above the figure.
        majority: share of the commoner class, the accuracy of always answering with it; dotted.
        stamps: written below the figure.
    """
    names = list(dict.fromkeys(row["corruption"] for rows in runs.values() for row in rows))
    shape = _grid_shape(len(runs))
    with drawn(path, 3.3 * shape[1] + 1.4, 3.1 * shape[0] + 0.3, stamps) as figure:
        figure.suptitle(title)
        panels = _panels(figure, len(runs))
        for axes, (run, rows) in zip(panels, runs.items(), strict=True):
            if majority is not None:
                axes.axhline(
                    majority, color=GREY, linestyle=":", linewidth=1, label="commoner class"
                )
            for i, name in enumerate(names):
                _draw_fall(axes, [row for row in rows if row["corruption"] == name], name, i)
            axes.set(xlabel="severity", ylabel="accuracy", ylim=(0, 1))
            axes.set_title(wrapped(run, 36), fontsize=9)
            _whole_ticks(axes)
        last = panels[min(shape[1], len(panels)) - 1]  # at the right end of the first row
        last.legend(loc="upper left", bbox_to_anchor=(1, 1))


def _draw_history(
    axes: "Axes", rows: Sequence[Mapping[str, Any]], quantity: str, number: int
) -> None:
    styles: dict[str, dict[str, Any]] = {
        "train": {"linestyle": "--"},
        "validation": {"marker": "o"},
    }
    for split, style in styles.items():
        found = [row for row in rows if row.get("split") == split and quantity in row]
        axes.plot(
            [row["epoch"] for row in found],
            [row[quantity] for row in found],
            color=_colour(number),
            markersize=4,
            **style,
        )


def _draw_fall(axes: "Axes", rows: Sequence[Mapping[str, Any]], name: str, number: int) -> None:
    ordered = sorted(rows, key=lambda row: row["severity"])
    axes.plot(
        [row["severity"] for row in ordered],
        [row["accuracy"] for row in ordered],
        color=_colour(number),
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=4.5,
        clip_on=False,  # an accuracy of 1 lies on the frame
        zorder=3,
        label=name,
    )


def _curve(axes: "Axes", number: int, x: Any, y: Any, label: str, **style: Any) -> None:
    # A perfect curve runs along the frame; without clipping it is seen all the same.
    axes.plot(
        x,
        y,
        color=_colour(number),
        linestyle=_LINES[number % len(_LINES)],
        linewidth=2,
        clip_on=False,
        zorder=3,
        label=label,
        **style,
    )


def _entry(name: str, score: str) -> str:
    """Returns a run's text in a legend."""
    return f"{wrapped(name, 28)}\n{score}"


def _unit_square(figure: "Figure", x: str, y: str, title: str) -> "Axes":
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, title=title, xlim=(0, 1), ylim=(0, 1), aspect=1)
    axes.grid(color="0.9")
    return axes


def _grid_shape(count: int) -> tuple[int, int]:
    columns = min(_COLUMNS, max(1, count))
    return -(-max(1, count) // columns), columns


def _panels(figure: "Figure", count: int) -> list["Axes"]:
    """Returns one axes a run, in reading order; the places that are left over stay empty."""
    grid = figure.subplots(*_grid_shape(count), squeeze=False).ravel().tolist()
    for axes in grid[count:]:
        axes.set_axis_off()
    return grid[:count]


def _whole_ticks(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="0.9")


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
