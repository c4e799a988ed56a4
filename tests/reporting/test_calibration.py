"""Calibration and abstaining on the page: what metrics.json says of them, or why it says nothing.

The sections of metrics.json are written by hand, as evaluate --calibrate leaves them.
"""

import html
import json
import re

import pytest
from saved_runs import write_run

from msa_flax.evaluation.calibration import Calibration, CalibrationError
from msa_flax.reporting import calibration
from msa_flax.reporting.page import render_page
from msa_flax.reporting.saved import read_run
from msa_flax.reporting.text import with_interval

EVIL = "</script><script>alert(1)</script>"
SCORES = ("brier", "log_loss", "ece", "ece_debiased")
NAMES = {
    "uncalibrated": "As it is",
    "temperature": "Temperature",
    "isotonic": "Isotonic",
    "venn_abers": "Venn-Abers",
}
FITTED = {
    "split": "validation",
    "images": {"all": 464, "fracture": 234, "normal": 230},
    "groups": {"all": 58, "fracture": 58, "normal": 58},
}


def entry(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def scores(first):
    """Four entries that differ, the last without an interval."""
    return {
        name: entry(first + i / 100, *((first, 0.9) if i < 3 else ()))
        for i, name in enumerate(SCORES)
    }


def sections():
    calibrators = {
        name: {"parameters": {}, "metrics": scores(0.2 * i)}
        for i, name in enumerate(list(NAMES)[1:], 1)
    }
    return {
        "calibration": {"fitted_on": FITTED, "uncalibrated": scores(0.0125), **calibrators},
        "conformal": {
            "alpha": 0.1,
            "coverage": {
                "overall": entry(0.891),
                "fracture": entry(0.884, 0.8, 0.94),
                "normal": entry(0.898),
            },
            "abstained": entry(0.0972, 0.05, 0.15),
            "decided": {
                "n": 520,
                "accuracy": entry(0.9865, 0.97, 0.99),
                "sensitivity": entry(0.9718),
                "specificity": entry(None) | {"reason": "no normal image is decided"},
            },
            "guarantee": False,
            "reason": "groups unknown",
        },
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("calibration") / "w", n=24)


@pytest.fixture
def run_with(folder):
    """Returns a reader of the run, its metrics with these sections."""
    path = folder / "eval/test/metrics.json"
    before = path.read_text()

    def read_with(values):
        path.write_text(json.dumps(json.loads(before) | values))
        return read_run(folder, "test")

    yield read_with
    path.write_text(before)


def section(run):
    text = render_page(run)
    return text[text.index('<section id="calibration"') : text.index('<section id="groups"')]


def plain(fragment):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", fragment)).split())


def assert_as_the_file(tables, values):
    """Every number is in its row and column, with its interval where there is one."""
    part, conformal = values["calibration"], values["conformal"]
    calibrators, abstention = tables
    rows = {name: cells for name, *cells in calibrators.rows}
    assert list(rows) == list(NAMES.values())
    for key, name in NAMES.items():
        found = part[key] if key == "uncalibrated" else part[key]["metrics"]
        assert rows[name] == [with_interval(entry) for entry in found.values()]
    decided, coverage = conformal["decided"], conformal["coverage"]
    expected = {
        "Sets hold the right class: fracture": coverage["fracture"],
        "Sets hold the right class: normal": coverage["normal"],
        "Share of images on which the model abstains": conformal["abstained"],
        "Accuracy on the images decided": decided["accuracy"],
        "Sensitivity on the images decided": decided["sensitivity"],
        "Specificity on the images decided": decided["specificity"],
    }
    cells = dict(abstention.rows)
    assert cells.pop("Images decided") == str(decided["n"])
    assert cells == {name: with_interval(entry) for name, entry in expected.items()}


def test_the_tables_say_what_the_file_says(run_with):
    values = sections()
    tables = calibration.tables(run_with(values))
    assert_as_the_file(tables, values)
    assert [table.title for table in tables] == [
        "Calibrated probabilities",
        "Abstaining: conformal sets at alpha 0.1",
    ]
    assert tables[0].note == "Fitted on the 464 validation images alone; less is better."
    assert dict(tables[1].rows)["Specificity on the images decided"] == "undefined"
    assert "Specificity on the images decided: no normal image is decided." in tables[1].note


def test_an_undefined_score_has_its_reason_below_the_table(run_with):
    values = sections()
    undefined = entry(None) | {"reason": "a fracture has the probability 0"}
    values["calibration"]["isotonic"]["metrics"]["log_loss"] = undefined
    table, _ = calibration.tables(run_with(values))
    assert dict((row[0], row[2]) for row in table.rows)["Isotonic"] == "undefined"
    assert "Isotonic, log loss: a fracture has the probability 0." in table.note


def test_the_comparison_notices_classes_that_have_changed_places(run_with):
    values, other = sections(), sections()
    coverage = other["conformal"]["coverage"]
    coverage["fracture"], coverage["normal"] = coverage["normal"], coverage["fracture"]
    with pytest.raises(AssertionError):
        assert_as_the_file(calibration.tables(run_with(other)), values)


@pytest.mark.parametrize(
    ("guarantee", "said"),
    [
        (False, "There is no guarantee: groups unknown."),
        (True, "This coverage is guaranteed: groups unknown."),
    ],
)
def test_coverage_is_promised_only_where_it_is_guaranteed(run_with, guarantee, said):
    values = sections()
    values["conformal"]["guarantee"] = guarantee
    assert said in plain(section(run_with(values)))


def test_the_page_shows_both_tables_and_no_command(run_with):
    said = plain(section(run_with(sections())))
    assert "As it is 0.0125 [0.0125, 0.9000] 0.0225 [0.0125, 0.9000]" in said
    assert "Sets hold the right class: fracture 0.8840 [0.8000, 0.9400]" in said
    assert "--calibrate" not in said


def test_calibrators_that_could_not_be_fitted_say_why_and_abstention_stays(run_with):
    values = sections()
    for name in list(NAMES)[1:]:
        values["calibration"][name] = {"reason": "a threshold separates the classes"}
    calibrators, abstention = calibration.tables(run_with(values))
    assert [row[1:] for row in calibrators.rows[1:]] == [[""] * 4] * 3
    for name in ("Temperature", "Isotonic", "Venn-Abers"):
        assert f"{name}: a threshold separates the classes." in calibrators.note
    assert len(abstention.rows) == 7


def test_where_nothing_is_calibrated_the_page_says_how_to(run_with, folder):
    run = run_with({})
    assert (calibration.tables(run), calibration.why_not(run)) == ([], "")
    said = plain(section(run))
    assert "Nothing has been calibrated." in said
    assert f"python -m msa_flax.evaluate --workdir {folder} --calibrate --split test" in said


def test_a_calibration_of_another_checkpoint_is_said_to_be_one(run_with):
    fitted = Calibration(
        **{"checkpoint": "best", "step": 190, "data_fingerprint": "f" * 64, "fractures": []},
        **{"normal": [], "groups": {}, "temperature": None, "isotonic": None, "reason": ""},
    )
    with pytest.raises(CalibrationError) as caught:
        fitted.check_belongs(checkpoint="best", step=570, data_fingerprint="f" * 64)
    reason = {"reason": str(caught.value)}
    run = run_with({"calibration": reason, "conformal": reason})
    assert calibration.tables(run) == []
    said = plain(section(run))
    assert "No calibrated values: the stored calibration is of step 190, this is step 570;" in said
    assert "Nothing has been calibrated" not in said


def test_hostile_texts_stay_texts(run_with):
    values = sections()
    values["calibration"]["isotonic"] = {"reason": EVIL}
    values["conformal"]["reason"] = EVIL
    reason = {"reason": EVIL}
    for found in (values, {"calibration": reason, "conformal": reason}):
        text = section(run_with(found))
        assert EVIL not in text
        assert html.escape(EVIL, quote=False).split("(")[0] in text
