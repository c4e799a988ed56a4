"""What cannot be reported costs one sentence that says what to do."""

import json
import re
import shutil

import pytest
from saved_runs import RUN, write_run

from msa_flax.evaluation import Predictions, PredictionsError
from msa_flax.files import csv_rows, csv_text
from msa_flax.reporting.page import render_page
from msa_flax.reporting.saved import ReportError, read_run


def test_a_workdir_is_read_as_it_was_written(saved, run):
    assert (run.name, run.classes, run.threshold) == ("toy", ("normal", "fracture"), 0.5)
    assert run.sizes == {"train": 180, "validation": 0, "test": 120}
    assert len(run.explained) == 40
    assert len(run.history) == 4
    assert run.metrics == json.loads((saved / "eval/test/metrics.json").read_text())
    counts = {key: int((run.outcome == key).sum()) for key in ("tp", "fn", "fp", "tn")}
    assert counts == run.metrics["confusion"]


def test_what_is_optional_may_be_missing(tmp_path):
    folder = write_run(tmp_path / "w")
    for name in ("run.json", "metrics.jsonl"):
        (folder / name).unlink()
    run = read_run(folder, "test")
    assert (run.run, run.history, run.audit, run.explained) == ({}, [], {}, [])


def test_errors_that_were_explained_on_their_own_are_read_too(tmp_path):
    """As the command of the gallery leaves them: a folder beside that of train and explain."""
    folder = write_run(tmp_path / "w", explained=[0, 1])
    shutil.copytree(folder / "eval/test/explanations", folder / "eval/test/errors")
    run = read_run(folder, "test")
    assert [item.row for item in run.explained] == [0, 1, 0, 1]
    assert [item.folder.name for item in run.explained] == ["explanations"] * 2 + ["errors"] * 2


def without(name):
    return lambda folder: (folder / name).unlink()


def holding(name, text):
    return lambda folder: (folder / name).write_text(text)


def _no_threshold(folder):
    path = folder / "eval/test/metrics.json"
    values = json.loads(path.read_text())
    del values["threshold"]
    path.write_text(json.dumps(values))


def _other_confusion(folder):
    path = folder / "eval/test/metrics.json"
    values = json.loads(path.read_text())
    values["confusion"]["tp"] += 1
    path.write_text(json.dumps(values))


def _foreign_ids(folder):
    path = folder / "splits.csv"
    path.write_text(path.read_text().replace("img 0007.png", "another.png"))


def _another_split(folder):
    path = folder / "splits.csv"
    path.write_text(path.read_text().replace("img 0007.png,test", "img 0007.png,train"))


def _foreign_explanations(folder):
    path = folder / "eval/test/explanations/explanations.csv"
    path.write_text(path.read_text().replace("img 0000.png", "another.png"))


def _explanations_of_another_checkpoint(folder):
    path = folder / "eval/test/explanations/explanations.csv"
    head, first, *rest = path.read_text().splitlines()
    cells = first.split(",")
    assert head.split(",")[2] == "probability"
    cells[2] = str(abs(float(cells[2]) - 0.02))
    path.write_text("\n".join([head, ",".join(cells), *rest]))


