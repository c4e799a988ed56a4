"""The folder of a run: who may use it, what is recorded in it, and the memory that a run took."""

import json
import logging
import os
import subprocess
import sys

import pytest

from msa_flax.config import Config, OptimConfig
from msa_flax.files import UserError
from msa_flax.training import workdir
from msa_flax.training.workdir import WorkdirError

FACTS = {"data_fingerprint": "a" * 64, "images": 7}


def test_a_new_or_empty_folder_is_taken_and_one_with_other_files_refused(tmp_path):
    workdir.check_workdir(tmp_path / "new", Config())
    workdir.check_workdir(tmp_path, Config())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="holds other files"):
        workdir.check_workdir(tmp_path, Config())
    with pytest.raises(WorkdirError, match="got the file"):
        workdir.check_workdir(tmp_path / "notes.txt", Config())


def test_a_run_may_be_continued_with_more_epochs_and_nothing_else(tmp_path):
    config = Config()
    workdir.record_start(tmp_path, config, FACTS, seconds=1.0)
    config.train.epochs += 1
    workdir.check_workdir(tmp_path, config)
    config.train.seed = 3
    with pytest.raises(WorkdirError, match=r"differs in train.seed \(0, now 3\)"):
        workdir.check_workdir(tmp_path, config)


def test_seconds_of_a_continued_run_add_up_and_other_images_are_refused(tmp_path):
    for _ in range(2):
        workdir.record_start(tmp_path, Config(), FACTS, seconds=1.0)
        workdir.record_end(tmp_path, seconds=10.0, step_seconds=0.25)
    values = json.loads((tmp_path / "run.json").read_text())
    assert values["seconds"] == {"setup": 2.0, "train": 20.0, "step": 0.25}
    assert values["images"] == 7
    assert values["versions"]["jax"]
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(WorkdirError, match="fingerprint aaaaaaaaaaaa, now bbbbbbbbbbbb"):
        workdir.record_start(tmp_path, Config(), {"data_fingerprint": "b" * 64}, seconds=1.0)
    assert (tmp_path / "run.json").read_bytes() == before


def test_only_one_process_trains_in_a_folder(tmp_path):
    folder = tmp_path / "run"
    with (
        workdir.locked(folder),
        pytest.raises(WorkdirError, match="another process"),
        workdir.locked(folder),
    ):
        pass
    with workdir.locked(folder):
        pass


def test_the_log_file_has_what_the_terminal_has_and_more(tmp_path, capfd):
    ours, file_only = logging.getLogger("msa_flax"), logging.getLogger("msa_flax.file")
    ours.setLevel(logging.INFO)
    with workdir.logging_to(tmp_path / "train.log"):
        ours.info("both")
        file_only.info("a long table")
    ours.info("afterwards")
    text = (tmp_path / "train.log").read_text()
    assert "both" in text
    assert "a long table" in text
    assert "afterwards" not in text
    assert "a long table" not in capfd.readouterr().err


def test_the_peak_of_memory_grows_with_what_is_touched_and_does_not_fall():
    script = """
import numpy as np
from msa_flax.training.workdir import peak_memory_gib

before = peak_memory_gib()
block = np.ones(2**25)
during = peak_memory_gib()
del block
print(before, during, peak_memory_gib())
"""
    # In a new process: the peak of this one depends on earlier tests.
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    before, during, after = (float(word) for word in done.stdout.split())
    assert 0.24 < during - before < 0.3  # 256 MiB
    assert after > during - 0.01  # the kernel counts a few pages late


def test_epochs_that_a_schedule_depends_on_are_refused_with_the_reason(tmp_path):
    config = Config(optim=OptimConfig(schedule="cosine"))
    workdir.record_start(tmp_path, config, FACTS, seconds=1.0)
    config.train.epochs += 1
    with pytest.raises(WorkdirError, match="learning rate of every step depends on their number"):
        workdir.check_workdir(tmp_path, config)
    config.train.epochs -= 2
    with pytest.raises(WorkdirError, match="expected as many or more, got 14"):
        workdir.check_workdir(tmp_path, config)


def test_images_may_have_moved_and_a_start_that_was_killed_early_is_no_foreign_folder(tmp_path):
    config = Config()
    for name in (".lock", "train.log", ".config.json.12.tmp"):
        (tmp_path / name).write_text("")
    workdir.check_workdir(tmp_path, config)
    config.data.root = "old"
    workdir.record_start(tmp_path, config, FACTS, seconds=1.0)
    config.data.root = "new"
    workdir.check_workdir(tmp_path, config)


def test_what_a_killed_process_had_not_finished_is_removed_and_nothing_else(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    maps = tmp_path / "eval/test/explanations"
    maps.mkdir(parents=True)
    left = maps / f".a.gradcam.npy.{killed.pid}.tmp"
    others = [maps / f".a.npy.{os.getpid()}.tmp", maps / ".mine.tmp", maps / "a.npy"]
    for path in (left, *others):
        path.write_text("")
    with workdir.locked(tmp_path):
        assert sorted(maps.iterdir()) == sorted(others)


@pytest.mark.parametrize(
    "text", ["{", "", "[]", "{}", '{"config": 3}', '{"config": {"model": 3}}', "\ufeff{"]
)
def test_a_configuration_changed_by_hand_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        workdir.check_workdir(tmp_path, Config(), accept=True)


def test_training_refuses_files_changed_by_hand_or_takes_them_for_good(tmp_path):
    workdir.record_start(tmp_path, Config(), FACTS, seconds=1.0)
    assert workdir.check_workdir(tmp_path, Config()) == []  # killed before it wrote the hashes
    (tmp_path / "splits.csv").write_text("a")
    workdir.record_files(tmp_path)
    assert workdir.check_workdir(tmp_path, Config()) == []
    (tmp_path / "splits.csv").write_text("b")
    with pytest.raises(UserError, match=r"splits\.csv changed since .* pass --accept_changes"):
        workdir.check_workdir(tmp_path, Config())
    stamps = workdir.check_workdir(tmp_path, Config(), accept=True)
    assert stamps == ["files of the run were changed by hand: splits.csv"]
    workdir.record_start(tmp_path, Config(), FACTS | {"changes": stamps}, seconds=1.0)
    workdir.record_files(tmp_path)
    assert workdir.check_workdir(tmp_path, Config()) == stamps  # of the next start too
    (tmp_path / "splits.csv").unlink()  # this start writes it again
    assert workdir.check_workdir(tmp_path, Config()) == stamps
    (tmp_path / "run.json").unlink()
    with pytest.raises(UserError, match=r"run\.json is gone, so that nobody can tell"):
        workdir.check_workdir(tmp_path, Config())


@pytest.mark.parametrize(
    "text", ["{", '{"a": 1}', f'{{"data_fingerprint": "{"a" * 64}", "seconds": 3}}']
)
def test_facts_changed_by_hand_are_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json|fingerprint"):
        workdir.record_start(tmp_path, Config(), FACTS, seconds=1.0)


def test_the_identity_of_a_run_is_all_that_it_may_not_change():
    config, same, other = Config(), Config(), Config()
    same.train.epochs, same.data.root = 99, "elsewhere"
    other.train.seed = 5
    assert workdir.identity(config) == workdir.identity(same) != workdir.identity(other)
