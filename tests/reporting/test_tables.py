"""The tables of a report say what the files say, or why they say nothing."""

import dataclasses

from msa_flax.reporting import tables
from msa_flax.reporting.text import shown


def rows_of(table):
    return {name: list(cells) for name, *cells in table.rows}


def test_a_number_without_an_interval_says_why(run):
    metrics = run.metrics["metrics"] | {
        "auc": {
            "value": 0.9,
            "low": None,
            "high": None,
            "method": "none",
            "interval_reason": "fewer than ten groups",
        },
        "new_metric": {"value": None, "low": None, "high": None, "reason": "nothing was called"},
    }
    changed = dataclasses.replace(run, metrics=run.metrics | {"metrics": metrics})
    rows = rows_of(tables.main_metrics(changed))
    assert rows["AUC"] == ["0.9000", "none", "", "unknown", "fewer than ten groups"]
    assert rows["New metric"] == ["undefined", "none", "", "unknown", "nothing was called"]
    assert list(rows)[-1] == "New metric"  # those of the paper come first, unknown ones last


def test_every_group_has_a_row(run):
    rows = rows_of(tables.groups(run))
    assert list(rows) == sorted(set(run.predictions.group.tolist()))
    for group, cells in rows.items():
        found = run.metrics["by_group"][group]
        counts = [str(found["confusion"][key]) for key in ("tp", "fn", "fp", "tn")]
        assert cells[:2] == ["10", "5"]  # images, and fractures among them
        assert cells[2:6] == counts
        values = [shown(found["metrics"][key], 3) for key in ("accuracy", "recall", "specificity")]
        assert cells[6:9] == values


def test_a_group_without_a_class_has_undefined_numbers(run):
    one_class = dataclasses.replace(run.predictions, label=run.predictions.label * 0)
    rows = rows_of(tables.groups(dataclasses.replace(run, predictions=one_class)))
    assert {cells[7] for cells in rows.values()} == {"undefined"}  # recall


def test_a_model_below_the_best_shortcut_adds_nothing(run):
    better = [{"rung": "x", "test": {"accuracy": 1.0, "auc": 1.0, "n": 120}}]
    audit = {**run.audit, "ladder": better}
    assert "it adds nothing" in tables.beside_shortcuts(dataclasses.replace(run, audit=audit))


def test_the_ladder_ends_with_the_model(run):
    ladder = tables.ladder(run)
    *shortcuts, model, gain = ladder.rows
    assert [row[0] for row in shortcuts] == ["majority class", "slice position"]
    accuracy = run.metrics["metrics"]["accuracy"]["value"]
    assert model[:2] == ["the model", f"{accuracy:.3f}"]
    assert gain[1] == f"{accuracy - 0.625:+.3f}"
    silent = dataclasses.replace(run, audit={})
    assert tables.ladder(silent) is None
    assert tables.beside_shortcuts(silent) == ""


def test_configuration_and_origin_are_listed_without_the_files_that_were_left_out(run):
    assert rows_of(tables.configuration(run))["model.kernel_sizes"] == ["3, 5"]
    bad = {"bad_files": [["a.png", "no image"]]}
    origin = rows_of(tables.origin(dataclasses.replace(run, run=run.run | bad)))
    assert origin["versions.jax"] == ["0.10"]
    assert origin["files left out"] == ["1"]
    assert "bad_files" not in origin
