"""The pictures of an audit."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from msa_flax.auditing.predictability import WHERE, Predictabilities, Predictability
from msa_flax.data.examples import Examples
from msa_flax.data.families import Families
from msa_flax.plots.style import BLUE, GREY, VERMILION, colour, drawn, row_title, show, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Path = str | os.PathLike[str]
_PAIRS = 5  # pairs a row
_GROUPS = 20  # groups drawn
_NAME = 24  # characters of a name that are drawn
_BELOW: dict[str, Any] = {  # where a legend is, and how narrow
    "loc": "upper center",
    "bbox_to_anchor": (0.5, -0.19),
    "fontsize": 8,
    "handlelength": 1.2,
    "columnspacing": 1.2,
}


def overview(examples: Examples, label_from: Predictabilities, path: Path, *, title: str) -> None:
    """Draws slice positions by class and group, and what predicts the label.

    Args:
        examples: n images.
        label_from: how well each fact predicts the label.
        path: the PNG file.
        title: above the figure.
    """
    measured = {
        name: {unit: value for unit, value in values.items() if not value.reason}
        for name, values in label_from.items()
    }
    known = [(name, values) for name, values in measured.items() if values]
    with drawn(path, 10.0, max(3.4, 0.36 * len(known) + 1.4), []) as figure:
        figure.suptitle(title)
        left, right = figure.subplots(1, 2)
        _draw_positions(left, examples)
        _draw_bars(right, known)


def _draw_positions(axes: "Axes", examples: Examples) -> None:
    axes.set_title("Where the slices are, by class")
    rows = np.flatnonzero(examples.slice_index >= 0)
    if not len(rows):
        _say(axes, "slice positions are not known")
        return
    names, group = np.unique(examples.group[rows], return_inverse=True)
    names = names[:_GROUPS].tolist()
    number = len(examples.classes)
    step = min(0.16, 0.6 / number)  # so that all classes stay in their group's row
    for label, name in enumerate(examples.classes):
        chosen = (examples.label[rows] == label) & (group < len(names))
        places = np.stack([examples.slice_index[rows], group])[:, chosen]
        position, row = np.unique(places, axis=1)  # copies lie on one another
        axes.plot(
            position,
            row + step * (label - (number - 1) / 2),
            linestyle="none",
            marker="|",
            markersize=9,
            color=colour(label),
            label=_short(name),
        )
    axes.set(xlabel="slice index", ylabel="group", yticks=range(len(names)))
    axes.set_yticklabels([_short(name) or "unknown" for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.invert_yaxis()
    axes.legend(ncols=min(number, 4), **_BELOW)


def _draw_bars(axes: "Axes", known: list[tuple[str, dict[str, Predictability]]]) -> None:
    axes.set_title("How well one fact tells the class")
    if not known:
        _say(axes, "nothing could be measured")
        return
    known = sorted(known, key=lambda item: max(v.accuracy for v in item[1].values()))
    for unit, colour_of_unit, shift in (("family", BLUE, 0.2), ("group", VERMILION, -0.2)):
        rows = [(y, values[unit]) for y, (_, values) in enumerate(known) if unit in values]
        if rows:
            y = np.array([y for y, _ in rows]) + shift
            accuracy, low, high = np.array([(v.accuracy, v.low, v.high) for _, v in rows]).T
            axes.barh(y, accuracy, color=colour_of_unit, height=0.38, label=WHERE[unit])
            ends = np.maximum([accuracy - low, high - accuracy], 0)
            axes.errorbar(
                accuracy, y, xerr=ends, fmt="none", ecolor="black", capsize=1.5, linewidth=0.8
            )
    majority = next(iter(known[0][1].values())).majority
    axes.axvline(majority, color=GREY, linestyle=":", label="commonest class")
    axes.set(xlabel="accuracy, cross-validated", xlim=(0, 1.02), yticks=range(len(known)))
    axes.set_yticklabels([name for name, _ in known])
    axes.legend(ncols=3, **_BELOW)


def pairs(examples: Examples, families: Families, path: Path) -> None:
    """Draws pairs of images that one must see to believe, or doubt, the families.

    Copies in two classes, and in two splits; the links of least similarity; the most similar pairs
    that are not linked.

    Args:
        examples: n images.
        families: their families by pixels.
        path: the PNG file.
    """
    family, part, label = (
        column[families.pairs].T for column in (families.family, examples.part, examples.label)
    )
    together = family[0] == family[1]
    rows = [
        ("copies in two classes", together & (label[0] != label[1]), -1),
        ("copies in two splits", together & (part[0] != part[1]), -1),
        ("copies, weakest links", together & (families.similarity >= families.threshold), 1),
        ("not copies, most alike", ~together, -1),
    ]
    spread = {name: _spread(families, mask, order) for name, mask, order in rows}
    chosen = [(name, picked) for name, picked in spread.items() if picked]
    with drawn(path, 2 * _PAIRS * 1.3 + 0.4, 1.9 * max(1, len(chosen)), []) as figure:
        if not chosen:
            figure.text(0.5, 0.5, "no two images are alike", ha="center")
            return
        grid = figure.subplots(len(chosen), 2 * _PAIRS, squeeze=False)
        for axes, (name, picked) in zip(grid, chosen, strict=True):
            row_title(axes[0], wrapped(name, 14), size=9)
            for place, pair in enumerate(picked):
                _draw_pair(axes[2 * place : 2 * place + 2], examples, families, pair)
            for empty in axes[2 * len(picked) :]:
                show(empty, None)


def _draw_pair(both: "Sequence[Axes]", examples: Examples, families: Families, pair: int) -> None:
    """Draws the two images of a row of ``families.pairs``, and how they differ."""
    for axes, i in zip(both, families.pairs[pair].tolist(), strict=True):
        show(axes, examples.images[i])
        axes.set_xlabel(wrapped(str(examples.example_id[i]), 20), fontsize=5)
    turned = f"{families.degrees[pair]:.0f}°{' mirrored' if families.mirrored[pair] else ''}"
    both[0].set_title(f"{families.similarity[pair]:.2f}, {turned}", fontsize=7, loc="left")


def _say(axes: "Axes", text: str) -> None:
    """Writes why there is nothing to draw."""
    axes.set(xticks=(), yticks=())
    axes.text(0.5, 0.5, text, ha="center", va="center")


def _short(name: str) -> str:
    """Returns a name without its middle if it is so long that it would leave no room."""
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[-_NAME // 2 :]}"


def _spread(families: Families, mask: np.ndarray, order: int) -> list[int]:
    """Returns the extreme pairs of different families, most similar (-1) or least (1) first."""
    picked: dict[tuple[int, ...], int] = {}  # of each two families the first pair
    rows = np.flatnonzero(mask)
    for row in rows[np.argsort(order * families.similarity[rows], kind="stable")].tolist():
        picked.setdefault(tuple(families.family[families.pairs[row]].tolist()), row)
        if len(picked) == _PAIRS:
            break
    return list(picked.values())
