import os
from pathlib import Path

import pytest
from prepared_folders import config, write_archive

from msa_flax.data import shards
from msa_flax.preparation.tasks import PreparationError, Task, write_study


@pytest.fixture
def task(tmp_path):
    root = write_archive(tmp_path / "challenge")
    slices = tuple((str(number), 0) for number in range(11, 17))
    about = {"slices": slices, "refused": (), "challenge": root, "out": tmp_path / "out"}
    return Task(study="1.2.4", index=0, count=1, config=config(root), **about)


def slice_of(task, number):
    return task.challenge / "train_images" / task.study / f"{number}.dcm"


def test_a_study_is_written_once(task):
    assert write_study(task) == ("written", {"slices": 6, "positive": 0, "refused": 0})
    written = task.path.stat().st_mtime_ns
    assert write_study(task) == ("kept", {"slices": 6, "positive": 0, "refused": 0})
    assert task.path.stat().st_mtime_ns == written


def test_bytes_do_not_depend_on_when_or_by_whom_a_study_is_written(task):
    write_study(task)
    first = task.path.read_bytes(), shards.read_study_record(task.out, 0)
    task.path.unlink()
    for path in slice_of(task, 11).parent.iterdir():
        os.utime(path, (0, 0))
    write_study(task)
    assert (task.path.read_bytes(), shards.read_study_record(task.out, 0)) == first


def test_a_file_without_its_record_is_of_a_killed_process_and_written_again(task):
    write_study(task)
    (task.out / "studies/00000.json").unlink()
    assert task.standing() == "new"
    assert write_study(task)[0] == "written"


def test_a_slice_that_cannot_be_read_is_recorded_and_the_others_are_written(task):
    slice_of(task, 12).write_bytes(b"no CT slice")
    assert write_study(task) == ("written", {"slices": 5, "positive": 0, "refused": 1})
    ((name, reason),) = shards.read_study_record(task.out, 0)["refused"]
    assert name == "train_images/1.2.4/12.dcm"
    assert reason
    # Until it may be refused, it is tried again.
    assert task.standing() == "new"
    task.config.on_bad_file = "skip"
    assert task.standing() == "done"


def test_a_study_of_nothing_usable_leaves_an_empty_file(task):
    for number in range(11, 17):
        slice_of(task, number).write_bytes(b"no CT slice")
    assert write_study(task) == ("refused", {"slices": 0, "positive": 0, "refused": 6})
    assert task.path.read_bytes() == b""


def test_a_study_that_was_made_from_other_files_is_not_overwritten(task):
    write_study(task)
    slice_of(task, 12).write_bytes(Path(slice_of(task, 12)).read_bytes() + b"\0\0")
    with pytest.raises(PreparationError, match="prepared from other files than there are now"):
        write_study(task)
