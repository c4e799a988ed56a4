import importlib.util
import os
import signal
import subprocess
import sys

import pytest
from prepared_folders import config, content, in_this_process, write_archive

from msa_flax.preparation import engines
from msa_flax.preparation.archive import prepare_archive
from msa_flax.preparation.tasks import PreparationError

needs_beam = pytest.mark.skipif(
    not importlib.util.find_spec("apache_beam"),
    reason='Apache Beam is not installed: pip install "msa_flax[beam]"',
)


@pytest.fixture
def root(tmp_path):
    return write_archive(tmp_path / "challenge")


def test_two_processes_write_what_one_writes(root, tmp_path):
    prepare_archive(config(root), tmp_path / "pool", engines.pool(2))
    prepare_archive(config(root), tmp_path / "here", in_this_process)
    assert content(tmp_path / "pool") == content(tmp_path / "here")


def end_process(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_ends_the_run_with_a_sentence(root, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "write_study", end_process)
    with pytest.raises(PreparationError, match="one of the processes was ended from outside"):
        prepare_archive(config(root), tmp_path / "out", engines.pool(1))


def test_an_error_in_a_process_is_raised_here(root, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/prepared.json").mkdir()  # where a file would have to be
    with pytest.raises((OSError, ValueError)):
        prepare_archive(config(root), tmp_path / "out", engines.pool(1))


def test_there_is_a_core_or_more():
    assert 1 <= engines.cores() <= os.cpu_count()


def test_beam_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(PreparationError, match=r'pip install "msa_flax\[beam\]"'):
        engines.beam("FnApiRunner", [])


def prepare_with_beam(root, out, *flags):
    command = [sys.executable, "-m", "msa_flax.prepare", f"--root={root}", f"--out={out}"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.splitlines()[-1]


@needs_beam
def test_beam_writes_what_a_pool_writes(root, tmp_path):
    assert prepare_with_beam(root, tmp_path / "beam", "--runner=FnApiRunner")[0] == 0
    prepare_archive(config(root), tmp_path / "here", in_this_process)
    assert content(tmp_path / "beam") == content(tmp_path / "here")


@needs_beam
@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--runner=Foo"], "error: --runner: Unexpected pipeline runner: Foo"),
        (["--runner=FnApiRunner", "--", "--nonsense=3"], "error: flags of Beam: it has no nons"),
        (["--runner=FnApiRunner", "--", "--direct_num_workers=x"], "error: flag of Beam: "),
    ],
)
def test_runners_and_flags_that_beam_does_not_know_are_refused(root, tmp_path, flags, reason):
    code, said = prepare_with_beam(root, tmp_path / "out", *flags)
    assert code == 2
    assert said.startswith(reason)
    assert not (tmp_path / "out").exists()
