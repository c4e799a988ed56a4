"""report --compare: what it prints, writes and refuses."""

import csv
import subprocess
import sys

import pytest
from prediction_tables import mostly_right
from saved_runs import write_run

from msa_flax import cli, report
from msa_flax.evaluation import compare
from msa_flax.reporting.comparison import _p_value
from msa_flax.reporting.saved import read_run
from msa_flax.reporting.text import interval, shown


def call(*arguments):
    return cli.call(
        report.main, report.define_flags, report.__doc__, ["report", *map(str, arguments)]
    )


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Three runs on the same images, "a", "b" and "c", the last much the best; b leaks."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", mostly_right(seed=0), name="first")
    write_run(
        tmp_path / "b", mostly_right(seed=1), name="second", stamps=["copies cross the split"]
    )
    write_run(tmp_path / "c", mostly_right(seed=2, spread=0.3), name="third", threshold=0.4)
    return tmp_path


@pytest.fixture
def others(folders):
    """And two that cannot be compared with these."""
    write_run(folders / "fewer", mostly_right(n=90))
    write_run(folders / "relabelled", mostly_right(label=1))
    return folders


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_prints_and_writes_the_paired_comparison(folders):
    command = [sys.executable, "-m", "msa_flax.report", "--compare", "a", "b", "c"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "not a medical device" in done.stdout
    assert "a/compare-test.csv: 3 runs" in done.stdout
    assert "stamp: b: copies cross the split" in done.stdout
    written = rows(folders / "a" / "compare-test.csv")
    assert [(row["first"], row["second"]) for row in written] == [
        ("a", other) for other in "bc" for _ in compare.METRICS
    ]
    lines = done.stdout.splitlines()
    assert lines[0].split("  ")[0] == "Run and metric"
    for row, line in zip(written, lines[2:], strict=False):
        assert line.startswith(f"{row['second']}: ")
        for value in (row["first_value"], row["second_value"], row["difference"]):
            assert shown(abs(float(value))) in line
        limits = {key: float(row[key]) for key in ("low", "high")}
        assert interval(limits) in line
        assert f"  {_p_value(float(row['p']))}  " in line
    assert f"the {len(written)} tests of this table as one family" in " ".join(lines)
    assert not (folders / "a" / "report.html").exists()


def test_the_numbers_are_those_of_the_runs_own_thresholds(folders):
    assert call("--compare", "a", "c") == 0
    for row in rows(folders / "a" / "compare-test.csv"):
        for side, folder in (("first_value", "a"), ("second_value", "c")):
            metrics = read_run(folders / folder, "test").metrics["metrics"]
            assert float(row[side]) == metrics[row["metric"]]["value"]


def test_runs_are_given_in_any_usual_way_and_the_table_is_written_elsewhere(folders):
    texts = set()
    for arguments in (["--compare", "a", "b"], ["a", "b", "--compare"], ["--workdir=a,b"]):
        assert call(*arguments, "--compare", "--out", "new/table.csv") == 0
        texts.add((folders / "new" / "table.csv").read_bytes())
    assert len(texts) == 1
    assert not (folders / "a" / "compare-test.csv").exists()


def test_an_earlier_comparison_is_replaced_and_another_file_is_not(folders, capsys):
    assert call("--compare", "a", "b") == 0
    assert call("--compare", "a", "c") == 0
    path = folders / "a" / "compare-test.csv"
    assert {row["second"] for row in rows(path)} == {"c"}
    path.write_text("my notes")
    assert call("--compare", "a", "b") == 2
    assert "another file" in capsys.readouterr().err
    assert path.read_text() == "my notes"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a"], "expected two or more runs, each once, got a"),
        (["a", "b", "./a"], "each once, got a, b, a"),
        ([], "--workdir: expected the folder of a run"),
        (["a", "none"], "'none' without config.json"),
        (["a", "b", "--split=validation"], "msa_flax.evaluate --workdir a --split validation"),
        (["a", "fewer"], "expected the 120 images of a, got 90"),
        (
            ["a", "relabelled"],
            "relabelled: expected the labels of a, got other labels of 60 images",
        ),
        (["a", "b", "--out=a"], "cannot be written"),
    ],
)
def test_bad_usage_is_one_sentence(others, arguments, said, capsys):
    before = sorted(others.rglob("*"))
    assert call("--compare", *arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""
    assert sorted(others.rglob("*")) == before


def test_it_needs_no_model_and_no_page(folders):
    code = (
        "import sys; from pathlib import Path; from msa_flax import report;"
        "report.compare([Path('a'), Path('b')], Path('x.csv'), split='test');"
        "heavy = {'jax', 'flax', 'tensorflow', 'matplotlib', 'plotly'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
