"""What all figures share: colours, line styles, the notes below a figure, and grey images.

Every figure is drawn without pyplot, so there is no global state and no window, and with
matplotlib's own defaults, so the same numbers give the same bytes whatever a user's matplotlibrc
says. Colours are Okabe and Ito's and perceptually uniform maps: readable with any colour vision.
"""

import contextlib
import functools
import io
import logging
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from msa_flax.files import NOTICE, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#6E6E6E"
# Okabe and Ito's without yellow, which is too pale for a line on white. The first four have a
# contrast of 3 or more on white and on the dark ground of a report.
COLOURS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_NOTE_INCHES = 0.15  # height of one line of notes

_FONT = "DejaVu Sans"  # matplotlib brings it along

log = logging.getLogger("msa_flax")

Path = str | os.PathLike[str]


def colour(number: int) -> str:
    """Returns the colour of the run or series with this number, counted from 0."""
    return COLOURS[number % len(COLOURS)]


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


def legible(text: str) -> str:
    r"""Returns the text with what no installed font can show as an escape, such as ``\u6b63``."""
    lost = set(text).difference("\n", *_fonts(frozenset(text)).values())
    if lost:
        _say_once(frozenset(lost))
    return "".join(c.encode("unicode_escape").decode() if c in lost else c for c in text)


@functools.lru_cache(maxsize=256)
def _fonts(characters: frozenset[str]) -> dict[str, set[str]]:
    """Returns the fonts that it takes to show the characters, each with those that it has."""
    from matplotlib import font_manager

    def has(file: str) -> set[str]:
        known = font_manager.get_font(file).get_charmap()
        return {c for c in characters if ord(c) in known}

    found = {_FONT: has(font_manager.findfont(_FONT))}
    missing = characters - found[_FONT] - {"\n"}
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda e: (e.weight != 400, e.name)):
        # The font of last resort has boxes only, those of TeX have letters for signs.
        if missing and not entry.name.startswith(("Last Resort", "cm", "STIX", "DejaVu")):
            found[entry.name] = found.get(entry.name, set()) | (has(entry.fname) & missing)
            missing -= found[entry.name]
    return {name: own for name, own in found.items() if own or name == _FONT}


@functools.lru_cache(maxsize=64)
def _say_once(characters: frozenset[str]) -> None:
    log.warning(
        "figures: no installed font has %d of the characters; they are shown as escapes such as "
        "\\u6b63; install Noto fonts (fonts-noto-cjk, fonts-noto) to see them",
        len(characters),
    )


def _use_fonts(figure: "Figure") -> None:
    """Makes every text of a figure one that can be shown, with the fonts that it takes."""
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    fonts: dict[str, None] = {_FONT: None}
    for text in texts:
        if not (said := text.get_text()).isascii():
            fonts |= dict.fromkeys(_fonts(frozenset(said)))
        text.set_text(legible(said))
    for text in texts if len(fonts) > 1 else []:
        text.set_fontfamily(list(fonts))


@contextlib.contextmanager
def drawn(path: Path, width: float, height: float, stamps: Sequence[str]) -> "Iterator[Figure]":
    """Gives a figure to draw on; on leaving, adds the notes below it and writes the PNG.

    Args:
        path: the PNG file.
        width: in inches.
        height: in inches, without the notes.
        stamps: warnings about the data, written below the figure.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # A character of the notes is at most 0.06 inches wide; longer notes go on in the next line.
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
        _use_fonts(figure)
        buffer = io.BytesIO()
        # The version of matplotlib would make the bytes differ between machines.
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
