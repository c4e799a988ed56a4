import re

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from msa_flax.evaluation.predictions import Predictions, sigmoid
from msa_flax.evaluation.summary import metrics_json
from msa_flax.plots import comparison

STAMPS = ["copies cross the split"]
NAMES = ("mobilenet_v2", "resnet50/seed-0", "convnext_tiny-with-a-rather-long-name/$seed_0$")


def predictions(seed, *, n=40, labels=None, skill=1.0):
    labels = np.arange(n) % 4 == 0 if labels is None else labels
    logits = np.random.default_rng(seed).normal(size=n) + skill * labels
    return Predictions(
        example_id=np.array([f"{i:02d}" for i in range(n)]),
        split=np.full(n, "test"),
        fold=np.full(n, ""),
        group=np.full(n, ""),
        family=np.full(n, ""),
        label=labels.astype(int),
        logit=logits,
        probability=sigmoid(logits),
    )


TABLES = {name: predictions(i, skill=i) for i, name in enumerate(NAMES)}
METRICS = {
    name: metrics_json(table, split="test", threshold=0.25, stamps=STAMPS, seconds=1.0)
    for name, table in TABLES.items()
}
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
ONE_CLASS = {"only": predictions(0, labels=np.zeros(40))}


def draw_roc(path):
    comparison.roc_curves(TABLES, path, "ROC", stamps=STAMPS)


def draw_roc_of_one_class(path):
    comparison.roc_curves(ONE_CLASS, path, "ROC", stamps=STAMPS)


def draw_precision_recall(path):
    comparison.precision_recall_curves(TABLES, path, "PR", stamps=STAMPS)


def draw_precision_recall_of_one_class(path):
    comparison.precision_recall_curves(ONE_CLASS, path, "PR", stamps=STAMPS)


def draw_confusion(path):
    comparison.confusion_matrices(METRICS, path, "test", stamps=STAMPS)


def draw_seven_confusions(path):
    many = {f"run {i}": METRICS[NAMES[0]] for i in range(7)}
    comparison.confusion_matrices(many, path, "test", stamps=STAMPS)


def draw_learning(path):
    comparison.learning_curves(HISTORY, path, stamps=STAMPS)


def draw_robustness(path):
    comparison.robustness_curves(FALLS, path, "robustness", majority=0.75, stamps=STAMPS)


def draw_robustness_of_one_run(path):
    comparison.robustness_curves({"a": FALLS[NAMES[0]]}, path, "robustness", stamps=STAMPS)


