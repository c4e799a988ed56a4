"""Results as rows for files and as a table for people."""

import csv
import io
import json

import numpy as np
from planted_squares import results

from msa_flax.saliency.trials.tables import result_rows, results_table
from msa_flax.saliency.trials.verdicts import RULE, Measure, compare_with_controls

RESULTS = results()


def test_the_table_has_a_line_a_result_the_settings_the_verdicts_and_the_rule():
    text = results_table(RESULTS)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(RESULTS)
    assert len({line.count("|") for line in lines}) == 1
    assert lines[0] == (
        "| method | measure | n | score | random_map | centre_prior | minus random_map | "
        "minus centre_prior | verdict |"
    )
    first = RESULTS[0]
    against = first.differences[0]
    assert lines[2].startswith(f"| truth | deletion (logit) ↓ | 24 | {first.score:.3f} |")
    assert f"{against.value:+.3f} [{against.low:+.3f} to {against.high:+.3f}]" in lines[2]
    assert lines[2].endswith("| yes |")
    assert "- deletion (logit): 4 steps, filled by blur." in text
    assert "- infidelity: 24 patches, filled by blur." in text
    assert "- **truth**: yes; every gain is shown." in text
    assert text.endswith(f"{RULE}\n")


def test_rows_are_plain_for_json_and_csv():
    found = result_rows(RESULTS)
    assert len(found) == sum(len(result.differences) for result in RESULTS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert len({tuple(row) for row in found}) == 1
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]))
    writer.writerows(found)
    assert found[0]["better"] == "lower"
    assert {row["verdict"] for row in found if row["method"] == "random_map"} == {"reference"}


def test_undefined_values_are_none_with_the_reason_and_controls_are_called_references():
    beside = Measure(name="mass inside", better=1)
    scores = {"map": np.array([np.nan, 1, 2]), "random_map": np.array([5, 1, 1.5])}
    (row, *_) = result_rows(compare_with_controls(beside, scores, controls=["random_map"]))
    assert (row["reference"], row["reference_score"], row["score"]) == ("random_map", 1.25, 1.5)
    scores["map"] = np.full(3, np.nan)
    (row, *_) = result_rows(compare_with_controls(beside, scores, controls=["random_map"]))
    assert row["score"] is None
    assert row["reference_score"] is None
    assert row["reason"] == "no image on which all scores are defined"
