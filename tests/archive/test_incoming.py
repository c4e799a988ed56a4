"""What is found in a folder that a receiver fills."""

import os
from contextlib import closing
from types import SimpleNamespace

import pytest

from msa_flax.archive.incoming import Incoming
from msa_flax.archive.queue import Queue

LATE = 1e12  # seconds since 1970: when everything has been still for long


@pytest.fixture
def queue(tmp_path):
    with closing(Queue(tmp_path / "out/queue.sqlite")) as queue:
        yield queue


class Folder(Incoming):
    """A folder whose files hold the name of their study: "" for no image, "?" for unreadable."""

    def __init__(self, folder, queue):
        folder.mkdir()
        self.read, self.queue = [], queue
        super().__init__(folder, queue, study_of=self.study_in, pseudonym=ascii)

    def study_in(self, path):
        self.read.append(path.name)
        text = path.read_text()
        return None if text == "?" else text.strip()

    def write(self, **files):
        for name, study in files.items():
            (self.folder / name.replace("__", "/").replace("_", ".")).write_text(study)

    def ready(self, now=LATE, still=0.0):
        self.scan(now)
        return self.queue.next_study(now, still)


@pytest.fixture
def incoming(tmp_path, queue):
    return Folder(tmp_path / "in", queue)


def test_files_belong_to_the_study_that_they_name(incoming):
    (incoming.folder / "b").mkdir()
    for name, study in {"1": "a", "b/2": "a", "b/3": "", ".hidden": "b"}.items():
        (incoming.folder / name).write_text(study)
    study = incoming.ready()
    assert (study.study, study.files) == ("'a'", 2)
    assert [path.name for path in incoming.images(study)] == ["1", "2"]
    assert incoming.passed_over() == 1


def test_a_study_that_grows_is_another_content(incoming):
    (incoming.folder / "1").write_text("a")
    first = incoming.ready()
    assert incoming.ready() == first
    (incoming.folder / "2").write_text("a")
    assert incoming.ready().content != first.content
    (incoming.folder / "2").unlink()
    assert incoming.ready() == first
    (incoming.folder / "1").unlink()
    assert incoming.ready() is None


def test_links_and_pipes_are_passed_over(incoming, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1").write_text("a")
    os.symlink(tmp_path / "elsewhere", incoming.folder / "folder")
    os.symlink(tmp_path / "elsewhere/1", incoming.folder / "file")
    os.symlink("/none", incoming.folder / "broken")
    os.mkfifo(incoming.folder / "pipe")
    assert incoming.ready() is None
    assert incoming.passed_over() == 4


def test_each_header_is_read_once_until_the_file_changes(incoming):
    incoming.write(a="1", b="1")
    incoming.ready()
    incoming.ready()
    assert sorted(incoming.read) == ["a", "b"]
    incoming.write(a="1 ")
    incoming.ready()
    assert sorted(incoming.read) == ["a", "a", "b"]


def test_what_cannot_be_read_at_the_moment_is_read_again(incoming):
    incoming.write(a="?")
    assert incoming.ready() is None
    assert incoming.passed_over() == 0
    incoming.ready()
    assert incoming.read == ["a", "a"]


@pytest.mark.parametrize("name", ["a_part", "a_PARTIAL", "a_tmp", "a_filepart", "a~"])
def test_a_file_that_is_not_finished_holds_its_study_up_and_is_not_predicted(incoming, name):
    incoming.write(**{"a_dcm": "1", name: "1"})
    study = incoming.ready()
    assert study.files == 2
    assert [path.name for path in incoming.images(study)] == ["a.dcm"]
    incoming.write(**{name: "1 "})
    assert incoming.ready().content != study.content


def test_a_clock_that_is_ahead_holds_no_study_up_for_ever(incoming):
    incoming.write(a="1")
    assert incoming.ready(now=1000.0, still=10.0) is None
    assert incoming.ready(now=1010.0, still=10.0)


def test_what_comes_with_old_times_is_new(incoming, monkeypatch):
    def old(path, lstat=os.lstat):
        about = lstat(path)
        times = {"st_mtime_ns": 1, "st_ctime_ns": 1}
        return SimpleNamespace(st_mode=about.st_mode, st_size=about.st_size, **times)

    monkeypatch.setattr(os, "lstat", old)
    incoming.write(a="1")
    assert incoming.ready(now=1000.0, still=10.0)  # at the first look, times are all that is known
    incoming.write(b="2")
    assert incoming.ready(now=1005.0, still=10.0).study == "'1'"
    incoming.queue.add_result(incoming.ready(1006.0, 10.0), "failed", {})
    assert incoming.ready(now=1009.0, still=10.0) is None
    assert incoming.ready(now=1010.0, still=10.0).study == "'2'"


def test_images_are_removed_if_they_are_as_they_were(incoming):
    (incoming.folder / "x/y").mkdir(parents=True)
    (incoming.folder / "z").mkdir()
    incoming.write(x__y__a="1", z__b="1", z__c="", d="1")
    study = incoming.ready()
    incoming.write(d="1, and more")
    incoming.remove(study)
    left = {str(path.relative_to(incoming.folder)) for path in incoming.folder.rglob("*")}
    assert left == {"z", "z/c", "d"}


def test_the_queue_names_no_file_and_no_study_by_its_name(incoming, tmp_path):
    incoming.write(Quillfeather="1")
    incoming._pseudonym = lambda text: str(len(text))
    incoming.ready()
    assert b"Quillfeather" not in (tmp_path / "out/queue.sqlite").read_bytes()


def test_names_that_are_no_utf_8_are_files_too(incoming):
    (incoming.folder / os.fsdecode(b"\xff")).write_text("1")
    study = incoming.ready()
    assert [path.read_text() for path in incoming.images(study)] == ["1"]
