"""The command, as it is typed: what it says, what it refuses, and what a kill leaves behind."""

import subprocess
import sys
import time

import pytest
from challenge_folder import BOX_HEAD, BOXES, HEAD, STUDIES, write_table
from prepared_folders import config, content, in_this_process, write_archive

from msa_flax import cli, prepare
from msa_flax.config import PREPARED_FIELDS
from msa_flax.files import csv_rows
from msa_flax.preparation import engines
from msa_flax.preparation.archive import prepare_archive


@pytest.fixture
def root(tmp_path):
    return write_archive(tmp_path / "challenge")


@pytest.fixture
def call(root, tmp_path, monkeypatch, capfd):
    """Runs the command in this process; returns its code and what it said."""
    monkeypatch.setattr(engines, "pool", lambda processes: in_this_process)

    def call(*flags):
        given = ["x", f"--root={root}", f"--out={tmp_path / 'out'}", *flags]
        code = cli.call(prepare.main, prepare.define_flags, prepare.__doc__, given)
        out, err = capfd.readouterr()
        return code, out if code == 0 else err.splitlines()[-1]

    return call


def test_the_command_says_what_it_prepared_and_how_to_train_on_it(call, tmp_path):
    code, said = call()
    assert code == 0
    assert said.startswith(
        "8 slices of 2 studies (2 with a fracture); 0 studies had been prepared before; 0 refused"
    )
    assert f"--config.data.root={tmp_path / 'out'}" in said
    assert "2 studies had been prepared before" in call()[1]


def test_what_training_must_be_told_is_said(call):
    said = call("--on_bad_file=skip", "--window_width=2000")[1].splitlines()[-1].split()
    fields = dict(one.removeprefix("--config.data.").split("=") for one in said if "=" in one)
    assert set(fields) == {"source", "protocol", "root", "on_bad_file", "window_width"}
    assert fields["window_width"] == "2000.0"


def no_files(root):
    for path in (root / "train_images/1.2.4").iterdir():
        path.unlink()


def no_folder(root):
    (root / "train_images/1.2.4").rename(root / "elsewhere")


def box_outside(root):
    write_table(root / "train_bounding_boxes.csv", BOX_HEAD, [BOXES[0], ["1.2.3", 30, 3, 7, 5, 13]])


def box_on_nothing(root):
    write_table(root / "train_bounding_boxes.csv", BOX_HEAD, [BOXES[0], [*BOXES[1][:5], 99]])


def two_rows(root):
    write_table(root / "train.csv", HEAD, [*STUDIES, STUDIES[1]])


def another_challenge(root):
    write_table(root / "train.csv", ["SOPInstanceUID", "label"], [["1", "2"]])


SKIPPED = [  # what is wrong, its name, what is said of it, slices that are left
    (no_files, "1.2.4", "no slices: no file NUMBER.dcm in it", 2),
    (no_folder, "1.2.4", "no such folder, train.csv names it", 2),
    (
        *(box_outside, "1.2.3/13.dcm"),
        *("its box (30.0, 3.0, 7.0, 5.0) is outside its frame of 32 x 32 pixels", 7),
    ),
    (box_on_nothing, "1.2.3/99.dcm", "no such file, train_bounding_boxes.csv has a box on it", 7),
]
REFUSED = [
    (two_rows, "row 5: study 1.2.4 for the second time"),
    (another_challenge, "a table of another challenge?"),
]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [*((spoil, f"{name}: {why}") for spoil, name, why, _ in SKIPPED), *REFUSED],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(call, root, tmp_path, spoil, reason):
    spoil(root)
    code, said = call()
    assert code == 2
    assert reason in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", SKIPPED)
def test_what_may_be_skipped_is_listed_and_the_rest_is_prepared(call, root, tmp_path, case):
    spoil, name, why, left = case
    spoil(root)
    code, said = call("--on_bad_file=skip")
    assert (code, said.split()[0]) == (0, str(left))
    assert csv_rows(tmp_path / "out/refused.csv")[1:] == [[f"train_images/{name}", why]]
    assert len(list((tmp_path / "out").glob("*.tfrecord-*"))) == 2


@pytest.mark.parametrize("flags", [["--processes=2", "--runner=FnApiRunner"], ["--", "--x=1"]])
def test_flags_that_do_not_go_together_are_refused(call, flags):
    assert call(*flags)[0] == 2


def test_every_field_that_decides_what_is_prepared_has_a_flag():
    assert set(prepare.FIELDS) == {*PREPARED_FIELDS, "on_bad_file"}


def test_a_killed_command_leaves_no_process_and_the_same_one_goes_on(tmp_path):
    root = write_archive(tmp_path / "challenge", studies=20, slices=20)
    flags = [f"--root={root}", f"--out={tmp_path / 'killed'}", "--processes=1"]
    command = [sys.executable, "-m", "msa_flax.prepare", *flags]
    running = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120  # far above the ten seconds of its start
    while not list(tmp_path.glob("killed/studies/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.kill()
    # The pipe ends when the last process that has it ends: none is left over.
    running.communicate(timeout=60)
    records = list(tmp_path.glob("killed/studies/*.json"))
    assert 0 < len(records) < 22
    found = prepare_archive(config(root), tmp_path / "killed", in_this_process)
    assert found["kept"] == len(records)
    prepare_archive(config(root), tmp_path / "whole", in_this_process)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
