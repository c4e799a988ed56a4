"""Whatever stands in the JSON files of a run, a reader takes it or refuses it in one sentence."""

import copy
import json
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saved_runs import calibrate_run, write_run

from msa_flax.evaluation import calibration
from msa_flax.evaluation.calibration import Calibration
from msa_flax.files import UserError, write_json
from msa_flax.reporting.page import render_page
from msa_flax.reporting.saved import read_run
from msa_flax.results.audits import _model_scores
from msa_flax.results.scores import _shortcuts
from msa_flax.run_files import check_run_files

CLASSES = ("normal", "fracture")
LINE = {"method": "gradcam", "measure": "deletion (logit)", "better": "lower", "images": 9}
LINE |= {"score": 0.5, "verdict": "yes", "verdict_reason": "better than random_map"}
TESTED = {"checkpoint": "best", "step": 7, "layer": None, "rule": "Both controls.", "split": "test"}
TESTED |= {"tables": [{"rows": [LINE], "random_weights": {"gradcam": 0.1}}]}
FILES = (
    "eval/test/metrics.json",
    "eval/test/explanations/faithfulness.json",
    "audit/audit.json",
    "checkpoints/calibration-best.json",
    "run.json",
    "config.json",
)
OTHERS = (None, True, -1, 10**400, 0.5, 1e308, "", "x", [], [1], ["x"], {}, {"x": 1})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with all of its JSON files, and what they hold."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "w", audit=True, groups=12)
    write_json(folder / FILES[1], TESTED)
    calibrate_run(folder)
    return folder, {name: json.loads((folder / name).read_text()) for name in FILES}


def places(values, place=()):
    """Yields every place in a JSON value, the whole of it first."""
    yield place
    if isinstance(values, dict | list):
        for key, member in values.items() if isinstance(values, dict) else enumerate(values):
            yield from places(member, (*place, key))


def read_all(folder):
    """Reads every file as commands do, and makes of it what they make."""
    run = read_run(folder, "test")
    render_page(run)
    check_run_files(folder, accept=True)
    _model_scores(folder, CLASSES)
    _shortcuts(folder, {"test": run.metrics})
    stored = Calibration.read(folder / FILES[3])
    calibration.apply(stored, np.float32([-1, 0, 2]), alpha=0.1)


def test_what_was_saved_is_read(saved):
    read_all(saved[0])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(FILES), seed=st.integers(0, 2**32), other=st.sampled_from(OTHERS))
def test_a_changed_value_is_taken_or_refused_in_one_sentence(saved, name, seed, other):
    folder, kept = saved
    values = copy.deepcopy(kept[name])
    *path, last = random.Random(seed).choice([p for p in places(values) if p])
    inside = values
    for key in path:
        inside = inside[key]
    if seed % 3:
        inside[last] = other
    else:
        del inside[last]
    said = ""
    try:
        (folder / name).write_text(json.dumps(values))
        read_all(folder)
    except UserError as error:
        said = str(error)
    finally:
        (folder / name).write_text(json.dumps(kept[name]))
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "other"),
    [(n, o) for n in FILES for o in ([], 3, "x", {}) if (n, o) != ("run.json", {})],
)
def test_a_file_with_something_else_is_refused_by_its_name(saved, name, other):
    folder, kept = saved
    (folder / name).write_text(json.dumps(other))
    try:
        with pytest.raises(UserError, match=name.rpartition("/")[-1]):
            read_all(folder)
    finally:
        (folder / name).write_text(json.dumps(kept[name]))