ALL = [
    draw_roc,
    draw_roc_of_one_class,
    draw_precision_recall,
    draw_precision_recall_of_one_class,
    draw_confusion,
    draw_seven_confusions,
    draw_learning,
    draw_robustness,
    draw_robustness_of_one_run,
]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, in their order."""
    found = []
    from matplotlib.figure import Figure

    original = Figure.savefig

    def savefig(self, *args, **kwargs):
        original(self, *args, **kwargs)
        found.append(self)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


def texts(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def labels(axes):
    """Returns the lines of an axes by label, spaces and line breaks taken out."""
    return {re.sub(r"\s", "", str(line.get_label())): line for line in axes.lines}


@pytest.mark.parametrize("draw", ALL)
def test_a_figure_has_the_same_bytes_each_time_a_white_edge_its_notice_and_stamps(
    draw, tmp_path, figures
):
    draw(tmp_path / "a.png")
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "savefig.dpi": 20}):
        draw(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.min() < 128
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert edge.min() == 255
    assert {"Research use only, not a medical device.", *STAMPS} <= set(texts(figures[0]))


def test_every_roc_curve_has_its_own_auc_as_its_area(tmp_path, figures):
    draw_roc(tmp_path / "a.png")
    (axes,) = figures[0].axes
    curves = labels(axes)
    assert len(curves) == 1 + len(NAMES)
    for name, values in METRICS.items():
        auc = values["metrics"]["auc"]["value"]
        line = curves[f"{name}AUC{auc:.4f}"]
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(auc, abs=1e-12)
    looks = {(line.get_color(), line.get_linestyle()) for line in curves.values()}
    assert len(looks) == len(curves)


def test_the_area_under_the_steps_of_precision_is_the_average_precision(tmp_path, figures):
    draw_precision_recall(tmp_path / "a.png")
    (axes,) = figures[0].axes
    curves = labels(axes)
    assert "prevalence0.250" in curves
    for name, table in TABLES.items():
        order = np.argsort(-table.probability)
        hits = table.label[order]
        # By its definition: the mean, over the fractures, of the precision down to each of them.
        average = (np.cumsum(hits) / np.arange(1, 41))[hits == 1].mean()
        line = curves[f"{name}averageprecision{average:.4f}"]
        recall, precision = line.get_data()
        assert line.get_drawstyle() == "steps-post"
        assert recall[[0, -1]].tolist() == [1, 0]
        assert precision[-1] == precision[-2]  # no jump to 1 at recall 0, where nothing is called
        area = -np.sum(np.diff(recall) * precision[:-1])
        assert area == pytest.approx(average, abs=1e-7)  # probabilities are float32


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_precision_and_recall_are_those_of_a_threshold(threshold):
    table = TABLES[NAMES[1]]
    called = table.probability >= threshold
    recall, precision, _ = comparison.precision_recall(table.label, table.probability)
    hits = (called & (table.label == 1)).sum()
    expected = (hits / table.label.sum(), hits / called.sum())
    found = zip(recall.tolist(), precision.tolist(), strict=True)
    assert any(pair == pytest.approx(expected) for pair in found)


def test_what_one_class_leaves_undefined_is_said_and_not_drawn(tmp_path, figures):
    draw_roc_of_one_class(tmp_path / "a.png")
    draw_precision_recall_of_one_class(tmp_path / "b.png")
    for figure, label in zip(
        figures, ("onlyAUCundefined", "onlyundefined,nofracture"), strict=True
    ):
        assert len(labels(figure.axes[0])[label].get_xdata()) == 0


def test_every_confusion_matrix_shows_its_counts_accuracy_and_threshold(tmp_path, figures):
    draw_confusion(tmp_path / "a.png")
    for axes, (name, values) in zip(figures[0].axes, METRICS.items(), strict=True):
        shown = [text.get_text().split("\n")[0] for text in axes.texts]
        assert shown == [str(values["confusion"][key]) for key in ("tn", "fp", "fn", "tp")]
        title = re.sub(r"\s", "", axes.get_title())
        accuracy = values["metrics"]["accuracy"]["value"]
        assert title == f"{name}accuracy{accuracy:.4f}atthreshold0.25"


def test_panels_that_are_left_over_are_empty(tmp_path, figures):
    draw_seven_confusions(tmp_path / "a.png")
    shown = [axes.axison for axes in figures[0].axes]
    assert shown == [True] * 7 + [False] * 2


def test_a_run_has_one_colour_in_both_learning_curves(tmp_path, figures):
    draw_learning(tmp_path / "a.png")
    for axes, quantity in zip(figures[0].axes, ("accuracy", "loss"), strict=True):
        assert axes.get_ylabel() == quantity
        drawn = [line.get_color() for line in axes.lines]
        assert drawn == [colour for colour in comparison.COLOURS[:3] for _ in range(2)]
        for i, rows in enumerate(HISTORY.values()):
            expected = [row[quantity] for row in rows if row["split"] == "train"]
            assert axes.lines[2 * i].get_ydata().tolist() == expected
            assert axes.lines[2 * i].get_linestyle() == "--"
    assert {"training", "validation", "mobilenet_v2"} <= set(texts(figures[0]))


def test_rows_of_other_kinds_in_metrics_jsonl_are_left_out(tmp_path):
    draw_learning(tmp_path / "a.png")
    extra = [{"step": 5, "epoch": 90, "split": "test", "loss": 99.0}, {"step": 7, "rate": 3}]
    rows = {name: [*found, *extra] for name, found in HISTORY.items()}
    comparison.learning_curves(rows, tmp_path / "b.png", stamps=STAMPS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_every_run_has_a_panel_with_a_line_a_corruption_in_the_order_of_severity(tmp_path, figures):
    draw_robustness(tmp_path / "a.png")
    for i, (axes, name) in enumerate(zip(figures[0].axes, NAMES, strict=True)):
        lines = labels(axes)
        assert set(lines) == {"commonerclass", "noise", "blur", "jpeg"}
        assert lines["commonerclass"].get_ydata() == [0.75, 0.75]
        assert lines["blur"].get_xdata().tolist() == [0, 1, 2, 3, 4, 5]
        assert lines["blur"].get_ydata().tolist() == [1 - s / (7 + i) for s in range(6)]
        assert re.sub(r"\s", "", axes.get_title()) == name
    draw_robustness_of_one_run(tmp_path / "b.png")
    assert set(labels(figures[1].axes[0])) == {"noise", "blur", "jpeg"}
