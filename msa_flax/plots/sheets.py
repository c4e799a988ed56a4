"""Sheets of images: samples of the classes, and images beside the maps that explain them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from msa_flax.plots.style import Path, drawn, row_title, show, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageWithMaps:
    """One image, and what each method of explanation lays over it."""

    example_id: str
    probability: float  # of the positive class, 0..1
    image: np.ndarray  # uint8 [s, s]
    overlays: Sequence[np.ndarray]  # uint8 [s, s, 3], RGB
    positive: str  # name of the positive class
    title: str = ""  # written before its row of a contact sheet


def sample_sheet(
    images: np.ndarray,
    labels: np.ndarray,
    titles: Sequence[str],
    path: Path,
    classes: Sequence[str],
    *,
    stamps: Sequence[str] = (),
) -> None:
    """Draws the given images in a grid, one row per class, in the given order.

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


def gradcam_panel(
    rows: Mapping[str, Sequence[ImageWithMaps]], path: Path, title: str, stamps: Sequence[str]
) -> None:
    """Draws images beside their Grad-CAM overlays, one row per class (paper 1 Figure 4).

    Args:
        rows: row title to the images of that row, with one overlay each; the rows are lettered A,
            B, ... as in the paper.
        path: the PNG file.
        title: above the figure.
        stamps: written below the figure.
    """
    columns = max([1, *(len(members) for members in rows.values())])
    width, height = 2.9 * columns + 1.1, 1.95 * len(rows) + 0.4
    with drawn(path, width, height, stamps) as figure:
        figure.suptitle(title)
        grid = figure.subplots(len(rows), 2 * columns, squeeze=False)
        for letter, row, (name, members) in zip("ABCDEFGH", grid, rows.items(), strict=False):
            row_title(row[0], f"{letter}   {name}")
            for axes in row[2 * len(members) :]:
                show(axes, None)
            for left, right, member in zip(row[0::2], row[1::2], members, strict=False):
                show(left, member.image)
                show(right, member.overlays[0])
                left.set_xlabel(wrapped(member.example_id, 26), fontsize=6.5)
                right.set_xlabel(f"P({member.positive}) {member.probability:.4f}", fontsize=7.5)
        _colour_bar(figure, grid, "Grad-CAM")


def contact_sheet(
    members: Sequence[ImageWithMaps],
    columns: Sequence[str],
    path: Path,
    title: str,
    stamps: Sequence[str],
) -> None:
    """Draws one row per image: the image, then what each method lays over it.

    Args:
        members: the images, with one overlay per column.
        columns: titles of the overlays.
        path: the PNG file.
        title: above the figure.
        stamps: written below the figure.
    """
    width, height = 1.35 * (len(columns) + 1) + 1.2, 1.5 * len(members) + 0.6
    with drawn(path, width, height, stamps) as figure:
        figure.suptitle(title)
        grid = figure.subplots(len(members), len(columns) + 1, squeeze=False)
        for axes, name in zip(grid[0], ["image", *columns], strict=True):
            axes.set_title(wrapped(name, 16), fontsize=8)
        for row, member in zip(grid, members, strict=True):
            row_title(row[0], wrapped(member.title, 18), size=7)
            show(row[0], member.image)
            below = (
                f"{wrapped(member.example_id, 24)}\nP({member.positive}) {member.probability:.4f}"
            )
            row[0].set_xlabel(below, fontsize=5.5)
            for axes, overlay in zip(row[1:], member.overlays, strict=True):
                show(axes, overlay)
        _colour_bar(figure, grid, "map")


def _colour_bar(figure: "Figure", grid: np.ndarray, name: str) -> None:
    from matplotlib.cm import ScalarMappable

    scale = ScalarMappable(cmap="inferno")
    scale.set_clim(0, 1)
    bar = figure.colorbar(scale, ax=grid.ravel().tolist(), fraction=0.05, pad=0.03, aspect=30)
    bar.set_ticks([0, 1], labels=["0", "own\ntop"])
    bar.set_label(f"{name}, each from 0 to its own top value")
