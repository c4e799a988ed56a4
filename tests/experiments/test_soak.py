"""The short form of the soak: each fault once or twice, in the real commands; nothing is lost."""

import dataclasses
import random
from pathlib import Path

import bench
import pytest
import soak

# What each fault costs is in its number: a training of three epochs takes seconds, a list little.
SHORT = {
    "kill": 2,
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


@pytest.fixture(scope="module")
def small_bench(tmp_path_factory):
    """A folder for runs of three epochs; the undisturbed one is made by the first test."""
    return bench.Bench(tmp_path_factory.mktemp("soak") / "work", epochs=3)


@pytest.mark.parametrize("name", SHORT)
def test_a_fault_loses_nothing(small_bench, name):
    outcomes = list(soak.FAULTS[name].inject(small_bench, SHORT[name], random.Random(name)))
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
