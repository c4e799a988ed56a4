"""Verdicts: how often they are wrong where the truth is known, and what they say."""

import math

import numpy as np
import pytest

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.trials import verdicts
from msa_flax.saliency.trials.verdicts import (
    MARGIN,
    Measure,
    compare_with_controls,
    judge,
    standard_error,
)

HIGHER = Measure(name="insertion (logit)", better=1, decides=True)
BESIDE = Measure(name="mass inside", better=1)


def judged(results):
    return {result.method: result.verdict for result in results}


def simulated(rng, gains, count, methods, groups=None):
    """Verdicts on methods whose scores all decide and are the same: no test is stricter for it."""
    shared = 0 if groups is None else 2 * rng.normal(size=groups.max() + 1)[groups]
    scores = {"random_map": rng.normal(size=count) + shared}
    for i in range(methods):
        scores[f"method {i}"] = gains + rng.normal(size=count)
    results = judge({HIGHER: scores}, controls=["random_map"], groups=groups, reach=1 / MARGIN)
    found = judged(results)
    return [found[f"method {i}"].answer for i in range(methods)]


def share_of_trials_with(answer, gains, *, count=40, methods=3, trials=400, groups=None):
    rng = np.random.default_rng(6)
    found = [simulated(rng, gains, count, methods, groups) for _ in range(trials)]
    return np.mean([answer in answers for answers in found])


# Of 400 trials a share of 2.5 % has a standard error of 0.8 %, so that 5 % is three above it.
ALLOWED = 0.05
FEW = np.repeat(np.arange(12), 5)  # patients, of whose images a study has five each


def test_methods_that_gain_nothing_get_a_false_yes_in_a_fortieth_of_studies_all_together():
    assert share_of_trials_with("yes", 0.0) < ALLOWED
    assert share_of_trials_with("yes", 0.0, count=60, methods=1, groups=FEW) < ALLOWED


def test_methods_that_gain_what_is_worth_having_get_a_false_no_as_rarely():
    assert share_of_trials_with("no", 1.0) < ALLOWED  # the margin in these studies


def test_without_groups_studies_of_few_patients_say_yes_too_often(monkeypatch):
    monkeypatch.setattr(
        verdicts, "standard_error", lambda values, _: standard_error(values, np.arange(60))
    )
    assert share_of_trials_with("yes", 0.0, count=60, methods=1, groups=FEW) > 2 * ALLOWED


def test_without_the_adjustment_many_methods_say_yes_too_often(monkeypatch):
    monkeypatch.setattr(verdicts, "holm", lambda p: p)
    assert share_of_trials_with("yes", 0.0, methods=10, trials=200) > 2 * ALLOWED


def test_a_gain_that_is_shown_by_itself_alone_is_said_to_be_so():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=20)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    shown = noise + 2.3 / math.sqrt(20)  # Student's t is 2.3: p = 0.016, and twice that above 0.025
    scores = {"random_map": np.zeros(20), "map": shown, "other": noise}

    def reason(names):
        measured = {HIGHER: {name: scores[name] for name in names}}
        return judged(judge(measured, controls=["random_map"], reach=0.0))["map"].reason

    assert reason(["random_map", "map"]).startswith("every gain is shown;")
    assert reason(["random_map", "map", "other"]).startswith(
        "every gain is shown by itself, but not"
    )


def test_gains_are_found_where_there_are_many_images_and_their_absence_too():
    for gains, answer in ((1.0, "yes"), (0.0, "no")):
        assert share_of_trials_with(answer, gains, count=200, methods=1, trials=20) == 1
    # With few, a gain of half the margin can be told neither from nothing nor from enough.
    assert share_of_trials_with("cannot be told", 0.5, count=14, methods=1, trials=50) > 0.4


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (np.arange(9.0), "9 images; an interval needs 10"),
        (np.full(20, 3.0), "the difference is the same in every image"),
    ],
)
def test_without_an_interval_nothing_can_be_told_and_the_reason_is_given(scores, reason):
    measured = {"map": scores, "random_map": 0 * scores}
    (result, _) = judge({HIGHER: measured}, controls=["random_map"], reach=1.0)
    (found,) = result.differences
    assert np.isnan([found.low, found.high, found.error]).all()
    assert found.reason == reason
    assert result.verdict.answer == "cannot be told"
    assert reason in result.verdict.reason


def test_what_does_not_decide_gives_no_verdict():
    scores = {"map": np.arange(20.0), "random_map": np.zeros(20)}
    (result, _) = judge({BESIDE: scores}, controls=["random_map"], reach=1.0)
    assert result.verdict.answer == "cannot be told"
    assert result.verdict.reason == "nothing was measured that decides"


def test_a_control_that_is_missing_is_refused_before_anything_is_compared():
    with pytest.raises(SaliencyError, match="controls: expected some of map; got random_map"):
        compare_with_controls(HIGHER, {"map": np.zeros(3)}, controls=["random_map"])
    scores = {"map": np.zeros(3), "random_map": np.zeros(2)}
    with pytest.raises(SaliencyError, match="expected one per image"):
        compare_with_controls(HIGHER, scores, controls=["random_map"])
