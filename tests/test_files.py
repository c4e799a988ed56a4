"""The ground floor: what every part writes."""

import csv
import os
import pathlib
import re
import signal
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msa_flax import files
from msa_flax.files import (
    UserError,
    cache_dir,
    csv_rows,
    csv_text,
    markdown_table,
    read_json,
    write_json,
)

CELLS = st.text() | st.text("'=+-@\t\r\n,\"1.e", max_size=6)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=5))
def test_every_table_comes_back_from_its_csv_and_no_cell_is_a_formula(rows):
    header, path = ("one", "two"), pathlib.Path(tempfile.gettempdir()) / f"csv-{os.getpid()}.csv"
    rows = [tuple(cell.encode("utf-8", "replace").decode() for cell in row) for row in rows]
    path.write_bytes(csv_text(header, rows).encode())
    assert [tuple(row) for row in csv_rows(path)] == [header, *rows]
    with path.open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    path.unlink()
    for cell in cells:
        assert cell[:1] not in tuple("=+-@\t\r\n") or float(cell) is not None


@pytest.mark.parametrize("cell", ["=cmd|'/c'!A1", "+1+1", "-2+3", "@SUM(A1)", "\tx", "\rx", "-x"])
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(cell):
    assert csv_text(("a",), [(cell,)]).splitlines()[1].lstrip('"').startswith("'")


@pytest.mark.parametrize("number", ["-1.5", "-3", "+2.5e-07", "-inf", -0.25])
def test_numbers_below_0_stay_numbers(number):
    assert csv_text(("a",), [(number,)]) == f"a\n{number}\n"


def test_a_table_that_a_spreadsheet_has_saved_is_read_and_a_binary_one_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n")
    assert csv_rows(tmp_path / "a.csv") == [["a", "b"], ["1", "2"]]
    with pytest.raises(UserError, match=r"none\.csv"):
        csv_rows(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "an empty file"),
        (b'{"a": 1', "expected JSON"),
        (b"[1]", "got list"),
        (b'{"a": NaN}', "NaN, which is no JSON"),
        (b"\xff\x00", "expected JSON"),
        (b'{"schema_version": 99}', "expected schema_version 1, got 99"),
        (b'{"a":' * 100_000, "expected JSON"),
    ],
)
def test_json_that_is_damaged_or_of_another_version_is_refused_by_name(text, said, tmp_path):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        read_json(tmp_path / "a.json")
    assert "a.json" in str(caught.value)
    assert read_json(tmp_path / "none.json") == {}


def test_numbers_have_all_their_digits_and_nothing_is_an_empty_cell():
    assert csv_text(("a", "b", "c"), [(0.1 + 0.2, None, 7)]) == "a,b,c\n0.30000000000000004,,7\n"


def test_a_carriage_return_is_quoted_whatever_the_version_of_python():
    assert csv_text(("a",), [("x\ry",), ('"',)]) == 'a\n"x\ry"\n""""\n'


def test_an_error_is_one_line_that_steers_no_terminal_whatever_it_quotes():
    said = str(UserError("it says a\nb\x1b[2J\0\u2028, in Zürich\u3000東京"))
    assert said == r"it says a\nb\x1b[2J\x00\u2028, in Zürich" + "\u3000東京"


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


def test_a_markdown_cell_is_text_and_never_markup():
    row = markdown_table(
        ["a"], [["<img src=x onerror=alert(1)>\n`c` [t](javascript:x)"]]
    ).splitlines()[2]
    assert row == "| &lt;img src=x onerror=alert(1)> \\`c\\` [t]\\(javascript:x) |"


@pytest.mark.parametrize(
    ("value", "shape", "said"),
    [
        ({"a": 1, "b": None}, {"a": float, "b": (int, None), "c?": str}, ""),
        ({"a": True}, {"a": float}, "expected a number as a, got True"),
        ({"a": [1, 2.5]}, {"a": [int]}, "expected a whole number as a[1], got 2.5"),
        ({"a": {"x": {"b": 1}}}, {"a": {"*": {"b": str}}}, "expected a text as a.x.b, got 1"),
        ({}, {"a": str}, "expected a text as a, got nothing"),
        ({"a": 1e308}, {"a": float}, "expected a number as a, got 1e+308"),
        ([], {"a": str}, "expected an object as content, got []"),
        ("c", {"a", "b"}, "expected another text as content, got 'c'"),
        (0, None, "expected null as content, got 0"),
        (None, [str], "expected a list as content, got None"),
    ],
)
def test_what_is_not_of_a_shape_is_named(value, shape, said):
    assert files.misshapen(value, shape) == said


def test_signals_wait_for_files_that_belong_together():
    done = []

    def write():
        with files.uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_folder_of_files_is_there_whole_or_not_at_all_and_leaves_nothing_behind(tmp_path):
    left = tmp_path / f".model.{os.getpid()}.tmp"
    left.mkdir()
    (left / "old").touch()  # of a killed process with this number

    def write_half():
        with files.written_whole(tmp_path / "model") as folder:
            folder.mkdir()
            (folder / "a").touch()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert list(tmp_path.iterdir()) == []
    files.write_folder(tmp_path / "model", {"a": b"1"})
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "a"]
    (tmp_path / ".other.999999999.tmp").mkdir()  # a number that no process has
    files.remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_pipe_or_a_device_is_never_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(files.UserError, match="pipe cannot be written: a pipe, a socket or a dev"):
        files.write_text(tmp_path / "pipe", "text")
    assert (tmp_path / "pipe").is_fifo()
