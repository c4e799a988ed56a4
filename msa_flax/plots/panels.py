"""Figures of explanations: images beside the maps that lie over them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from msa_flax.plots.figures import Path, drawn, row_title, show, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One image of a figure, with the class that its maps speak for in ``called``."""

    example_id: str
    probability: float  # of a fracture, 0..1
    image: np.ndarray  # uint8 [s, s]
    overlays: Sequence[np.ndarray]  # uint8 [s, s, 3], RGB; none for a place that stays empty
    title: str = ""


def gradcam_panel(
    rows: Mapping[str, Sequence[Case]],
    path: Path,
    title: str,
    stamps: Sequence[str],
    *,
    maximum: float | None = None,
) -> None:
    """Draws images beside their Grad-CAM overlays, one row a class (paper 1 Figure 4).

    Args:
        rows: row title to the cases of that row, with one overlay each; the rows are lettered A,
            B, ... as in the paper.
        path: the PNG file.
        title: above the figure.
        stamps: written below the figure.
        maximum: the value of the last colour in every overlay; None if each overlay has its own.
    """
    columns = max([1, *(len(cases) for cases in rows.values())])
    width, height = 2.9 * columns + 1.1, 1.95 * len(rows) + 0.4
    with drawn(path, width, height, stamps) as figure:
        figure.suptitle(title)
        grid = figure.subplots(len(rows), 2 * columns, squeeze=False)
        for letter, row, (name, cases) in zip("ABCDEFGH", grid, rows.items(), strict=False):
            row_title(row[0], f"{letter}   {name}")
            for axes in row[2 * len(cases) :]:
                show(axes, None)
            for left, right, case in zip(row[0::2], row[1::2], cases, strict=False):
                show(left, case.image)
                show(right, case.overlays[0])
                left.set_xlabel(wrapped(case.example_id, 26), fontsize=6.5)
                right.set_xlabel(f"P(fracture) {case.probability:.4f}", fontsize=7.5)
        _colour_bar(figure, grid, "Grad-CAM", maximum)


def contact_sheet(
    cases: Sequence[Case],
    columns: Sequence[str],
    path: Path,
    title: str,
    stamps: Sequence[str],
) -> None:
    """Draws one row an image: the image, then what each method lays over it.

    Args:
        cases: one overlay a column each; ``title`` stands before the row.
        columns: titles of the overlays.
        path: the PNG file.
        title: above the figure.
        stamps: written below the figure.
    """
    width, height = 1.35 * (len(columns) + 1) + 1.2, 1.5 * len(cases) + 0.6
    with drawn(path, width, height, stamps) as figure:
        figure.suptitle(title)
        grid = figure.subplots(len(cases), len(columns) + 1, squeeze=False)
        for axes, name in zip(grid[0], ["image", *columns], strict=True):
            axes.set_title(wrapped(name, 16), fontsize=8)
        for row, case in zip(grid, cases, strict=True):
            row_title(row[0], wrapped(case.title, 18), size=7)
            show(row[0], case.image)
            row[0].set_xlabel(
                f"{wrapped(case.example_id, 24)}\nP(fracture) {case.probability:.4f}", fontsize=5.5
            )
            for axes, overlay in zip(row[1:], case.overlays, strict=True):
                show(axes, overlay)
        _colour_bar(figure, grid, "map", None)


def _colour_bar(figure: "Figure", grid: np.ndarray, name: str, maximum: float | None) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(0, 1 if maximum is None else maximum), cmap="inferno")
    bar = figure.colorbar(scale, ax=grid.ravel().tolist(), fraction=0.05, pad=0.03, aspect=30)
    if maximum is None:
        bar.set_ticks([0, 1], labels=["0", "own\ntop"])
    bar.set_label(f"{name}, each from 0 to its own top value" if maximum is None else name)
