"""The figures of the papers, from the tables of one run or several: nothing here needs a model.

Paper 1 draws learning curves, a ROC curve and a confusion matrix (its Figures 2 and 3). Paper 2
draws these, a precision-recall and a robustness curve for each of its three networks, on axes of
their own (its Figures 5 to 16); here those that share an axis share a plot. Runs are compared as if
on one test set; that they were is for the caller to check.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from msa_flax.evaluation.predictions import Predictions
from msa_flax.plots import bands
from msa_flax.plots.style import GREY, VERMILION, Path, colour, drawn, legible, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = ("-", "--", "-.")  # with seven colours no two of 21 curves look the same
_MARKERS = "osD^v<>"
_COLUMNS = 3  # panels beside each other
_ROC_AXES = ("1 - specificity", "recall (sensitivity)")


def learning_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, *, stamps: Sequence[str]
) -> None:
    """Draws accuracy and loss against the epoch (paper 1 Figure 2, paper 2 Figures 5, 6, 9 ... 14).

    Training is dashed, validation has markers. One run has a colour per split; of several runs each
    has a colour.

    Args:
        runs: name of a run to the rows of its ``metrics.jsonl``, see
            :func:`msa_flax.plots.bands.learning`.
        path: the PNG file.
        stamps: written below the figure.
    """
    splits: dict[str, dict[str, Any]] = {
        "train": {"label": "training", "linestyle": "--"},
        "validation": {"label": "validation", "marker": "o", "markersize": 4},
    }
    several = len(runs) > 1
    with drawn(path, 9.2 if several else 8.0, 3.6, stamps) as figure:
        from matplotlib.lines import Line2D

        for axes, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
            for i, rows in enumerate(runs.values()):
                for j, (split, look) in enumerate(splits.items()):
                    points = bands.learning(rows, split, quantity)
                    axes.plot(*points, color=colour(i if several else j), **look)
            axes.set(xlabel="epoch", ylabel=quantity, title=quantity.capitalize())
            _whole_ticks(axes)
        if not several:
            axes.legend()  # the two panels share their colours; loss has room at the top right
            return
        handles = [
            Line2D([], [], color=colour(i), label=wrapped(name, 24)) for i, name in enumerate(runs)
        ]
        handles += [Line2D([], [], color=GREY, **look) for look in splits.values()]
        figure.legend(handles=handles, loc="outside right upper")


def roc_and_confusion(
    predictions: Predictions,
    metrics: Mapping[str, Any],
    path: Path,
    title: str,
    *,
    classes: Sequence[str],
) -> None:
    """Draws the ROC curve and the confusion matrix of one split (paper 1 Figure 3).

    Args:
        predictions: the rows the metrics were computed from.
        metrics: what :func:`msa_flax.evaluation.metrics_json` returned; its stamps are written
            below the figure. Where the AUC is undefined its reason takes the curve's place.
        path: the PNG file.
        title: above the figure.
        classes: names of the labels 0 and 1.
    """
    auc, counts = metrics["metrics"]["auc"], metrics["confusion"]
    with drawn(path, 8.0, 4.2, metrics["stamps"]) as figure:
        figure.suptitle(title)
        left, right = figure.subplots(1, 2)
        _unit_square(left, *_ROC_AXES, "ROC curve")
        left.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
        if auc["value"] is None:
            text = f"AUC is undefined:\n{wrapped(auc['reason'], 30)}"
            left.text(0.5, 0.5, text, ha="center", va="center", backgroundcolor="white")
        else:
            _draw_curve(left, 0, bands.roc(predictions), f"AUC {auc['value']:.4f}")
            left.plot(
                counts["fp"] / (counts["fp"] + counts["tn"]),
                counts["tp"] / (counts["tp"] + counts["fn"]),
                color=VERMILION,
                marker="o",
                linestyle="none",
                clip_on=False,
                zorder=4,
                label=f"threshold {metrics['threshold']:g}",
            )
            left.legend(loc="lower right")
        _draw_confusion(right, counts, classes)


def roc_curves(
    runs: Mapping[str, Predictions], path: Path, title: str, *, stamps: Sequence[str]
) -> None:
    """Draws the ROC curves of several runs in one plot, each one's AUC in the legend.

    Args:
        runs: name of a run to its predictions of one split.
        path: the PNG file.
        title: above the figure.
        stamps: written below the figure.
    """
    with drawn(path, 7.2, 4.6, stamps) as figure:
        axes = _unit_square(figure.subplots(), *_ROC_AXES, title)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="chance\nAUC 0.5")
        for i, (name, run) in enumerate(runs.items()):
            curve = bands.roc(run)
            score = "undefined" if curve.undefined else f"{curve.area:.4f}"
            _draw_curve(axes, i, curve, f"{wrapped(name, 28)}\nAUC {score}")
        figure.legend(loc="outside right upper")


def precision_recall_curves(
    runs: Mapping[str, Predictions], path: Path, title: str, *, stamps: Sequence[str]
) -> None:
    """Draws precision against recall of several runs in one plot (paper 2 Figures 12 and 16).

    The curves are steps, and the area under one is the average precision in its legend. The dotted
    line is the prevalence, which a score that knows nothing attains.

    Args:
        runs: name of a run to its predictions of one split.
        path: the PNG file.
        title: above the figure.
        stamps: written below the figure.
    """
    with drawn(path, 7.2, 4.6, stamps) as figure:
        axes = _unit_square(figure.subplots(), "recall (sensitivity)", "precision", title)
        for share in sorted({float(run.label.mean()) for run in runs.values()}):
            label = f"prevalence {share:.3f}"
            axes.axhline(share, color=GREY, linestyle=":", linewidth=1, label=label)
        for i, (name, run) in enumerate(runs.items()):
            curve = bands.precision_recall(run)
            score = f"average precision {curve.area:.4f}"
            score = "undefined, no positive" if curve.undefined else score
            _draw_curve(axes, i, curve, f"{wrapped(name, 28)}\n{score}", drawstyle="steps-pre")
        figure.legend(loc="outside right upper")


def confusion_matrices(
    runs: Mapping[str, Mapping[str, Any]],
    path: Path,
    title: str,
    *,
    classes: Sequence[str],
    stamps: Sequence[str],
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
            _draw_confusion(axes, values["confusion"], classes)
            accuracy = values["metrics"]["accuracy"]["value"]
            shown = "undefined" if accuracy is None else f"{accuracy:.4f}"
            note = f"accuracy {shown} at threshold {values['threshold']:g}"
            axes.set_title(f"{wrapped(name, 36)}\n{note}", fontsize=9)


def robustness_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    path: Path,
    title: str,
    *,
    majority: float,
    stamps: Sequence[str],
) -> None:
    """Draws accuracy against the severity of corruptions, one panel per run (paper 2 Figure 8).

    Args:
        runs: name of a run to its rows with "corruption", "severity" (0, unchanged, to 5) and
            "accuracy", in any order; a corruption has one colour in all panels.
        path: the PNG file.
        title: above the figure.
        majority: share of the commoner class, the accuracy of always answering with it; dotted.
        stamps: written below the figure.
    """
    names = list(dict.fromkeys(row["corruption"] for rows in runs.values() for row in rows))
    rows_of_panels, columns = _grid_shape(len(runs))
    with drawn(path, 3.3 * columns + 1.4, 3.1 * rows_of_panels + 0.3, stamps) as figure:
        figure.suptitle(title)
        panels = _panels(figure, len(runs))
        for axes, (run, rows) in zip(panels, runs.items(), strict=True):
            axes.axhline(majority, color=GREY, linestyle=":", linewidth=1, label="commoner class")
            for i, name in enumerate(names):
                chosen = [row for row in rows if row["corruption"] == name]
                chosen.sort(key=lambda row: row["severity"])
                axes.plot(
                    [row["severity"] for row in chosen],
                    [row["accuracy"] for row in chosen],
                    color=colour(i),
                    marker=_MARKERS[i % len(_MARKERS)],
                    markersize=4.5,
                    clip_on=False,  # an accuracy of 1 lies on the frame
                    zorder=3,
                    label=name,
                )
            axes.set(xlabel="severity", ylabel="accuracy", ylim=(0, 1))
            axes.set_title(wrapped(run, 36), fontsize=9)
            _whole_ticks(axes)
        last = panels[min(columns, len(panels)) - 1]  # at the right end of the first row
        last.legend(loc="upper left", bbox_to_anchor=(1, 1))


def _draw_curve(axes: "Axes", number: int, curve: bands.Curve, label: str, **style: Any) -> None:
    # A perfect curve runs along the frame; without clipping it is seen all the same.
    axes.plot(
        curve.x,
        curve.y,
        color=colour(number),
        linestyle=_LINES[number % len(_LINES)],
        linewidth=2,
        clip_on=False,
        zorder=3,
        label=label,
        **style,
    )


def _draw_confusion(axes: "Axes", counts: Mapping[str, int], classes: Sequence[str]) -> None:
    """Draws a confusion matrix: counts, and shares of the true class."""
    matrix = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]])
    totals = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(totals, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(matrix):
        share = f"\n{shares[i, j]:.1%} of row" if totals[i, 0] else "\nno such image"
        ink = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, f"{count}{share}", ha="center", va="center", color=ink, fontsize=11)
    axes.set(xlabel="predicted", ylabel="true", xticks=(0, 1), yticks=(0, 1))
    axes.set_title("Confusion matrix")
    names = [legible(name) for name in classes]  # of ticks the axis keeps a copy
    axes.set_xticklabels(names)
    axes.set_yticklabels(names, rotation=90, va="center")
    axes.tick_params(length=0)


def _unit_square(axes: "Axes", x: str, y: str, title: str) -> "Axes":
    axes.set(xlabel=x, ylabel=y, title=title, xlim=(0, 1), ylim=(0, 1), aspect=1)
    axes.grid(color="0.9")
    return axes


def _grid_shape(count: int) -> tuple[int, int]:
    columns = min(_COLUMNS, max(1, count))
    return -(-max(1, count) // columns), columns


def _panels(figure: "Figure", count: int) -> list["Axes"]:
    """Returns one axes per run, in reading order; the places that are left over stay empty."""
    grid = figure.subplots(*_grid_shape(count), squeeze=False).ravel().tolist()
    for axes in grid[count:]:
        axes.set_axis_off()
    return grid[:count]


def _whole_ticks(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="0.9")
