"""What all figures share is tried on small ones; their own tests check it on every figure."""

import dataclasses
import logging

import cv2

from msa_flax.plots import style


def luminance(colour):
    """Returns the relative luminance of WCAG 2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_first_four_colours_are_readable_on_white_and_on_the_dark_ground_of_the_page():
    for ground in ("#ffffff", "#12171c"):  # of report.css
        for colour in (*style.COLOURS[:4], style.GREY):
            low, high = sorted((luminance(colour), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 3  # WCAG 2, 1.4.11


def test_more_series_than_colours_begin_again():
    assert style.colour(0) == style.colour(len(style.COLOURS)) == style.BLUE


def test_a_long_id_breaks_after_its_separators_and_keeps_its_characters():
    text = "val/normal/$a_1$ (1)-rotated1.png"
    lines = style.wrapped(text, 12).split("\n")
    assert len(lines) > 1
    assert max(map(len, lines)) <= 13
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_stamp_that_is_too_long_goes_on_in_the_next_line(tmp_path, texts):
    stamp = "series cross the split: " + "B10 " * 60
    with style.drawn(tmp_path / "a.png", 6, 2, [stamp]) as figure:
        figure.subplots()
    assert " ".join(stamp.split()) in " ".join(texts())
    assert cv2.imread(str(tmp_path / "a.png"))[:, -1].min() == 255


def test_names_in_any_script_are_shown_or_escaped_without_a_warning(tmp_path, caplog, monkeypatch):
    """Without a font for them these were empty boxes, and a warning per character."""
    monkeypatch.setattr(logging.getLogger("msa_flax"), "propagate", True)
    style._say_once.cache_clear()
    for name in ("a", "b"):
        with style.drawn(tmp_path / f"{name}.png", 3, 2, ["正常"]) as figure:
            axes = figure.subplots()
            axes.set_title("骨折 \x07 \udcff")
            axes.plot([0, 1], label="العربية")
            axes.legend()
    shown = axes.get_title()
    assert shown == style.legible("骨折 \x07 \udcff")
    assert "\\x07" in shown
    assert "\\udcff" in shown
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(set(said))
    assert all("install Noto fonts" in text for text in said)


def test_a_font_of_the_system_that_has_the_characters_is_used(monkeypatch):
    from matplotlib import font_manager

    listed = font_manager.fontManager.ttflist
    entry = next(e for e in listed if e.name == "STIXGeneral")
    other = dataclasses.replace(entry, name="Other")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*listed, other])
    known = font_manager.get_font(entry.fname).get_charmap()
    base = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    character = chr(min(set(known) - set(base)))
    style._fonts.cache_clear()
    assert style.legible(character) == character
    assert list(style._fonts(frozenset(character))) == ["DejaVu Sans", "Other"]
    style._fonts.cache_clear()
