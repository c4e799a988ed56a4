"""The table of the tests of maps is what faithfulness.json says, between its markers."""

import json

import saliency_tables

LOGIT, STABLE = "deletion (logit)", "sensitivity-max"
NAMES = (LOGIT, "insertion (logit)", "ROAD (logit)", "deletion (probability)", STABLE)


def rows(method, score, *, n=20, stable=20, verdict="no"):
    """Lines of a method over both controls, as examination_json has them."""
    return [
        {
            **{"method": method, "measure": name, "images": n, "verdict": verdict},
            **{"better": "lower" if name in (LOGIT, STABLE) else "higher"},
            **{"score": score, "n": stable if name == STABLE else n},
            **{"reference": reference, "value": value, "low": value - 0.5, "high": value + 0.5},
        }
        for name in NAMES
        for reference, value in (("random_map", -3.0), ("centre_prior", -1.0))
    ]


FOUND = {
    "tables": [
        {
            "rows": [
                *rows("gradcam", 2.5, verdict="yes", stable=8),
                *rows("random_map", 6.0, verdict="reference"),
            ],
            "random_weights": {"gradcam": 0.125},
        },
        {
            "rows": [
                *rows("attention_3", 3.5, n=4, stable=0),
                *rows("random_map", 7.0, verdict="reference"),
            ],
            "random_weights": {},
        },
    ]
}


def test_every_method_has_a_line_with_its_scores_and_gains_and_controls_have_one():
    head, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in saliency_tables.table(FOUND).splitlines()
    ]
    assert head[3:] == ["deletion ↓", "insertion ↑", "ROAD ↑", f"{STABLE} ↓", "random weights"]
    gain = "; -1.000 [-1.500, -0.500]"
    assert lines == [
        ["Grad-CAM", "20", "yes", *[f"2.500{gain}"] * 3, "2.500 (n 8)", "0.12"],
        ["random map", "20", "reference", *["6.000"] * 3, "6.000", ""],
        ["attention 3", "4", "no", *[f"3.500{gain}"] * 3, "not measured", ""],
    ]


def test_it_replaces_what_stands_between_its_markers(tmp_path):
    (tmp_path / "found.json").write_text(json.dumps(FOUND))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- phantom -->\nold\n<!-- /phantom -->\nafter\n")
    assert saliency_tables.main([f"{tmp_path}/found.json", "--into", str(page)]) == 0
    assert page.read_text() == (
        f"before\n<!-- phantom -->\n{saliency_tables.table(FOUND)}\n<!-- /phantom -->\nafter\n"
    )
