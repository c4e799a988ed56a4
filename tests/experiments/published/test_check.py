"""The check of published metrics: what it says, what it refuses, and the tables beside it."""

import csv
import importlib
import pathlib
import subprocess
import sys

import check
import consistency
import printed_tables
import pytest

PUBLISHED = pathlib.Path(check.__file__).parent
TABLES = sorted(PUBLISHED.glob("*.csv"))
HEAVY = ("jax", "flax", "tensorflow", "matplotlib", "scipy", "sklearn", "cv2")


def table_row(name, table):
    (found,) = [row for row in printed_tables.read_table(PUBLISHED / table) if row.name == name]
    return found


def search_result(name, table):
    found = table_row(name, table)
    return consistency.search(found.printed, found.positives, found.negatives)


def matrices(result, tolerance):
    return {
        (averaging, tuple(matrix))
        for fit in result.fits
        if fit.tolerance == tolerance
        for averaging in fit.reading.averaging
        for matrix in fit.matrices.tolist()
    }


# --- the tables that are shipped ------------------------------------------------------------------


def test_paper_1s_test_row_is_one_false_positive_within_a_unit():
    found = search_result("MSA-CSpineNet, test set", "paper1_table4.csv")
    assert matrices(found, "rounded") == set()
    assert matrices(found, "one unit") == {("binary", (200, 0, 1, 199))}


def test_paper_1s_validation_row_is_an_average_over_the_classes():
    found = matrices(search_result("MSA-CSpineNet, validation set", "paper1_table4.csv"), "rounded")
    assert ("macro", (375, 5, 0, 380)) in found
    assert ("weighted", (375, 5, 0, 380)) in found
    assert not {averaging for averaging, _ in found} & {"binary"}


@pytest.mark.parametrize("name", ["ConvNext", "EfficientNet", "ResNet50"])
def test_paper_1s_baselines_fit_only_averaged_over_the_classes(name):
    found = search_result(name, "paper1_table5.csv")
    assert found.fits
    assert "binary" not in {a for fit in found.fits for a in fit.reading.averaging}


def test_paper_1s_own_row_beside_the_baselines_is_not_averaged():
    for name, table in (
        ("MSA-CSpineNet", "paper1_table5.csv"),
        ("MobileNet+MSA", "paper1_table6.csv"),
    ):
        assert matrices(search_result(name, table), "one unit") == {("binary", (200, 0, 1, 199))}


def test_no_row_of_paper_2_fits_under_any_reading():
    rows = printed_tables.read_table(PUBLISHED / "paper2_table1.csv")
    assert len(rows) == 6
    for row in rows:
        found = consistency.search(row.printed, row.positives, row.negatives)
        assert found.fits == ()
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
    module = importlib.import_module(experiment)
    for name, key in names.items():
        found = table_row(name, f"{table}.csv").printed
        values = {metric: consistency.parse(text, metric).value for metric, text in found.items()}
        assert values == pytest.approx(module.PAPER[key], abs=1e-12)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_shipped_table_is_checked(path, capsys):
    assert check.main([str(path)]) == 0
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
        return [str(path)]

    return write


def test_a_row_is_described_by_matrix_reading_and_tolerance(table, capsys):
    text = "name,positives,negatives,accuracy,precision,auc\n"
    text += "a,20,80,0.9300,0.8421,\nb,20,80,0.93,0.10,0.9\nc,3,3,1.0,,0.5\nd,4,4,0.55,,\n"
    assert check.main(table(text)) == 0
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
    assert check.main(table("name,positives,negatives,accuracy\na,200,200,0.90\n")) == 0
    out = capsys.readouterr().out
    rounded = out.splitlines()[1]
    assert rounded.count("TP ") == 4
    # 38 to 42 errors of 400, k of them shared out in k + 1 ways
    assert f"; {sum(k + 1 for k in range(38, 43)) - 4} more, any averaging" in rounded
    assert "auc" not in out


def test_a_table_may_come_from_a_spreadsheet(table, capsys):
    text = '\ufeff Name ,Positives,Negatives,Accuracy,MCC\r\n\r\n"a, b",2,2, 75 % ,\r\n,,,,\r\n'
    assert check.main(table(text)) == 0
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
    assert check.main(table(text)) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.csv"], "none.csv: expected a CSV file, got No such file or directory"),
        (["."], ".: expected a CSV file, got Is a directory"),
        ([str(TABLES[0]), "none.csv"], "none.csv: expected a CSV file"),
    ],
)
def test_a_missing_table_costs_one_sentence_and_exit_code_2(
    arguments, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert check.main(arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1


def test_without_arguments_all_tables_are_checked_each_under_its_name(capsys):
    assert check.main([]) == 0
    out = capsys.readouterr().out
    headings = [line for line in out.splitlines() if line.startswith("# ")]
    assert headings == [f"# {path.stem}" for path in TABLES]
    said = []
    for path in TABLES:
        check.main([str(path)])
        said.append(f"# {path.stem}\n{capsys.readouterr().out}")
    assert out == "".join(said)


# --- help, and what is imported -------------------------------------------------------------------


def run_script(*arguments):
    """Returns what the script prints in a process of its own, and the modules it has imported."""
    code = (
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        f"sys.argv = {['check.py', *arguments]!r}\n"
        f"sys.path.insert(0, {str(PUBLISHED)!r})\n"
        f"runpy.run_path({str(PUBLISHED / 'check.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout, set(done.stderr.split())


def test_checking_imports_no_framework():
    out, modules = run_script(str(PUBLISHED / "paper1_table4.csv"))
    assert "TP 200 FN 0 FP 1 TN 199" in out
    assert not modules & set(HEAVY)


def test_help_names_the_columns():
    out, _ = run_script("--help")
    assert "not a medical device" in out
    for column in printed_tables.COLUMNS:
        assert column in out