def _a_stem_that_leaves_the_folder(folder):
    path = folder / "eval/test/explanations/explanations.csv"
    text = path.read_text().splitlines()
    cells = text[1].split(",")
    path.write_text("\n".join([text[0], ",".join([*cells[:-1], "../../secret"]), *text[2:]]))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without("config.json"), "without config.json"),
        (without("eval/test/metrics.json"), "run python -m msa_flax.evaluate --workdir"),
        (without("splits.csv"), "splits.csv: expected a table"),
        (holding("eval/test/metrics.json", ""), "got an empty file"),
        (holding("eval/test/metrics.json", "{"), "expected JSON"),
        (holding("eval/test/metrics.json", "[]"), "expected a JSON object, got list"),
        (holding("audit/audit.json", "{"), "audit.json: expected JSON"),
        (holding("splits.csv", ""), "got an empty file"),
        (holding("splits.csv", "example_id,fold\na,\n"), "got no split"),
        (holding("metrics.jsonl", '{"epoch": 1}\n{"epo'), "expected JSON in line 2"),
        (_no_threshold, "expected a number as threshold, got nothing"),
        (_other_confusion, "evaluate again"),
        (_foreign_ids, "1 of them not among these: predictions of another run"),
        (_another_split, "expected the 119 images"),
        (_foreign_explanations, "explanations of another run"),
        (_explanations_of_another_checkpoint, "explanations of another checkpoint"),
        (_a_stem_that_leaves_the_folder, "explanations of another run"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(tmp_path, damage, said):
    folder = write_run(tmp_path / "w", explained=[0, 1], audit=True)
    damage(folder)
    with pytest.raises(ReportError, match=re.escape(said)) as caught:
        read_run(folder, "test")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def _cells(change):
    """Damages predictions.csv: ``change`` takes the header and the rows of cells."""

    def damage(folder):
        path = folder / "eval/test/predictions.csv"
        header, *rows = csv_rows(path)
        change(header, rows)
        path.write_text(csv_text(header, rows))

    return damage


def _swap_ids(header, rows):
    rows[0][0], rows[1][0] = rows[1][0], rows[0][0]


def _set(column, value, rows=slice(None)):
    def change(header, found):
        for row in found[rows]:
            row[header.index(column)] = value

    return _cells(change)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cells(_swap_ids), "whose ids, groups, families, labels or values were changed"),
        (_set("group", "G1"), "whose ids, groups, families"),
        (_set("family", "F1", slice(1)), "whose ids, groups, families"),
        (_set("split", "train", slice(1)), "expected split 'test'"),
        (_set("logit", "7", slice(1)), "the probability that belongs to the logit"),
        (_cells(lambda header, rows: rows.pop()), "expected the 120 images"),
    ],
)
def test_predictions_that_were_edited_are_refused(tmp_path, damage, said):
    folder = write_run(tmp_path / "w")
    path = folder / "eval/test/metrics.json"
    values = json.loads(path.read_text())
    values["predictions_sha256"] = Predictions.read(folder / "eval/test/predictions.csv").digest()
    path.write_text(json.dumps(values))
    read_run(folder, "test")
    damage(folder)
    with pytest.raises(ReportError, match=re.escape(said)) as caught:
        read_run(folder, "test")
    assert "predictions.csv" in str(caught.value)


def test_numbers_typed_into_metrics_json_are_named_and_not_shown(tmp_path):
    folder = write_run(tmp_path / "w", stamps=["series cross the split"])
    (folder / "run.json").write_text(json.dumps(RUN | {"stamps": ["series cross the split"]}))
    before = read_run(folder, "test")
    assert before.differences == []
    path = folder / "eval/test/metrics.json"
    values = json.loads(path.read_text())
    values["metrics"]["auc"] |= {"value": 0.9999, "low": 0.999, "high": 1.0}
    values["stamps"] = []
    path.write_text(json.dumps(values))
    run = read_run(folder, "test")
    assert [text.split()[0] for text in run.differences] == [
        "metrics.auc.value",
        "metrics.auc.low",
        "metrics.auc.high",
        "the",
    ]
    assert run.metrics["metrics"] == before.metrics["metrics"]
    assert run.metrics["stamps"] == ["series cross the split"]
    page = render_page(run)
    assert "saved results were changed" in page
    assert "0.9999 in metrics.json" in page


@pytest.mark.parametrize(
    "name", ["config.json", "run.json", "eval/test/metrics.json", "audit/audit.json"]
)
def test_a_newer_schema_is_refused_wherever_it_is(tmp_path, name):
    folder = write_run(tmp_path / "w", audit=True)
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(values | {"schema_version": 99}))
    with pytest.raises(ReportError, match="expected schema_version 1, got 99") as caught:
        read_run(folder, "test")
    assert name.rpartition("/")[2] in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"), [("threshold", "x"), ("confusion", 3), ("stamps", None), ("metrics", [1])]
)
def test_metrics_of_another_form_are_refused_by_name(tmp_path, key, value):
    folder = write_run(tmp_path / "w")
    path = folder / "eval/test/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ReportError, match=rf"metrics\.json: expected .* as {key}"):
        read_run(folder, "test")


@pytest.mark.parametrize("text", ["", "example_id,label\n"])
def test_a_table_without_predictions_is_refused_as_everywhere(tmp_path, text):
    folder = write_run(tmp_path / "w")
    (folder / "eval/test/predictions.csv").write_text(text)
    with pytest.raises(PredictionsError, match=r"predictions\.csv"):
        read_run(folder, "test")
