"""The ground floor: what every part writes."""

import csv
import io
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msa_flax.files import cache_dir, csv_text, markdown_table, write_json


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_every_table_comes_back_from_its_csv(rows):
    header = ("one", "two")
    read = list(csv.reader(io.StringIO(csv_text(header, rows), newline="")))
    assert [tuple(row) for row in read] == [header, *rows]


def test_numbers_have_all_their_digits_and_nothing_is_an_empty_cell():
    assert csv_text(("a", "b", "c"), [(0.1 + 0.2, None, 7)]) == "a,b,c\n0.30000000000000004,,7\n"


def test_a_carriage_return_is_quoted_whatever_the_version_of_python():
    assert csv_text(("a",), [("x\ry",), ('"',)]) == 'a\n"x\ry"\n""""\n'


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("MSA_FLAX_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "msa_flax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == pathlib.Path.home() / ".cache" / "msa_flax"


def test_a_markdown_table_has_a_line_per_row_whatever_the_cells_hold():
    text = markdown_table(["a", "b"], [["1", "2 | 3"], ["3", ""]])
    assert text.splitlines() == ["| a | b |", "| --- | --- |", "| 1 | 2 \\| 3 |", "| 3 |  |"]
