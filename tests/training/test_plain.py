"""Plain paths: the folder behind them is the same, and nothing is left."""

import tempfile

import pytest

from msa_flax.training.plain import PlainPath, is_running


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_a_plain_folder_stays_as_it_is(tmp_path, temporary):
    assert PlainPath(tmp_path / "run 1").path == tmp_path / "run 1"
    assert not list(temporary.iterdir())


def test_another_folder_is_reached_by_a_link_that_goes_with_the_object(tmp_path, temporary):
    folder = tmp_path / "[2026] é"
    folder.mkdir()
    plain = PlainPath(folder)
    (plain.path / "file").write_text("x")
    assert (folder / "file").read_text() == "x"
    assert str(plain.path).isascii()
    assert "[" not in str(plain.path)
    del plain
    assert not list(temporary.iterdir())


def test_what_a_killed_program_left_is_removed(tmp_path, temporary):
    (temporary / "msa_flax-path-999999999-x").mkdir()
    _ = PlainPath(tmp_path / "[a]")
    assert not (temporary / "msa_flax-path-999999999-x").exists()
    assert not is_running(999999999)
