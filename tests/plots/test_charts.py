"""Charts are valid Plotly figures in plain JSON, with their values as a table."""

import json

import numpy as np
import plotly.graph_objects as go
import pytest
from prediction_tables import mostly_right
from sklearn import metrics as reference

from msa_flax.plots import charts

HISTORY = [
    {"epoch": 1, "split": "train", "loss": 0.5},
    {"epoch": 1, "split": "validation", "loss": 0.7},
    {"epoch": 1, "split": "other", "loss": 9.0},
    {"step": 3, "seconds": 1.0},
]


@pytest.fixture(scope="module")
def run():
    return mostly_right(400, groups=20, ties=True)


@pytest.fixture(scope="module")
def several():
    return {"a": mostly_right(), "b <i>": mostly_right(seed=1)}


def by_key(runs, **options):
    return {chart.key: chart for chart in charts.draw_curves(runs, **options)}


def trace(chart, name):
    (found,) = [trace for trace in chart.figure["data"] if trace["name"] == name]
    return found


def test_figures_are_valid_plotly_in_plain_json(run, several):
    for chart in (
        *charts.draw_curves({"x": run}, (0.1, 0.9)),
        *charts.draw_curves(several),
        charts.draw_learning(HISTORY, "loss"),
    ):
        json.dumps(chart.figure, allow_nan=False)
        go.Figure(chart.figure)  # raises an error for what Plotly does not know
        assert chart.rows
        assert all(len(row) == len(chart.head) for row in chart.rows)


def test_a_figure_that_plotly_does_not_know_is_noticed(run):
    figure = dict(by_key({"x": run})["roc"].figure)
    figure["data"] = [figure["data"][0] | {"colour": "red"}]
    with pytest.raises(ValueError, match="colour"):
        go.Figure(figure)


def test_one_run_has_bands_and_says_how_they_were_made(run):
    found = by_key({"x": run})
    assert set(found) == {"roc", "pr", "reliability", "decision"}
    for key, chart in found.items():
        assert "20 whole groups" in chart.notes[-1]
        names = [trace["name"] for trace in chart.figure["data"]]
        assert ("95 % band" in names) == (key != "reliability")
    bars = trace(found["reliability"], "x")["error_y"]
    assert min(*bars["array"], *bars["arrayminus"]) >= 0
    assert max(bars["array"]) > 0


def test_the_operating_point_is_marked_where_it_is_given(run):
    marked = trace(by_key({"x": run}, point=(0.25, 0.75))["roc"], "operating point")
    assert (marked["x"], marked["y"], marked["meta"]) == ([0.25], [0.75], "operating point")
    names = [trace["name"] for trace in by_key({"x": run})["roc"].figure["data"]]
    assert "operating point" not in names


def test_leaving_points_out_leaves_the_area_as_it_is(run):
    line = trace(by_key({"x": run})["roc"], "x")
    assert len(line["x"]) < len(np.unique(run.probability))
    expected = reference.roc_auc_score(run.label, run.probability)
    assert np.trapezoid(line["y"], line["x"]) == pytest.approx(expected, abs=1e-5)  # six digits


def test_a_curve_of_one_class_is_undefined_with_its_reason():
    found = by_key({"x": mostly_right(label=0)})
    assert found["roc"].figure is found["pr"].figure is None
    assert "x: undefined, because its images are of one class only." in found["roc"].notes
    assert "none of its images is of the positive class" in found["pr"].notes[0]
    json.dumps([found["reliability"].figure, found["decision"].figure], allow_nan=False)


def test_several_runs_are_told_apart_and_have_no_bands(several):
    chart = by_key(several)["roc"]
    names = [trace["name"] for trace in chart.figure["data"]]
    assert names == ["chance", "a", "b &lt;i&gt;"]  # Plotly reads HTML in names
    assert len({str(trace["line"]) for trace in chart.figure["data"]}) == 3
    assert {row[0] for row in chart.rows} == {"a", "b <i>"}
    assert "No bands" in chart.notes[-1]


def test_learning_curves_show_both_splits():
    chart = charts.draw_learning(HISTORY, "loss")
    assert [trace["y"] for trace in chart.figure["data"]] == [[0.5], [0.7]]
    assert chart.rows == [["training", "1", "0.5000"], ["validation", "1", "0.7000"]]


def test_the_curve_of_a_series_runs_along_its_position():
    rows = [
        {"position_mm": 2.0 * i, "probability": 0.1 * i, "flags": "odd" * (i == 2)}
        for i in range(4)
    ]
    found = charts.draw_positions("1", "a series", rows, 0.25)
    limit, curve, flagged = found.figure["data"]
    assert (curve["x"], limit["y"], flagged["x"]) == ([0, 2, 4, 6], [0.25, 0.25], [4])
    unknown = [row | {"position_mm": None, "flags": ""} for row in rows]
    figure = charts.draw_positions("1", "a series", unknown, 0.25).figure
    assert [trace["name"] for trace in figure["data"]] == ["threshold 0.25", "probability"]
    assert figure["data"][1]["x"] == [1, 2, 3, 4]
    assert figure["layout"]["xaxis"]["dtick"] == 1
