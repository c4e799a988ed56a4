import re

import numpy as np
import pytest
from prediction_tables import mostly_right

from msa_flax.plots import figures, style

STAMPS = ["copies cross the split"]
CLASSES = ("normal", "fracture")
NAMES = ("mobilenet_v2", "resnet50/seed-0", "convnext_tiny-with-a-rather-long-name/$seed_0$")
HISTORY = {
    name: [
        {
            "step": e,
            "epoch": e,
            "split": split,
            "loss": (i + k) / e,
            "accuracy": 1 - 0.1 * (i + k) / e,
        }
        for e in range(1, 4 + i)
        for k, split in ((1, "train"), (1.4, "validation"))
    ]
    for i, name in enumerate(NAMES)
}
FALLS = {
    name: [
        {"run": name, "corruption": corruption, "severity": s, "accuracy": 1 - s / (6 + k + i)}
        for k, corruption in enumerate(("noise", "blur", "jpeg"))
        for s in (0, 5, 2, 1, 3, 4)
    ]
    for i, name in enumerate(NAMES)
}


@pytest.fixture(scope="module")
def tables():
    return {
        name: mostly_right(40, groups=0, seed=i, spread=2 - i / 2) for i, name in enumerate(NAMES)
    }


@pytest.fixture(scope="module")
def metrics(tables, metrics_of):
    return {name: metrics_of(table) for name, table in tables.items()}


@pytest.fixture(scope="module")
def one_class():
    return mostly_right(40, label=0)


@pytest.fixture(scope="module")
def drawings(tables, metrics, one_class, metrics_of):
    """Name to a function that draws a figure to a path."""
    options = {"classes": CLASSES, "stamps": STAMPS}
    first, only = NAMES[0], {"only": one_class}
    seven = {f"run {i}": metrics[first] for i in range(7)}
    curves = {"stamps": STAMPS}
    split = {"classes": CLASSES}
    return {
        "learning": lambda p: figures.learning_curves(HISTORY, p, **curves),
        "learning of one run": lambda p: figures.learning_curves(
            {first: HISTORY[first]}, p, **curves
        ),
        "split": lambda p: figures.roc_and_confusion(
            tables[first], metrics[first], p, "test", **split
        ),
        "split of one class": lambda p: figures.roc_and_confusion(
            one_class, metrics_of(one_class), p, "test", **split
        ),
        "roc": lambda p: figures.roc_curves(tables, p, "ROC", **curves),
        "roc of one class": lambda p: figures.roc_curves(only, p, "ROC", **curves),
        "pr": lambda p: figures.precision_recall_curves(tables, p, "PR", **curves),
        "pr of one class": lambda p: figures.precision_recall_curves(only, p, "PR", **curves),
        "confusion": lambda p: figures.confusion_matrices(metrics, p, "test", **options),
        "seven confusions": lambda p: figures.confusion_matrices(seven, p, "test", **options),
        "robustness": lambda p: figures.robustness_curves(
            FALLS, p, "robustness", majority=0.75, **curves
        ),
        "robustness of one run": lambda p: figures.robustness_curves(
            {"a": FALLS[first]}, p, "robustness", majority=0.75, **curves
        ),
    }


@pytest.fixture
def drawn(drawings, tmp_path, saved_figures):
    """Draws a figure by its name, and returns it."""

    def draw(name):
        drawings[name](tmp_path / "a.png")
        return saved_figures[-1]

    return draw


ALL = (
    *("learning", "learning of one run", "split", "split of one class", "roc", "roc of one class"),
    *("pr", "pr of one class", "confusion", "seven confusions"),
    *("robustness", "robustness of one run"),
)


def lines_of(axes):
    """Returns the lines of an axes by label, spaces and line breaks taken out."""
    return {re.sub(r"\s", "", str(line.get_label())): line for line in axes.lines}


def test_every_figure_is_checked(drawings):
    assert set(drawings) == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_figure_is_reproducible_within_its_edges_and_carries_notice_and_stamps(
    name, drawings, assert_sound
):
    assert_sound(drawings[name])


def test_every_roc_curve_has_its_own_auc_as_its_area(drawn, metrics):
    (axes,) = drawn("roc").axes
    curves = lines_of(axes)
    assert len(curves) == 1 + len(NAMES)
    for name, values in metrics.items():
        auc = values["metrics"]["auc"]["value"]
        line = curves[f"{name}AUC{auc:.4f}"]
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(auc, abs=1e-12)
    looks = {(line.get_color(), line.get_linestyle()) for line in curves.values()}
    assert len(looks) == len(curves)


