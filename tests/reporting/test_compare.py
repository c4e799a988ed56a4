"""The paired comparison: as a command, as a table of the page, and what it refuses."""

import csv
import subprocess
import sys

import pytest

from msa_flax import cli, report
from msa_flax.evaluation import compare
from msa_flax.reporting import page, points, read, tables


def call(*arguments):
    return cli.call(
        report.main, report.define_flags, report.__doc__, ["report", *map(str, arguments)]
    )


@pytest.fixture
def folders(write, table, tmp_path, monkeypatch):
    """Three runs on the same images, "a", "b" and "c", the last much the best; b leaks."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a", table(seed=0), name="first")
    write(tmp_path / "b", table(seed=1), name="second", stamps=["copies cross the split"])
    write(tmp_path / "c", table(seed=2, spread=0.3), name="third", threshold=0.4)
    return tmp_path


@pytest.fixture
def others(folders, write, table):
    """And two that cannot be compared with these."""
    write(folders / "fewer", table(n=90))
    write(folders / "relabelled", table(label=1))
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
        for value in (row["first_value"], row["second_value"], abs(float(row["difference"]))):
            assert points.shown(value) in line
        limits = {key: float(row[key]) for key in ("low", "high")}
        assert points.interval(limits) in line
        assert f"  {tables._p_value(float(row['p']))}  " in line
    assert f"the {len(written)} tests of this table as one family" in " ".join(lines)
    assert not (folders / "a" / "report.html").exists()


def test_the_numbers_are_those_of_the_runs_own_thresholds(folders):
    assert call("--compare", "a", "c") == 0
    for row in rows(folders / "a" / "compare-test.csv"):
        for side, folder in (("first_value", "a"), ("second_value", "c")):
            metrics = read(folders / folder, "test").metrics["metrics"]
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
        (["a", "relabelled"], "of which 60 are among them with the same label"),
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
        "report.compare([Path('a'), Path('b')], Path('x.csv'));"
        "heavy = {'jax', 'flax', 'tensorflow', 'matplotlib', 'plotly'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_page_has_the_same_table(folders):
    runs = {name: read(folders / folder, "test") for name, folder in zip("xyz", "abc", strict=True)}
    beside, paired, *_ = tables.comparison(runs)
    assert beside.title == "Metrics side by side"
    found = compare.compare_runs({n: (r.predictions, r.threshold) for n, r in runs.items()})
    assert paired == tables.paired(found)
    text = page(runs["x"], [runs["y"], runs["z"]])
    section = text[text.index('<section id="comparison"') : text.index('<section id="origin"')]
    assert 'role="region" aria-label="Table: Paired differences"' in section
    assert '<th scope="col">p, Holm</th>' in section
    for row in found:
        name = {"y": "second", "z": "third"}[row.second]
        assert f'<th scope="row">{name}: {tables._name(row.metric)}</th>' in section
        limits = points.interval({"low": row.low, "high": row.high})
        for cell in (tables._signed(row.difference), limits, tables._p_value(row.p_holm)):
            assert f'<td class="number">{cell}</td>' in section


def paired(table, **options):
    runs = {"a": (table(seed=0, **options), 0.5), "b": (table(seed=1, **options), 0.5)}
    return tables.paired(compare.compare_runs(runs))


def test_what_is_missing_has_its_reason_and_methods_are_explained(table):
    known, few, unknown = (paired(table, groups=groups) for groups in (12, 9, 0))
    assert "120 images; groups: 12." in known.note
    assert "flips of groups: exact" in known.note
    assert "independent" not in known.note
    assert "No group is known: images are taken as independent" in unknown.note
    assert "mcnemar: McNemar's exact test" in unknown.note
    losses = [row for row in unknown.rows if "loss" in row[0] or "Brier" in row[0]]
    assert {row[-1].split(" there")[0] for row in losses} == {"without groups"}
    assert {row[4] for row in few.rows} == {"none"}
    assert all("9 groups; a clustered interval needs 10" in row[-1] for row in few.rows)


def test_images_of_one_class_have_undefined_differences(table):
    shown = {row[0]: row for row in paired(table, label=1).rows}
    assert shown["b: AUC"][1:5] == ["undefined", "undefined", "undefined", "none"]
    assert shown["b: Specificity"][-1] == "there is no normal image among the images"


def test_numbers_that_round_to_0_have_no_sign_and_small_p_values_their_size():
    signed = [tables._signed(value) for value in (0.0, -1e-6, 0.01, -0.01, None)]
    assert signed == ["0.0000", "0.0000", "+0.0100", "-0.0100", "undefined"]
    assert [tables._p_value(p) for p in (None, 1.0, 0.04, 2e-9)] == (
        ["none", "1.0000", "0.0400", "2.0e-09"]
    )
