import re

import numpy as np
import pytest

from msa_flax.plots import sheets

STAMPS = ["copies cross the split"]
ID = "val/normal/$a_1$ (1)-rotated1.png"


def pictures(n=6):
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32), dtype=np.uint8)


def with_maps(n=2, overlays=1):
    image = pictures(1)[0]
    overlay = np.repeat(image[:, :, None], 3, axis=2)
    return [
        sheets.ImageWithMaps(
            example_id=ID,
            probability=0.25,
            image=image,
            overlays=[overlay] * overlays,
            positive="fracture",
            title="normal",
        )
    ] * n


def draw_samples(path):
    labels = np.array([0, 0, 0, 0, 1, 1])
    classes = ("normal", "fracture")
    sheets.sample_sheet(pictures(), labels, ["$a"] * 6, path, classes, stamps=STAMPS)


def draw_panel(path):
    rows = {"normal": with_maps(2), "fracture": with_maps(1)}
    sheets.gradcam_panel(rows, path, "Grad-CAM", STAMPS)


def draw_contact_sheet(path):
    columns = ["Grad-CAM", "HiResCAM", "Occlusion"]
    sheets.contact_sheet(with_maps(2, overlays=3), columns, path, "Maps", STAMPS)


@pytest.mark.parametrize("draw", [draw_samples, draw_panel, draw_contact_sheet])
def test_a_sheet_is_reproducible_within_its_edges_and_carries_notice_and_stamps(draw, assert_sound):
    assert_sound(draw)


def test_the_samples_are_in_the_row_of_their_class(tmp_path, saved_figures):
    draw_samples(tmp_path / "a.png")
    grid = np.array(saved_figures[0].axes).reshape(2, 4)
    assert [row[0].get_ylabel() for row in grid] == ["normal", "fracture"]
    drawn = [[len(axes.images) for axes in row] for row in grid]
    assert drawn == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_the_panel_names_its_rows_ids_probabilities_and_the_range_of_its_colours(tmp_path, texts):
    draw_panel(tmp_path / "a.png")
    assert {"A   normal", "B   fracture", "own\ntop"} <= set(texts())
    assert texts().count("P(fracture) 0.2500") == 3
    shown = [re.sub(r"\s", "", text) for text in texts()]
    assert shown.count(ID.replace(" ", "")) == 3


def test_the_contact_sheet_has_a_row_per_image_and_a_column_per_method(tmp_path, saved_figures):
    draw_contact_sheet(tmp_path / "a.png")
    grid = saved_figures[0].axes[:8]  # the colour bar comes last
    titles = [axes.get_title() for axes in grid[:4]]
    assert titles == ["image", "Grad-CAM", "HiResCAM", "Occlusion"]
    assert [len(axes.images) for axes in grid] == [1] * 8
    assert [grid[0].get_ylabel(), grid[4].get_ylabel()] == ["normal", "normal"]