def test_the_area_under_the_steps_of_precision_is_the_average_precision(drawn, tables):
    (axes,) = drawn("pr").axes
    curves = lines_of(axes)
    assert "prevalence0.500" in curves
    for name, table in tables.items():
        hits = table.label[np.argsort(-table.probability)]
        # By its definition: the mean, over the fractures, of the precision down to each of them.
        average = (np.cumsum(hits) / np.arange(1, 41))[hits == 1].mean()
        line = curves[f"{name}averageprecision{average:.4f}"]
        recall, precision = line.get_data()
        assert line.get_drawstyle() == "steps-pre"
        assert recall[[0, -1]].tolist() == [0, 1]
        assert precision[0] == precision[1]  # no jump to 1 at recall 0, which no threshold has
        area = np.sum(np.diff(recall) * precision[1:])
        assert area == pytest.approx(average, abs=1e-7)  # probabilities are float32


def test_what_one_class_leaves_undefined_is_said_and_not_drawn(drawn, texts):
    roc, pr = (drawn(f"{name} of one class").axes[0] for name in ("roc", "pr"))
    assert len(lines_of(roc)["onlyAUCundefined"].get_xdata()) == 0
    assert len(lines_of(pr)["onlyundefined,nopositive"].get_xdata()) == 0
    drawn("split of one class")
    assert any("AUC is undefined" in text for text in texts())
    assert sum("no such image" in text for text in texts()) == 2


def test_the_split_shows_its_auc_its_threshold_and_the_counts_with_the_truth_in_rows(
    tables, metrics, tmp_path, texts, saved_figures
):
    values = metrics[NAMES[0]] | {"confusion": {"tp": 11, "fn": 9, "fp": 7, "tn": 13}}
    figures.roc_and_confusion(
        tables[NAMES[0]], values, tmp_path / "a.png", "test", classes=("healthy", "broken")
    )
    counts = [text.split("\n")[0] for text in texts() if "of row" in text]
    assert counts == ["13", "7", "9", "11"]
    assert {f"AUC {values['metrics']['auc']['value']:.4f}", "healthy", "broken"} <= set(texts())
    point = lines_of(saved_figures[0].axes[0])["threshold0.25"]
    assert (point.get_xdata(), point.get_ydata()) == ([7 / 20], [11 / 20])


def test_every_confusion_matrix_shows_its_counts_accuracy_and_threshold(drawn, metrics):
    for axes, (name, values) in zip(drawn("confusion").axes, metrics.items(), strict=True):
        shown = [text.get_text().split("\n")[0] for text in axes.texts]
        assert shown == [str(values["confusion"][key]) for key in ("tn", "fp", "fn", "tp")]
        title = re.sub(r"\s", "", axes.get_title())
        accuracy = values["metrics"]["accuracy"]["value"]
        assert title == f"{name}accuracy{accuracy:.4f}atthreshold0.25"


def test_panels_that_are_left_over_are_empty(drawn):
    assert [axes.axison for axes in drawn("seven confusions").axes] == [True] * 7 + [False] * 2


def test_a_run_has_one_colour_in_both_learning_curves(drawn, texts):
    for axes, quantity in zip(drawn("learning").axes, ("accuracy", "loss"), strict=True):
        assert axes.get_ylabel() == quantity
        colours = [line.get_color() for line in axes.lines]
        assert colours == [colour for colour in style.COLOURS[:3] for _ in range(2)]
        for i, rows in enumerate(HISTORY.values()):
            expected = [row[quantity] for row in rows if row["split"] == "train"]
            assert axes.lines[2 * i].get_ydata().tolist() == expected
            assert axes.lines[2 * i].get_linestyle() == "--"
    assert {"training", "validation", "mobilenet_v2"} <= set(texts())


def test_of_one_run_each_split_has_a_colour(drawn, texts):
    for axes in drawn("learning of one run").axes:
        assert [line.get_color() for line in axes.lines] == [style.BLUE, style.VERMILION]
    assert {"training", "validation"} <= set(texts())


def test_rows_of_other_kinds_in_metrics_jsonl_are_left_out(tmp_path):
    extra = [{"step": 5, "epoch": 90, "split": "test", "loss": 99.0}, {"step": 7, "rate": 3}]
    more = {name: [*rows, *extra] for name, rows in HISTORY.items()}
    for name, rows in (("a", HISTORY), ("b", more)):
        figures.learning_curves(rows, tmp_path / f"{name}.png", stamps=STAMPS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_every_run_has_a_panel_with_a_line_per_corruption_in_the_order_of_severity(drawn):
    for i, (axes, name) in enumerate(zip(drawn("robustness").axes, NAMES, strict=True)):
        lines = lines_of(axes)
        assert set(lines) == {"commonerclass", "noise", "blur", "jpeg"}
        assert lines["commonerclass"].get_ydata() == [0.75, 0.75]
        assert lines["blur"].get_xdata().tolist() == [0, 1, 2, 3, 4, 5]
        assert lines["blur"].get_ydata().tolist() == [1 - s / (7 + i) for s in range(6)]
        assert re.sub(r"\s", "", axes.get_title()) == name
