"""The command that checks published metrics: what it says, what it refuses, what it ships."""

import csv
import importlib.util
import pathlib
import subprocess
import sys

import pytest

from msa_flax import cli, report
from msa_flax.evaluation import consistency, published

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
TABLES = sorted((EXPERIMENTS / "published").glob("*.csv"))
HEAVY = ("jax", "flax", "tensorflow", "matplotlib", "scipy", "sklearn", "cv2")


def call(*arguments):
    return cli.call(report.main, report.define_flags, report.__doc__, ["report", *arguments])


def row(name, table):
    (found,) = [
        row for row in published.read(EXPERIMENTS / "published" / table) if row.name == name
    ]
    return found


def verdict(name, table):
    found = row(name, table)
    return consistency.check(found.printed, found.positives, found.negatives)


def matrices(verdict, tolerance):
    return {
        (averaging, tuple(matrix))
        for reading in verdict.readings
        if reading.tolerance == tolerance
        for averaging in reading.way.averaging
        for matrix in reading.matrices.tolist()
    }


# --- the tables that are shipped ------------------------------------------------------------------


def test_paper_1s_test_row_is_one_false_positive_within_a_unit():
    found = verdict("MSA-CSpineNet, test set", "paper1_table4.csv")
    assert matrices(found, "rounded") == set()
    assert matrices(found, "one unit") == {("binary", (200, 0, 1, 199))}


def test_paper_1s_validation_row_is_an_average_over_the_classes():
    found = matrices(verdict("MSA-CSpineNet, validation set", "paper1_table4.csv"), "rounded")
    assert ("macro", (375, 5, 0, 380)) in found
    assert ("weighted", (375, 5, 0, 380)) in found
    assert not {averaging for averaging, _ in found} & {"binary"}


@pytest.mark.parametrize("name", ["ConvNext", "EfficientNet", "ResNet50"])
def test_paper_1s_baselines_fit_only_averaged_over_the_classes(name):
    found = verdict(name, "paper1_table5.csv")
    assert found.readings
    assert "binary" not in {a for reading in found.readings for a in reading.way.averaging}


def test_paper_1s_own_row_beside_the_baselines_is_not_averaged():
    for name, table in (
        ("MSA-CSpineNet", "paper1_table5.csv"),
        ("MobileNet+MSA", "paper1_table6.csv"),
    ):
        assert matrices(verdict(name, table), "one unit") == {("binary", (200, 0, 1, 199))}


def test_no_row_of_paper_2_fits_under_any_reading():
    rows = published.read(EXPERIMENTS / "published" / "paper2_table1.csv")
    assert len(rows) == 6
    for row in rows:
        found = consistency.check(row.printed, row.positives, row.negatives)
        assert found.readings == ()
        assert "accuracy" in found.nearest.contradictions
        impossible = row.printed["accuracy"] == "97.45" and row.positives == 200
        assert found.impossible == (("accuracy",) if impossible else ())


