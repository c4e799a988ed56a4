"""The command watch as a user gives it."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from archives import peer
from dicom_files import write_series
from dicom_results import ABOUT

from msa_flax import cli, watch
from msa_flax.data.phantom import draw_patient

sys.path.append(str(Path(__file__).parents[1] / "experiments/faults"))
from toy_model import write_toy_model


def call(*arguments):
    return cli.call(watch.main, watch.define_flags, watch.__doc__, ["watch", *map(str, arguments)])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_toy_model(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture
def folder(tmp_path):
    images = [one.image for one in draw_patient(0, 900)][:3]
    for study in ("1", "2", "3"):
        write_series(tmp_path / "in" / study, images, study=study, patient="ZX-1", **ABOUT)
    return tmp_path / "in"


@pytest.fixture
def once(model, folder, tmp_path):
    """The flags of a watch that does what is there, and ends."""
    places = "--model", model, "--folder", folder, "--out", tmp_path / "out"
    return *places, "--still", 0, "--once"


def test_once_does_all_that_is_there(once, tmp_path, capsys):
    with peer() as (name, offered):
        assert call(*once, "--send", name) == 0
        assert len(offered) == 12
        assert (
            "waiting: 0, predicted: 0, done: 3, failed: 0; Research use" in capsys.readouterr().out
        )
        assert call(*once, "--send", name) == 0
        assert len(offered) == 12
    assert len((tmp_path / "out/log.jsonl").read_text().splitlines()) == 3


def test_what_failed_is_an_exit_code_until_it_is_tried_again(once, tmp_path, capsys):
    with peer(status=lambda uid: 0xC000) as (name, _):
        assert call(*once, "--send", name, "--attempts", 1) == 1
        assert "log.jsonl says what has failed" in capsys.readouterr().err
        assert call(*once, "--send", name) == 0  # nothing new
    with peer() as (name, offered):
        assert call(*once, "--send", name, "--retry_failed", "--calling_ae", "ME") == 0
        assert len(offered) == 12
    states = [json.loads(x)["state"] for x in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert states == ["failed"] * 3 + ["done"] * 3


def test_a_killed_watch_goes_on_and_a_signal_ends_it(model, folder, tmp_path):
    out = tmp_path / "out"

    def started(name):
        command = [sys.executable, "-m", "msa_flax.watch", "--model", model, "--folder", folder]
        command += ["--out", out, "--still", "0", "--send", name]
        with (tmp_path / "said").open("w") as said:
            process = subprocess.Popen(list(map(str, command)), stderr=said, stdout=said)
        return process

    def until(count):
        while (
            not (out / "log.jsonl").exists() or (out / "log.jsonl").read_text().count("\n") < count
        ):
            assert process.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.02)

    with peer() as (name, offered):
        process = started(name)
        until(1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = started(name)
        until(3)
        assert call("--model", model, "--folder", folder, "--out", out) == 2  # it is in use
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
        assert len(set(offered)) == 12
        assert len(offered) <= 13  # one whose arrival the killed process could not note
    assert "SIGTERM; run the same command again to continue" in (tmp_path / "said").read_text()
    studies = [json.loads(x)["study"] for x in (out / "log.jsonl").read_text().splitlines()]
    assert len(studies) == len(set(studies)) == 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--out", "in/out"], "--out: expected a folder outside of --folder"),
        (["--delete_images"], "--delete_images: expected --send or --stow"),
        (["--still", "nan"], "--still: expected a number from 0"),
        (["--attempts", "0"], "--attempts: expected a number from 1"),
    ],
)
def test_what_cannot_be_is_one_sentence(more, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    assert call("--model", "m", "--folder", "in", *more) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == [tmp_path / "in"]


@pytest.mark.parametrize("package", ["pynetdicom", "dicomweb_client", "highdicom"])
def test_a_missing_package_is_a_sentence_with_the_command(package, tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if re.match(r"msa_flax\.(archive|results\.)", name)]:
        monkeypatch.delitem(sys.modules, name)
    for name in {name for name in sys.modules if name.partition(".")[0] == package} | {package}:
        monkeypatch.setitem(sys.modules, name, None)
    assert call("--model", "m", "--folder", tmp_path, "--out", tmp_path.with_name("out")) == 2
    said = capsys.readouterr().err
    assert f"expected {package}" in said
    assert 'pip install "msa_flax[archive]"' in said
