import re

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from msa_flax.evaluation.predictions import Predictions, sigmoid
from msa_flax.evaluation.summary import metrics_json
from msa_flax.plots import figures, panels

STAMPS = ["copies cross the split"]
ROWS = [
    {"step": 10 * epoch, "epoch": epoch, "split": split, "loss": 1 / epoch, "accuracy": 0.9}
    for epoch in (1, 2, 3)
    for split in ("train", "validation")
]


def evaluated(one_class=False):
    n = 40
    logits = np.random.default_rng(0).normal(size=n)
    predictions = Predictions(
        example_id=np.array([f"{i:02d}" for i in range(n)]),
        split=np.full(n, "test"),
        fold=np.full(n, ""),
        group=np.full(n, ""),
        family=np.full(n, ""),
        label=np.zeros(n, int) if one_class else np.arange(n) % 2,
        logit=logits,
        probability=sigmoid(logits),
    )
    metrics = metrics_json(predictions, split="test", threshold=0.5, stamps=STAMPS, seconds=1.0)
    return predictions, metrics


def pictures(n=6):
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32), dtype=np.uint8)


def cases(n=2, name="val/normal/$a_1$ (1)-rotated1.png"):
    image = pictures(1)[0]
    overlay = np.repeat(image[:, :, None], 3, axis=2)
    case = panels.Case(example_id=name, probability=0.25, image=image, overlays=[overlay])
    return [case] * n


def draw_curves(path):
    figures.learning_curves(ROWS, path, stamps=STAMPS)


def draw_roc(path):
    figures.roc_and_confusion(*evaluated(), path, "test")


def draw_roc_of_one_class(path):
    figures.roc_and_confusion(*evaluated(one_class=True), path, "test")


def draw_sheet(path):
    labels = np.array([0, 0, 0, 0, 1, 1])
    figures.sample_sheet(pictures(), labels, ["$a"] * 6, path, ("normal", "fracture"))


def draw_panel(path):
    panels.gradcam_panel({"normal": cases(2), "fracture": cases(1)}, path, "Grad-CAM", STAMPS)


def draw_panel_with_a_scale(path):
    panels.gradcam_panel({"normal": cases(1)}, path, "Grad-CAM", STAMPS, maximum=0.3)


ALL = [
    draw_curves,
    draw_roc,
    draw_roc_of_one_class,
    draw_sheet,
    draw_panel,
    draw_panel_with_a_scale,
]


@pytest.fixture
def texts(monkeypatch):
    """The texts of the figure that is drawn last."""
    found = []
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    original = Figure.savefig

    def savefig(self, *args, **kwargs):
        original(self, *args, **kwargs)
        found[:] = [text.get_text() for text in self.findobj(Text) if text.get_text()]

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


@pytest.mark.parametrize("draw", ALL)
def test_a_figure_is_a_png_with_the_same_bytes_each_time_and_under_any_matplotlibrc(draw, tmp_path):
    draw(tmp_path / "a.png")
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "savefig.dpi": 20}):
        draw(tmp_path / "b.png")
        assert mpl.rcParams["font.size"] == 30  # and the user's settings are left alone
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"Software" not in (tmp_path / "a.png").read_bytes()
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.min() < 128 < picture.max()


@pytest.mark.parametrize("draw", ALL)
def test_nothing_is_drawn_over_the_edge_of_a_figure(draw, tmp_path):
    draw(tmp_path / "a.png")
    picture = cv2.imread(str(tmp_path / "a.png"))
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert edge.min() == 255


@pytest.mark.parametrize("draw", ALL)
def test_every_figure_carries_the_notice_and_its_stamps(draw, tmp_path, texts):
    draw(tmp_path / "a.png")
    assert "Research use only, not a medical device." in texts
    assert (STAMPS[0] in texts) == (draw is not draw_sheet)  # the sheet was given none


def test_the_confusion_matrix_shows_the_counts_with_the_truth_in_rows(tmp_path, texts):
    predictions, metrics = evaluated()
    metrics["confusion"] = {"tp": 11, "fn": 9, "fp": 7, "tn": 13}
    figures.roc_and_confusion(predictions, metrics, tmp_path / "a.png", "test")
    counts = [text.split("\n")[0] for text in texts if "of row" in text]
    assert counts == ["13", "7", "9", "11"]
    assert any(text == f"AUC {metrics['metrics']['auc']['value']:.4f}" for text in texts)


def test_an_undefined_auc_is_said_and_not_drawn(tmp_path, texts):
    draw_roc_of_one_class(tmp_path / "a.png")
    assert any("AUC is undefined" in text for text in texts)
    assert sum("no such image" in text for text in texts) == 2


def test_the_panel_names_its_rows_ids_probabilities_and_the_range_of_its_colours(tmp_path, texts):
    draw_panel(tmp_path / "a.png")
    assert {"A   normal", "B   fracture"} <= set(texts)
    assert texts.count("P(fracture) 0.2500") == 3
    assert "own\ntop" in texts
    shown = [re.sub(r"\s", "", text) for text in texts]
    assert shown.count("val/normal/$a_1$(1)-rotated1.png") == 3
    draw_panel_with_a_scale(tmp_path / "a.png")
    assert "0.30" in texts
    assert "own\nmax" not in texts


def test_rows_of_other_kinds_in_metrics_jsonl_are_left_out(tmp_path):
    draw_curves(tmp_path / "a.png")
    rows = [*ROWS, {"step": 5, "epoch": 90, "split": "test", "loss": 99.0}, {"step": 7, "rate": 3}]
    figures.learning_curves(rows, tmp_path / "b.png", stamps=STAMPS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_stamp_that_is_too_long_goes_on_in_the_next_line(tmp_path, texts):
    stamp = "series cross the split: " + "B10 " * 60
    panels.gradcam_panel({"normal": cases(1)}, tmp_path / "a.png", "Grad-CAM", [stamp])
    assert " ".join(stamp.split()) in " ".join(texts)
    assert cv2.imread(str(tmp_path / "a.png"))[:, -1].min() == 255
