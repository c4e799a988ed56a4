"""The report's section on whole studies, beside what is published."""

import csv
import json

import numpy as np
import pytest
from saved_runs import add_studies, write_run
from sklearn.metrics import roc_auc_score

from msa_flax.reporting import studies
from msa_flax.reporting.page import render_page
from msa_flax.reporting.saved import read_run

METRICS, TABLE = "eval/test/metrics.json", "eval/test/studies.csv"


@pytest.fixture
def folder(tmp_path):
    folder = write_run(tmp_path / "w", groups=12)
    add_studies(folder)
    return folder


def section(folder):
    return json.loads((folder / METRICS).read_text())["study"]


def test_what_evaluate_wrote_is_shown_and_differs_in_nothing(folder):
    run = read_run(folder, "test")
    assert run.differences == []
    assert run.metrics["study"] == section(folder)
    of_studies, of_levels, published = studies.tables(run)
    rows = list(csv.DictReader((folder / TABLE).read_text().splitlines()))
    label = [int(row["label"]) for row in rows]
    auc = roc_auc_score(label, np.array([row["probability"] for row in rows], np.float32))
    (shown,) = [row for row in of_studies.rows if row[0] == "AUC"]
    assert shown[1] == f"{auc:.4f}"
    assert shown[2].startswith("[")
    assert "24 studies of 24 patients, 12 of them 'fracture'" in of_studies.note
    assert "the greatest of its slices" in of_studies.note
    assert [row[0] for row in of_levels.rows] == ["C2", "C7"]
    assert of_levels.rows[1][1] == "undefined"
    assert "0.670 (0.309 to 0.800)" in [row[4] for row in published.rows]
    page = render_page(run)
    assert "Published: whole studies of patients" in page
    assert "have not been evaluated" not in page


def test_a_run_without_studies_says_how_to_evaluate_them(tmp_path):
    page = render_page(read_run(write_run(tmp_path / "w", groups=12), "test"))
    assert "Published:" not in page
    assert "Whole studies have not been evaluated." in page


@pytest.mark.parametrize("path", [("metrics", "auc", "value"), ("level_auc", "C2"), ("n",)])
def test_a_number_typed_into_metrics_json_is_named_and_not_shown(folder, path):
    before = section(folder)
    values = json.loads((folder / METRICS).read_text())
    inside = values["study"]
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = 1
    (folder / METRICS).write_text(json.dumps(values))
    run = read_run(folder, "test")
    assert [said.split(" (")[0] for said in run.differences] == [".".join(("study", *path))]
    assert run.metrics["study"] == before


def test_a_table_that_is_gone_or_another_one_is_said(folder):
    (folder / TABLE).unlink()
    assert "studies.csv is gone" in read_run(folder, "test").differences[0]
    (folder / TABLE).write_text("study,label\nS1,1\n")
    with pytest.raises(ValueError, match=r"studies\.csv: expected the columns study, patient"):
        read_run(folder, "test")


def test_every_published_row_has_a_source():
    table = studies.published()
    assert {len(row) for row in table.rows} == {len(table.head)}
    assert all(row[-1] for row in table.rows)
