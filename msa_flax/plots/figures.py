"""The figures of paper 1, from the tables of a run: nothing here needs a model.

Every figure is drawn without pyplot, so there is no global state and no window, and with
matplotlib's own defaults, so the same numbers give the same bytes whatever a user's matplotlibrc
says. Colours are Okabe and Ito's and perceptually uniform maps: readable with any colour vision.
"""

import contextlib
import io
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from msa_flax.evaluation.predictions import Predictions
from msa_flax.files import NOTICE, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#6E6E6E"
_NOTE_INCHES = 0.15  # height of one line of notes

Path = str | os.PathLike[str]


def learning_curves(
    rows: Sequence[Mapping[str, Any]], path: Path, *, stamps: Sequence[str] = ()
) -> None:
    """Draws accuracy and loss against the epoch for training and validation (paper 1 Figure 2).

    Args:
        rows: rows of ``metrics.jsonl`` with "epoch", "split" ("train" or "validation") and
            "accuracy" and "loss"; rows of other kinds are left out.
        path: the PNG file.
        stamps: written below the figure.
    """
    series = (("train", "training", BLUE, "o"), ("validation", "validation", VERMILION, "s"))
    with drawn(path, 8.0, 3.6, stamps) as figure:
        from matplotlib.ticker import MaxNLocator

        for axes, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
            for split, label, colour, marker in series:
                found = [row for row in rows if row.get("split") == split and name in row]
                axes.plot(
                    [row["epoch"] for row in found],
                    [row[name] for row in found],
                    color=colour,
                    label=label,
                    marker=marker,
                    markersize=4,
                )
            axes.set(xlabel="epoch", ylabel=name, title=name.capitalize())
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(color="0.9")
        axes.legend()  # the two panels share their colours; loss has room at the top right


def roc_and_confusion(
    predictions: Predictions,
    metrics: Mapping[str, Any],
    path: Path,
    title: str,
    *,
    classes: Sequence[str] = ("normal", "fracture"),
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
    with drawn(path, 8.0, 4.2, metrics["stamps"]) as figure:
        figure.suptitle(title)
        left, right = figure.subplots(1, 2)
        _draw_roc(left, predictions, metrics)
        draw_confusion(right, metrics["confusion"], classes)


def sample_sheet(
    images: np.ndarray,
    labels: np.ndarray,
    titles: Sequence[str],
    path: Path,
    classes: Sequence[str],
    *,
    stamps: Sequence[str] = (),
) -> None:
    """Draws the given images in a grid, one row a class, in the given order.

    Args:
        images: uint8 [n, s, s].
        labels: int [n], index into ``classes``.
        titles: n short texts, written below the images.
        path: the PNG file.
        classes: names of the labels, in their order.
        stamps: written below the figure.
    """
    members = [np.flatnonzero(np.asarray(labels) == label) for label in range(len(classes))]
    columns = max([1, *map(len, members)])
    with drawn(path, 1.6 * columns + 0.4, 2.0 * len(classes) + 0.1, stamps) as figure:
        grid = figure.subplots(len(classes), columns, squeeze=False)
        for row, name, indices in zip(grid, classes, members, strict=True):
            row_title(row[0], name)
            for i, axes in enumerate(row):
                show(axes, images[indices[i]] if i < len(indices) else None)
                if i < len(indices):
                    axes.set_xlabel(wrapped(titles[indices[i]], 26), fontsize=6.5)


def _draw_roc(axes: "Axes", predictions: Predictions, metrics: Mapping[str, Any]) -> None:
    auc = metrics["metrics"]["auc"]
    axes.set(
        xlabel="1 - specificity", ylabel="recall (sensitivity)", xlim=(0, 1), ylim=(0, 1), aspect=1
    )
    axes.set_title("ROC curve")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    axes.grid(color="0.9")
    if auc["value"] is None:
        text = f"AUC is undefined:\n{wrapped(auc['reason'], 30)}"
        axes.text(0.5, 0.5, text, ha="center", va="center", backgroundcolor="white")
        return
    from sklearn.metrics import roc_curve

    # A perfect curve runs along the frame; without clipping it is seen all the same.
    false_rate, true_rate, _ = roc_curve(predictions.label, predictions.probability)
    label = f"AUC {auc['value']:.4f}"
    axes.plot(false_rate, true_rate, color=BLUE, linewidth=2, clip_on=False, zorder=3, label=label)
    counts = metrics["confusion"]
    axes.plot(
        counts["fp"] / (counts["fp"] + counts["tn"]),
        counts["tp"] / (counts["tp"] + counts["fn"]),
        color=VERMILION,
        marker="o",
        linestyle="none",
        clip_on=False,
        zorder=4,
        label=f"threshold {metrics['threshold']:g}",
    )
    axes.legend(loc="lower right")


def draw_confusion(axes: "Axes", counts: Mapping[str, int], classes: Sequence[str]) -> None:
    """Draws a confusion matrix: counts, and shares of the true class."""
    matrix = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]])
    totals = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(totals, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(matrix):
        share = f"\n{shares[i, j]:.1%} of row" if totals[i, 0] else "\nno such image"
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, f"{count}{share}", ha="center", va="center", color=colour, fontsize=11)
    axes.set(xlabel="predicted", ylabel="true", xticks=(0, 1), yticks=(0, 1))
    axes.set_title("Confusion matrix")
    axes.set_xticklabels(classes)
    axes.set_yticklabels(classes, rotation=90, va="center")
    axes.tick_params(length=0)


def show(axes: "Axes", image: np.ndarray | None) -> None:
    """Draws a grey image without axes; None leaves the place empty."""
    axes.set(xticks=(), yticks=())
    if image is None:
        axes.spines[:].set_visible(False)
    else:
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)


def row_title(axes: "Axes", text: str, *, size: float = 10) -> None:
    """Writes the title of a row of images before its first one."""
    axes.set_ylabel(text, fontsize=size, fontweight="bold")


def wrapped(text: str, width: int) -> str:
    """Returns the text in lines of about ``width`` characters; ids break after "/", "-" and "_"."""
    lines = [""]
    for part in re.findall(rf"[^/\-_\s]{{0,{width}}}(?:[/\-_\s]|$)|[^/\-_\s]{{{width}}}", text):
        if len(lines[-1]) + len(part.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


@contextlib.contextmanager
def drawn(path: Path, width: float, height: float, stamps: Sequence[str]) -> "Iterator[Figure]":
    """Gives a figure to draw on; on leaving, adds the notes below and writes the PNG."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # A character of the notes is 0.06 inches wide or less; what does not fit goes to a next line.
    notes = [line for note in (*stamps, NOTICE) for line in textwrap.wrap(note, int(width / 0.06))]
    margin = _NOTE_INCHES * (len(notes) + 0.8)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # An id may hold a dollar sign, which must not start a formula.
        matplotlib.rcParams.update(
            {"font.size": 9, "legend.frameon": False, "text.parse_math": False}
        )
        figure = Figure(figsize=(width, height + margin), dpi=150)
        bottom = margin / (height + margin)
        layout = ConstrainedLayoutEngine(rect=(0, bottom, 1, 1 - bottom), h_pad=0.07, w_pad=0.07)
        figure.set_layout_engine(layout)
        yield figure
        for i, note in enumerate(notes):
            y = _NOTE_INCHES * (len(notes) - i - 0.6) / (height + margin)
            figure.text(0.01, y, note, fontsize=6.5, color=GREY, va="bottom")
        buffer = io.BytesIO()
        # The version of matplotlib would make the bytes differ between machines.
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
