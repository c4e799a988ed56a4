"""What is found in a folder that a receiver fills."""

import os

import pytest

from msa_flax.archive.incoming import Incoming
from msa_flax.archive.queue import opened

LATE = 1e12  # seconds since 1970: when everything has been still for long


@pytest.fixture
def incoming(tmp_path):
    """A folder whose files hold the name of their study, "" if they are no image."""
    (tmp_path / "in").mkdir()
    with opened(tmp_path / "out/queue.sqlite") as queue:
        yield Incoming(
            tmp_path / "in", queue, study_of=lambda path: path.read_text(), pseudonym=hash_of
        )


def hash_of(text):
    return f"<{text}>"


def ready(incoming):
    incoming.scan(LATE)
    return incoming._queue.next_study(LATE, 0.0)


def test_files_belong_to_the_study_that_they_name(incoming):
    (incoming.folder / "b").mkdir()
    for name, study in {"1": "a", "b/2": "a", "b/3": "", ".hidden": "b"}.items():
        (incoming.folder / name).write_text(study)
    study = ready(incoming)
    assert (study.study, study.files) == ("a", 2)
    assert [path.name for path in incoming.images(study)] == ["1", "2"]
    assert incoming.foreign() == 1


def test_a_study_that_grows_is_another_content(incoming):
    (incoming.folder / "1").write_text("a")
    first = ready(incoming)
    assert ready(incoming) == first
    (incoming.folder / "2").write_text("a")
    assert ready(incoming).content != first.content
    (incoming.folder / "2").unlink()
    assert ready(incoming) == first
    (incoming.folder / "1").unlink()
    assert ready(incoming) is None


def test_links_and_pipes_are_passed_over(incoming, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1").write_text("a")
    os.symlink(tmp_path / "elsewhere", incoming.folder / "folder")
    os.symlink(tmp_path / "elsewhere/1", incoming.folder / "file")
    os.symlink("/none", incoming.folder / "broken")
    os.mkfifo(incoming.folder / "pipe")
    assert ready(incoming) is None
    assert incoming.passed == 4
