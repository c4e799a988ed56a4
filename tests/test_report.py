"""The command: what it writes, refuses and imports, and that its commands repeat the run."""

import dataclasses
import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
from prediction_tables import mostly_right
from saved_runs import write_run

from msa_flax import cli, report, train
from msa_flax.config import Config, quickstart
from msa_flax.evaluation import metrics_json
from msa_flax.files import write_json
from msa_flax.reporting.saved import read_run


def call(*arguments):
    return cli.call(
        report.main, report.define_flags, report.__doc__, ["report", *map(str, arguments)]
    )


@pytest.fixture
def workdir(tmp_path):
    return write_run(tmp_path / "w")


def test_the_page_is_written_into_the_workdir_or_elsewhere(workdir, tmp_path, capsys):
    assert call("--workdir", workdir) == 0
    assert call("--workdir", workdir, "--out", tmp_path / "new" / "page.html") == 0
    first, second = workdir / "report.html", tmp_path / "new" / "page.html"
    assert first.read_bytes() == second.read_bytes()
    assert first.read_text().startswith("<!DOCTYPE html>")
    assert str(second) in capsys.readouterr().out


def test_further_runs_are_given_in_any_usual_way(workdir, tmp_path):
    other = write_run(tmp_path / "w2", mostly_right(seed=1), name="other")
    pages = []
    for arguments in (
        ["--workdir", workdir, other],
        ["--workdir", workdir, "--workdir", other],
        [f"--workdir={workdir},{other}"],
        [workdir, other],
    ):
        assert call(*arguments, "--out", tmp_path / "page.html") == 0
        pages.append((tmp_path / "page.html").read_bytes())
    assert len(set(pages)) == 1
    assert b"Comparison of runs" in pages[0]


def test_a_workdir_may_have_a_comma_in_its_name(tmp_path):
    assert call("--workdir", write_run(tmp_path / "a,b")) == 0


def test_a_file_name_that_is_no_text_does_not_stop_the_report(tmp_path):
    assert (
        call(
            "--workdir",
            write_run(tmp_path / "w", mostly_right(ids={0: "caf\udce9"}), explained=[0]),
        )
        == 0
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--workdir"),
        (["--workdir=nothing"], "without config.json"),
        (["--workdir=w", "--split=train"], "split"),
        (["--workdir=w", "--split=../test"], "--split: expected"),
        (["--workdir=w", "--split=clinic"], "--workdir w --data_root DIR --external clinic"),
        (["--workdir=w", "--split=validation"], "msa_flax.evaluate --workdir w --split validation"),
        (["--workdir=w", "--bogus"], "bogus"),
        (["--workdir=w", "nothing"], "'nothing' without config.json"),
        (["--workdir=w", "--out=w"], "cannot be written"),
        (["--workdir=w", "--out=w/config.json"], "w/config.json, which is another file"),
        (["--workdir=w", "--out="], "--out: expected a value"),
    ],
)
def test_bad_usage_is_one_sentence(workdir, arguments, said, capsys, monkeypatch):
    monkeypatch.chdir(workdir.parent)
    before = sorted(workdir.rglob("*"))
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    # Beside the sentence, it is said that this run, which has no hashes, cannot be checked.
    lines = error.strip().splitlines()
    assert len([line for line in lines if "cannot be checked" not in line]) == 1
    assert sorted(workdir.rglob("*")) == before


def test_an_external_set_has_a_report_of_its_own(workdir):
    table = mostly_right(n=60, ids={0: "elsewhere"})
    table = dataclasses.replace(table, split=np.full(60, "clinic_b"))
    folder = workdir / "eval/clinic_b"
    table.write(folder / "predictions.csv")
    values = metrics_json(table, split="clinic_b", threshold=0.5, stamps=["a stamp"], seconds=1.0)
    write_json(folder / "metrics.json", values | {"root": "/data/clinic b.csv"})
    assert call("--workdir", workdir, "--split", "clinic_b") == 0
    page = (workdir / "report-clinic_b.html").read_text()
    assert not (workdir / "report.html").exists()
    for said in ("/data/clinic b.csv", "a stamp", "60 images of clinic_b", "External"):
        assert said in page
    commands = dict(report.commands(read_run(workdir, "clinic_b")))
    assert commands["Evaluate"].endswith("--manifest '/data/clinic b.csv' --external clinic_b")
    assert "Explain" not in commands


def test_it_needs_no_model(workdir):
    code = (
        "import sys; from pathlib import Path; from msa_flax import report;"
        f"report.report([Path({str(workdir)!r})], Path({str(workdir / 'x.html')!r}), split='test');"
        "heavy = {'jax', 'flax', 'tensorflow', 'matplotlib', 'plotly.graph_objects'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_commands_repeat_the_run(workdir, monkeypatch):
    config = quickstart()
    config.name = "it's a 'name' with spaces"
    config.model.kernel_sizes = (3, 5)
    config.data.allow_leakage = True
    config.data.family_pattern = ""
    config.optim.learning_rate = 3e-4
    path = workdir / "config.json"
    path.write_text(json.dumps({"schema_version": 1, "config": config.to_dict()}))
    command = dict(report.commands(read_run(workdir, "test")))["Train"]
    python, module, name, *arguments = shlex.split(command)
    assert (python, module, name) == ("python", "-m", "msa_flax.train")
    seen = []
    code = cli.call(seen.append, train.define_flags, "doc", ["train", *arguments])
    assert code == 0
    assert seen[0].config.to_dict() == config.to_dict()


def test_a_configuration_of_another_version_has_no_command(workdir):
    values = Config().to_dict() | {"unheard_of": 1}
    (workdir / "config.json").write_text(json.dumps({"config": values}))
    assert report.commands(read_run(workdir, "test")) == []
    assert call("--workdir", workdir, "--accept_changes") == 0
