"""The short form of the soak: each fault once or twice, in the real commands; nothing is lost."""

import contextlib
import dataclasses
import io
import os
import random
from pathlib import Path

import bench
import pytest
import soak
from commands import call
from tiny_training import FLAGS

# What each fault costs is in its number: a training of three epochs takes seconds, a list little.
SHORT = {
    "kill": 1,
    "signal in training": 1,
    "two trainers": 1,
    "newest checkpoint damaged": 1,
    "best checkpoint damaged": 1,
    "disk full": 1,
    "read-only folder": 2,
    "numbers not finite": 1,
    "hostile names": 1,
    "wrong labels": 2,
    "foreign weights": 3,
    "impossible configurations": 4,
    "files edited by hand": 1,
}


# Commands that are killed, or run beside another, are processes of their own anyway; the others
# need that where they meet a full disk, or have rights taken away.
IN_PROCESSES = ("disk full", "read-only folder")


class InThisProcess(bench.Bench):
    """Runs commands in this process, and starts those that are disturbed."""

    def run(self, command, *, limit=0):
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
            code = call(command[2].removeprefix("msa_flax."), *command[3:])
        return bench.Ended(code=code, text=said.getvalue())


@pytest.fixture(scope="module")
def small_bench(tmp_path_factory):
    """A folder for runs of three epochs; the undisturbed one is made by the first test.

    What other tests have compiled for such a network is not compiled again.
    """
    assert set(FLAGS) < set(bench.CONFIG)
    place = bench.Bench(tmp_path_factory.mktemp("soak") / "work", epochs=3)
    programs = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    programs.mkdir(parents=True, exist_ok=True)
    (place.folder / "cache").mkdir()
    (place.folder / "cache/xla").symlink_to(programs)
    return place


@pytest.fixture(scope="module")
def in_this_process(small_bench):
    place = InThisProcess(small_bench.folder, epochs=3)
    place.reference = small_bench.reference
    return place


# Orbax closes its loop over reads of a damaged checkpoint that still go on; a command says nothing.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", SHORT)
def test_a_fault_loses_nothing(small_bench, in_this_process, name):
    place = small_bench if name in IN_PROCESSES else in_this_process
    outcomes = list(soak.FAULTS[name].inject(place, SHORT[name], random.Random(name)))
    assert outcomes
    assert not [outcome for outcome in outcomes if not outcome.held]


def test_every_fault_says_how_it_is_injected_and_how_often():
    for fault in soak.FAULTS.values():
        assert (fault.inject.__doc__ or "").split(".")[0]
        assert fault.share >= 0


def test_a_soak_goes_on_where_it_was_and_a_failure_is_its_exit_code(tmp_path, monkeypatch, capsys):
    asked = []

    def inject(bench, times, draw):
        """A fault of a test."""
        asked.append(times)
        yield OUTCOME
        yield dataclasses.replace(OUTCOME, held=False)

    monkeypatch.setattr(soak, "FAULTS", {"one": soak.Fault(inject, 0.1)})
    arguments = ["--out", str(tmp_path), "--kills", "20", "--faults", "one"]
    assert soak.main(arguments) == 1
    assert soak.main(arguments) == 1
    assert asked == [2]
    table = (tmp_path / "soak.md").read_text()
    assert "| one | A fault of a test. | 2 | 2 x kept | 1 of 2 |" in table
    assert "FAIL one: x -> kept" in capsys.readouterr().out


OUTCOME = bench.Outcome(injected="x", result="kept", held=True)


def test_a_run_that_differs_by_one_byte_is_seen(small_bench):
    copied = small_bench.copy(small_bench.reference, "copied")
    assert small_bench.differences(copied) == []
    path = copied / "eval/test/predictions.csv"
    path.write_text(path.read_text().replace("1", "2", 1))
    (copied / "metrics.jsonl").unlink()
    assert small_bench.differences(copied) == ["eval/test/predictions.csv", "metrics.jsonl"]


def test_an_array_that_differs_is_seen(small_bench):
    copied = small_bench.copy(small_bench.half, "copied")
    assert any(Path(name).parts[0] == "checkpoints" for name in small_bench.differences(copied))