@pytest.mark.parametrize(
    ("table", "experiment", "names"),
    [
        ("paper1_table4", "paper1_table4", {"MSA-CSpineNet, test set": "msa"}),
        (
            "paper1_table5",
            "paper1_table5",
            {
                "ConvNext": "convnext_tiny",
                "EfficientNet": "efficientnet_b0",
                "ResNet50": "resnet50",
                "MSA-CSpineNet": "msa",
            },
        ),
        ("paper1_table6", "paper1_table6", {"MobileNetV2": "mobilenet_v2", "MobileNet+MSA": "msa"}),
        (
            "paper2_table1",
            "paper2_table1",
            {
                f"{name}, {folder} folder": key
                for folder in ("validation", "training")
                for name, key in {
                    "MobileNet": "mobilenet_v2",
                    "ResNet": "resnet50",
                    "ConvNeXt": "convnext_tiny",
                }.items()
            },
        ),
    ],
)
def test_the_tables_hold_the_numbers_that_the_experiments_claim(table, experiment, names):
    path = EXPERIMENTS / f"{experiment}.py"
    spec = importlib.util.spec_from_file_location(experiment, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, key in names.items():
        found = row(name, f"{table}.csv").printed
        values = {metric: consistency.parse(text, metric).value for metric, text in found.items()}
        assert values == pytest.approx(module.PAPER[key], abs=1e-12)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_shipped_table_is_checked(path, capsys):
    assert call(f"--check={path}") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    with path.open(newline="") as lines:
        for row in csv.DictReader(lines):
            counts = f"{row['name']} ({row['positives']} + {row['negatives']} images)"
            assert printed.out.count(counts) == 1
    assert len(TABLES) == 5


# --- what the command says ------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """Writes a table and returns the command's argument."""

    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return f"--check={path}"

    return write


def test_a_verdict_says_matrix_reading_and_tolerance(table, capsys):
    text = "name,positives,negatives,accuracy,precision,auc\n"
    text += "a,20,80,0.9300,0.8421,\nb,20,80,0.93,0.10,0.9\nc,3,3,1.0,,0.5\nd,4,4,0.55,,\n"
    assert call(table(text)) == 0
    out = capsys.readouterr().out.splitlines()
    assert "a (20 + 80 images)" in out
    assert "  fits: TP 16 FN 4 FP 3 TN 77, binary, positive = first class, rounded" in out
    none = out[out.index("b (20 + 80 images)") + 1]
    assert none.startswith("  no confusion matrix fits; nearest: TP ")
    assert none.endswith("has accuracy 0.73 (printed 0.93)")
    assert "  fits: TP 3 FN 0 FP 0 TN 3, any averaging, positive = either class, rounded" in out
    assert "  no confusion matrix of these counts has accuracy 0.55, whatever the rest" in out
    assert "auc: not checked, no confusion matrix tells it." in out[-1]
    assert "A mean over folds or runs is not a confusion matrix" in out[-1]


def test_many_matrices_are_counted_and_four_are_shown(table, capsys):
    assert call(table("name,positives,negatives,accuracy\na,200,200,0.90\n")) == 0
    out = capsys.readouterr().out
    rounded = out.splitlines()[1]
    assert rounded.count("TP ") == 4
    # 38 to 42 errors of 400, k of them shared out in k + 1 ways
    assert f"; {sum(k + 1 for k in range(38, 43)) - 4} more, any averaging" in rounded
    assert "auc" not in out


def test_a_table_may_come_from_a_spreadsheet(table, capsys):
    text = '\ufeff Name ,Positives,Negatives,Accuracy,MCC\r\n\r\n"a, b",2,2, 75 % ,\r\n,,,,\r\n'
    assert call(table(text)) == 0
    assert "a, b (2 + 2 images)" in capsys.readouterr().out


HEADER = "name,positives,negatives,accuracy,auc\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected the columns name, positives, negatives, accuracy"),
        ("\n \n", "got nothing"),
        (HEADER, "expected a row below the header, got none"),
        ("name,positives,negatives,kappa\na,2,2,0.5\n", "unknown column 'kappa'; known are name"),
        ("name;positives;negatives\n", "unknown column 'name;positives;negatives'"),
        ("name,positives,negatives,f1,F1\na,2,2,1,1\n", "column 'f1' is there twice"),
        ("name,positives,accuracy\na,2,1\n", "no column 'negatives'"),
        (HEADER + "a,2,2,high,\n", "line 2: accuracy: expected a number as printed"),
        (HEADER + "a,2,2,0.5,\nb,2,2,101,\n", "line 3: accuracy: expected 0 to 1 or, in per cent"),
        (HEADER + "a,2,2,-0.5,\n", "got '-0.5'"),
        (HEADER + "a,2,2,0.5,x\n", "line 2: auc: expected a number as printed"),
        (HEADER + "a,,2,0.5,\n", "line 2: positives: expected the number of images"),
        (
            HEADER + "a,2,2.5,0.5,\n",
            "negatives: expected the number of images, 1 to 100000; got '2.5'",
        ),
        (HEADER + "a,0,2,0.5,\n", "got '0'"),
        (HEADER + "a,2,1000000,0.5,\n", "got '1000000'"),
        (HEADER + "a,2,\N{SUPERSCRIPT TWO},0.5,\n", "negatives: expected"),
        (HEADER + "a,2,2,,\n", "line 2: expected a metric that can be checked: accuracy"),
        (HEADER + "a,2,2,,0.9\n", "line 2: expected a metric that can be checked: accuracy"),
        (HEADER + ",2,2,0.5,\n", "line 2: name: expected"),
        (HEADER + "a,2,2\n", "line 2: expected 5 cells, got 3"),
        (HEADER + "a,2,2,0,99,\n", "line 2: expected 5 cells, got 6"),
        (HEADER + '"a,2,2,0.5,\n', "expected a CSV file in UTF-8"),
        (b"\xff\xfe\x00", "expected a CSV file in UTF-8"),
    ],
)
def test_a_bad_table_costs_one_sentence_and_exit_code_2(text, said, table, capsys):
    assert call(table(text)) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--workdir: expected the folder of a run, or --check a table, got nothing"),
        (["--check="], "--check: expected a table, got nothing"),
        (["--check=none.csv"], "none.csv: expected a CSV file, got No such file or directory"),
        (["--check=."], ".: expected a CSV file, got Is a directory"),
        (["--check=none.csv", "more.csv"], "unexpected argument 'more.csv'"),
        (["--bogus"], "bogus"),
    ],
)
def test_bad_usage_costs_one_sentence_and_exit_code_2(
    arguments, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


# --- help, and what is imported -------------------------------------------------------------------


def imported(*arguments):
    """Returns the exit code and what a new process has imported after the command."""
    code = (
        "import sys\nfrom msa_flax import cli, report as r\n"
        f"code = cli.call(r.main, r.define_flags, r.__doc__, {['report', *arguments]!r})\n"
        "print(code, *sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    code, *modules = done.stderr.split()
    return int(code), set(modules), done.stdout


def test_checking_imports_no_framework():
    code, modules, out = imported(f"--check={EXPERIMENTS / 'published/paper1_table4.csv'}")
    assert code == 0
    assert "TP 200 FN 0 FP 1 TN 199" in out
    assert not modules & set(HEAVY)


def test_help_names_the_columns_and_imports_not_even_the_check():
    code, modules, out = imported("--help")
    assert code == 0
    assert "not a medical device" in out
    for column in published.COLUMNS:
        assert column in out
    assert not modules & {*HEAVY, "msa_flax.evaluation"}
