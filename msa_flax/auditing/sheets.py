"""The pictures of an audit."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from msa_flax.auditing.families import Families
from msa_flax.auditing.findings import Images
from msa_flax.auditing.shortcuts import Predictability
from msa_flax.plots.style import BLUE, GREY, VERMILION, drawn, show, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Path = str | os.PathLike[str]
_COLOURS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
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
_PLURAL = {"family": "families", "group": "groups"}


def overview(
    images: Images,
    slice_index: np.ndarray,
    label_from: Mapping[str, Mapping[str, Predictability]],
    path: Path,
    *,
    title: str,
) -> None:
    """Draws slice positions by class and group, and what predicts the label.

    Args:
        images: n images.
        slice_index: -1 unknown, int [n].
        label_from: how well each fact tells the label.
        path: the PNG file.
        title: above the figure.
    """
    known = [
        (name, {unit: value for unit, value in values.items() if not value.reason})
        for name, values in label_from.items()
    ]
    known = [(name, values) for name, values in known if values]
    with drawn(path, 10.0, max(3.4, 0.36 * len(known) + 1.4), []) as figure:
        figure.suptitle(title)
        left, right = figure.subplots(1, 2)
        _draw_positions(left, images, slice_index)
        _draw_bars(right, known)


def _draw_positions(axes: "Axes", images: Images, slice_index: np.ndarray) -> None:
    axes.set_title("Where the slices are, by class")
    rows = np.flatnonzero(slice_index >= 0)
    if not len(rows):
        axes.set(xticks=(), yticks=())
        axes.text(0.5, 0.5, "slice positions are not known", ha="center", va="center")
        return
    groups = sorted(set(images.group[rows].tolist()))[:_GROUPS]
    number = len(images.classes)
    step = min(0.16, 0.6 / number)  # so that all classes stay in their group's row
    for label, name in enumerate(images.classes):
        for y, group in enumerate(groups):
            chosen = rows[(images.group[rows] == group) & (images.label[rows] == label)]
            axes.plot(
                np.unique(slice_index[chosen]),
                np.full(len(np.unique(slice_index[chosen])), y + step * (label - (number - 1) / 2)),
                linestyle="none",
                marker="|",
                markersize=9,
                color=_COLOURS[label % len(_COLOURS)],
                label=_short(name) if y == 0 else None,
            )
    axes.set(xlabel="slice index", ylabel="group", yticks=range(len(groups)))
    axes.set_yticklabels([_short(group) or "unknown" for group in groups])
    axes.set_ylim(-0.6, len(groups) - 0.4)
    axes.invert_yaxis()
    handles = axes.get_legend_handles_labels()
    if handles[1]:
        axes.legend(ncols=min(number, 4), **_BELOW)


def _draw_bars(axes: "Axes", known: list[tuple[str, dict[str, Predictability]]]) -> None:
    axes.set_title("How well one fact tells the class")
    if not known:
        axes.set(xticks=(), yticks=())
        axes.text(0.5, 0.5, "nothing could be measured", ha="center", va="center")
        return
    known = sorted(known, key=lambda item: max(v.accuracy for v in item[1].values()))
    for unit, colour, shift in (("family", BLUE, 0.2), ("group", VERMILION, -0.2)):
        rows = [(y, values[unit]) for y, (_, values) in enumerate(known) if unit in values]
        if not rows:
            continue
        value = np.array([found.accuracy for _, found in rows])
        ends = np.array([[v.accuracy - v.low, v.high - v.accuracy] for _, v in rows]).T
        y = np.array([y for y, _ in rows]) + shift
        axes.barh(y, value, color=colour, height=0.38, label=f"in other {_PLURAL[unit]}")
        ends = np.maximum(ends, 0)
        axes.errorbar(value, y, xerr=ends, fmt="none", ecolor="black", capsize=1.5, linewidth=0.8)
    majority = next(iter(known[0][1].values())).majority
    axes.axvline(majority, color=GREY, linestyle=":", label="commonest class")
    axes.set(xlabel="accuracy, cross-validated", xlim=(0, 1.02), yticks=range(len(known)))
    axes.set_yticklabels([name for name, _ in known])
    axes.legend(ncols=3, **_BELOW)


def pairs(images: Images, found: Families, pictures: np.ndarray, path: Path) -> None:
    """Draws pairs of images that one must see to believe, or doubt, the families.

    Copies in two classes, and in two splits; the links of least similarity; the most similar pairs
    that are not linked.

    Args:
        images: n images.
        found: their families by pixels.
        pictures: grey, uint8 [n, s, s].
        path: the PNG file.
    """
    together = found.family[found.pairs[:, 0]] == found.family[found.pairs[:, 1]]
    split = images.split[found.pairs] if len(found.pairs) else np.zeros((0, 2), np.str_)
    label = images.label[found.pairs]
    rows = [
        ("copies in two classes", together & (label[:, 0] != label[:, 1]), -1),
        ("copies in two splits", together & (split[:, 0] != split[:, 1]), -1),
        ("copies, weakest links", together & (found.similarity >= found.threshold), 1),
        ("not copies, most alike", ~together, -1),
    ]
    chosen = [(name, _spread(found, mask, order)) for name, mask, order in rows]
    chosen = [(name, picked) for name, picked in chosen if len(picked)]
    with drawn(path, 2 * _PAIRS * 1.3 + 0.4, 1.9 * max(1, len(chosen)), []) as figure:
        if not chosen:
            figure.text(0.5, 0.5, "no two images are alike", ha="center")
            return
        grid = figure.subplots(len(chosen), 2 * _PAIRS, squeeze=False)
        for axes, (name, picked) in zip(grid, chosen, strict=True):
            axes[0].set_ylabel(wrapped(name, 14), fontsize=9, fontweight="bold")
            for place in range(_PAIRS):
                left, right = axes[2 * place], axes[2 * place + 1]
                if place >= len(picked):
                    show(left, None)
                    show(right, None)
                    continue
                row = picked[place]
                for one, i in zip((left, right), found.pairs[row].tolist(), strict=True):
                    show(one, pictures[i])
                    one.set_xlabel(wrapped(str(images.example_id[i]), 20), fontsize=5)
                turned = f"{found.degrees[row]:.0f}°{' mirrored' if found.mirrored[row] else ''}"
                left.set_title(f"{found.similarity[row]:.2f}, {turned}", fontsize=7, loc="left")


def _short(name: str) -> str:
    """Returns a name without its middle if it is so long that it would leave no room."""
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[-_NAME // 2 :]}"


def _spread(found: Families, mask: np.ndarray, order: int) -> list[int]:
    """Returns the extreme pairs of different families, most similar (-1) or least (1) first."""
    picked: list[int] = []
    seen: set[tuple[int, int]] = set()
    rows = np.flatnonzero(mask)
    for row in rows[np.argsort(order * found.similarity[rows], kind="stable")].tolist():
        key = tuple(found.family[found.pairs[row]].tolist())
        if key not in seen:
            seen.add(key)
            picked.append(row)
        if len(picked) == _PAIRS:
            break
    return picked
