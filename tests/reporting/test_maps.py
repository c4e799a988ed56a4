"""Tests of the maps on the page: what faithfulness.json says, each method's own scores, or why not.

The files are written by hand: a method, its score, and that of a reference on the same images.
"""

import html
import json
import re

import pytest
from saved_runs import write_run

from msa_flax.reporting import maps
from msa_flax.reporting.checklist import fill_checklist
from msa_flax.reporting.page import render_page
from msa_flax.reporting.saved import read_run
from msa_flax.reporting.text import shown

RULE = "Yes: every gain is above 0."
EVIL = "</script><script>alert(1)</script>"
MEASURES = {"deletion (logit)": "lower", "insertion (logit)": "higher", "infidelity": "lower"}
OWN = {"gradcam": 2.5, "attention_mean": 3.25, "random_map": 4.0, "centre_prior": 4.5}
WHY = "no gain is run_with over random_map in deletion"


def line(method, measure, *, verdict, reason, reference="random_map"):
    """A line as explain --faithfulness writes it, with the method's score and the reference's."""
    own, other = OWN[method], OWN[reference]
    return {
        **{"method": method, "measure": measure, "better": MEASURES[measure], "images": 20},
        "score": own,
        **{"reference": reference, "reference_score": other, "value": own - other},
        **{"verdict": verdict, "verdict_reason": reason},
    }


def report_of(**changes):
    lines = []
    for method, verdict, reason in (
        ("random_map", "reference", "it knows nothing of the network"),
        ("centre_prior", "reference", "it knows nothing of the network"),
        ("gradcam", "yes", "every gain is run_with"),
        ("attention_mean", "no", WHY),
    ):
        against = "centre_prior" if method == "random_map" else "random_map"
        lines += [
            line(method, measure, verdict=verdict, reason=reason, reference=against)
            for measure in MEASURES
        ]
    table = {"rows": lines, "random_weights": {"gradcam": 0.0239}}
    values = {"checkpoint": "best", "step": 570, "rule": RULE, "split": "test", "tables": [table]}
    return values | changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("maps") / "w", n=24, explained=[0])


@pytest.fixture
def run_with(folder):
    """Returns a reader of the run, after the file has been made anew; None: there is none."""

    def read_with(values):
        path = folder / "eval/test/explanations/faithfulness.json"
        path.unlink(missing_ok=True)
        if values is not None:
            path.write_text(json.dumps(values))
        return read_run(folder, "test")

    return read_with


@pytest.fixture
def at_step(folder):
    """Returns a maker of a best checkpoint at a step."""
    made = []

    def make(step):
        made.append(folder / "checkpoints/best" / str(step))
        made[-1].mkdir(parents=True)

    yield make
    for path in made:
        path.rmdir()


def section(run):
    text = render_page(run)
    return text[text.index('<section id="maps"') : text.index('<section id="calibration"')]


def plain(fragment):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", fragment)).split())


def assert_as_the_file(table, values):
    """The table has a row a method: its verdict, own scores, correlation, and reason."""
    (part,) = values["tables"]
    rows = {row[0]: row[1:] for row in table.rows}
    names = {"gradcam": "Grad-CAM", "attention_mean": "Attention mean"}
    names |= {"random_map": "Random map", "centre_prior": "Centre prior"}
    assert set(rows) == set(names.values())
    for found in part["rows"]:
        verdict, images, deletion, insertion, correlation, _ = rows[names[found["method"]]]
        assert verdict == found["verdict"]
        assert images == str(found["images"])
        assert deletion == insertion == shown(OWN[found["method"]])
        known = part["random_weights"].get(found["method"])
        assert correlation == ("" if known is None else shown(known))


