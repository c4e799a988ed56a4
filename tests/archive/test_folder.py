"""A folder of results is there whole or not at all."""

import pathlib

import pytest

from msa_flax.archive.folder import write_together
from msa_flax.archive.origin import ArchiveError

FILES = {"a.dcm": b"1", "b.dcm": b"2"}


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_the_same_again_changes_nothing(tmp_path):
    write_together(tmp_path / "out/1", FILES)
    times = [path.stat().st_mtime_ns for path in tmp_path.rglob("*")]
    write_together(tmp_path / "out/1", FILES)
    assert [path.stat().st_mtime_ns for path in tmp_path.rglob("*")] == times
    assert tree(tmp_path / "out/1") == FILES


@pytest.mark.parametrize("change", [{"a.dcm": b"3"}, {"c.dcm": b"3"}])
def test_what_is_there_is_never_overwritten(change, tmp_path):
    there = FILES | change
    write_together(tmp_path / "1", there)
    with pytest.raises(ArchiveError, match="nothing was overwritten"):
        write_together(tmp_path / "1", FILES)
    assert tree(tmp_path / "1") == there


def test_neither_is_a_file(tmp_path):
    (tmp_path / "1").write_bytes(b"mine")
    with pytest.raises(ArchiveError, match="nothing was overwritten"):
        write_together(tmp_path / "1", FILES)


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    write = pathlib.Path.write_bytes

    def fail(path, data):
        if path.name == "b.dcm":
            raise OSError("no room")
        return write(path, data)

    monkeypatch.setattr(pathlib.Path, "write_bytes", fail)
    with pytest.raises(OSError, match="no room"):
        write_together(tmp_path / "1", FILES)
    assert not list(tmp_path.iterdir())
