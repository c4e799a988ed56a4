"""The guide's commands and settings, run as they stand; only ports, places and patience differ."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
from archive_guide import guide
from peers import Orthanc, free_ports, listens, missing, send, wait_until
from toy_model import write_toy_model

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A folder with a model and four studies, and the archive of the guide."""
    if gone := missing("Orthanc", "storescp", "storescu"):
        pytest.skip(gone)
    folder = tmp_path_factory.mktemp("guide")
    write_toy_model(folder / "model")
    (folder / "bin").mkdir()
    (folder / "bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "bin/python").chmod(0o755)
    (folder / "experiments").symlink_to(ROOT / "experiments")
    command = guide("model").splitlines()[-1]  # the others train and export, as other tests do
    assert "--out new" in command
    run(folder, command, {})
    (folder / "orthanc").mkdir()
    (folder / "orthanc/route.lua").write_text(guide("route.lua"))
    return folder


@pytest.fixture
def archive(bench):
    """The archive with the settings of the guide, and what the guide's ports are here."""
    (receiver,) = free_ports(1)
    shutil.rmtree(bench / "orthanc/store", ignore_errors=True)
    settings = json.loads(guide("orthanc.json").replace("11112", str(receiver)))
    archive = Orthanc(bench / "orthanc", settings | {"StableAge": 1})
    with archive:
        yield archive, {"11112": str(receiver), "4242": str(archive.port)}


@contextlib.contextmanager
def started(folder, commands, changes):
    """Runs commands until the block ends, and with them what they leave behind."""
    for old, new in changes.items():
        assert old in commands, old
        commands = commands.replace(old, new)
    paths = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    with (folder / "said.txt").open("ab") as said:
        process = subprocess.Popen(
            ["bash", "-euc", commands],
            cwd=folder,
            env=os.environ | paths,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(folder, commands, changes):
    with started(folder, commands, changes) as process:
        assert process.wait(60) == 0, (folder / "said.txt").read_text()


def kinds(archive):
    """The modalities of the instances that an archive has, a list for each study."""
    kinds = {}
    for series in archive.ask("/series?expand"):
        kind = series["MainDicomTags"]["Modality"]
        kinds.setdefault(series["ParentStudy"], []).extend([kind] * len(series["Instances"]))
    return [sorted(one) for one in kinds.values()]


def test_from_nothing_to_results_in_the_archive(bench, archive):
    archive, ports = archive
    with started(bench, guide("trial"), ports | {"--still 5": "--still 1"}):
        wait_until(lambda: kinds(archive) == [["CT"] * 8 + ["OT"] * 3 + ["SR"]] * 4)


def test_a_result_at_the_end_of_each_study_with_nothing_else_running(bench, archive):
    archive, ports = archive
    with started(bench, guide("each"), ports | {"timeout 10": "timeout 1"}):
        receiver = int(ports["11112"])
        wait_until(lambda: listens(receiver))
        for patient in ("PHANTOM-7-0000", "PHANTOM-7-0003"):
            send(bench / "new/images" / patient, receiver)
        wait_until(lambda: kinds(archive) == [["OT"] * 3 + ["SR"]] * 2)


def test_the_archive_of_the_guide_takes_nothing_from_programs_that_it_does_not_name(bench, archive):
    archive, _ = archive
    with pytest.raises(RuntimeError, match="Failed"):
        send(bench / "new/images", archive.port, "-aet", "STRANGER")
    assert archive.ask("/instances") == []