def test_the_table_says_what_the_file_says(run_with):
    values = report_of()
    (table,) = maps.verdicts(run_with(values))
    assert_as_the_file(table, values)
    assert table.title == "Do the maps mean anything? Grad-CAM, Attention mean"
    assert table.head[:5] == [
        *("Method", "Better than the controls?", "Images"),
        *("deletion (logit), lower is better", "insertion (logit), higher is better"),
    ]
    assert table.note.endswith(RULE)
    assert dict((row[0], row[-1]) for row in table.rows)["Attention mean"] == (
        "no gain is run_with over the random map in deletion"
    )


def test_references_come_last_and_many_methods_are_counted(run_with):
    values = report_of()
    rows = values["tables"][0]["rows"]
    rows += [row | {"method": f"new_{i}"} for i in range(2) for row in rows if row["value"] == -1.5]
    (table,) = maps.verdicts(run_with(values))
    assert [row[0] for row in table.rows][-2:] == ["Random map", "Centre prior"]
    assert table.title == "Do the maps mean anything? Grad-CAM and 3 others"


def test_the_comparison_notices_the_score_of_the_reference(run_with):
    values, other = report_of(), report_of()
    for row in other["tables"][0]["rows"]:
        row["score"] = row["reference_score"]
    (table,) = maps.verdicts(run_with(other))
    with pytest.raises(AssertionError):
        assert_as_the_file(table, values)


def test_what_is_undefined_is_said_to_be(run_with):
    values = report_of()
    for row in values["tables"][0]["rows"]:
        row |= {"score": None, "value": None}
    (table,) = maps.verdicts(run_with(values))
    assert {cell for row in table.rows for cell in row[3:5]} == {"undefined"}


def test_the_rule_is_said_once_and_the_layer_where_one_was_chosen(run_with):
    tables = report_of()["tables"] * 2
    first, last = maps.verdicts(run_with(report_of(tables=tables, layer="block_3")))
    assert first.note == ""
    assert last.note == (
        f"Maps at the layer block_3 of the predicted class, one image of each slice. {RULE}"
    )


def test_the_page_shows_the_table_and_the_checklist_knows_of_it(run_with):
    run = run_with(report_of())
    said = plain(section(run))
    assert "Grad-CAM yes 20 2.5000 2.5000 0.0239 every gain is run_with" in said
    assert RULE in said
    assert "--faithfulness" not in said
    (answer,) = [item.answer for item in fill_checklist(run) if item.number == 31]
    assert answer.startswith("Grad-CAM, HiResCAM, and attention maps")
    assert "The maps are tested" in answer


def test_without_tests_the_page_says_how_to_make_them(run_with, folder):
    run = run_with(None)
    assert maps.verdicts(run) == []
    said = plain(section(run))
    assert "Nobody has tested these." in said
    command = f"python -m msa_flax.explain --workdir {folder} --split test --faithfulness"
    assert command in said
    (answer,) = [item.answer for item in fill_checklist(run) if item.number == 31]
    assert "The maps are not tested" in answer


def test_tests_of_this_checkpoint_are_shown(run_with, at_step):
    at_step(570)
    run = run_with(report_of())
    assert maps.why_not(run) == ""
    assert len(maps.verdicts(run)) == 1


@pytest.mark.parametrize(
    ("changes", "tested"),
    [({"step": 190}, "best, step 190"), ({"checkpoint": "last"}, "last, step 570")],
)
def test_tests_of_another_checkpoint_are_not_shown(run_with, at_step, changes, tested):
    at_step(570)
    run = run_with(report_of(**changes))
    assert maps.verdicts(run) == []
    said = plain(section(run))
    assert f"Those of checkpoint {tested}, have been tested" in said
    assert "this run's is now best, step 570" in said
    assert "--faithfulness" in said


def test_hostile_texts_stay_texts(run_with):
    values = report_of(rule=EVIL)
    for row in values["tables"][0]["rows"]:
        if row["method"] == "gradcam":
            row |= {"method": EVIL, "verdict": EVIL, "verdict_reason": EVIL}
    found = section(run_with(values))
    assert EVIL not in found
    assert found.count(html.escape(EVIL, quote=False).split("(")[0]) >= 4
