import csv
import io
import json
import math

import cv2
import numpy as np
import pytest

from msa_flax.saliency import comparisons, verdicts
from msa_flax.saliency.assessment import Settings, assess
from msa_flax.saliency.comparisons import Measure, compare, standard_error
from msa_flax.saliency.render import SaliencyError
from msa_flax.saliency.verdicts import LEVEL, MARGIN, RULE, holm, judge, rows, table

BATCH, SIZE = 32, 12
QUICK = Settings(steps=4, fractions=(0.3,), samples=24, batch_size=BATCH)
LOWER = Measure(name="deletion (logit)", better=-1, decides=True)
HIGHER = Measure(name="insertion (logit)", better=1, decides=True)
BESIDE = Measure(name="mass inside", better=1)


def planted(count, seed):
    """Smooth images with a bright square anywhere; the square; the centre; nothing."""
    rng = np.random.default_rng([3, seed])
    images = np.kron(rng.integers(60, 100, (count, 3, 3)), np.ones((1, 4, 4)))
    truth = np.zeros(images.shape)
    for image, mask, (y, x) in zip(
        images, truth, rng.integers(0, SIZE - 3, (count, 2)), strict=True
    ):
        image[y : y + 3, x : x + 3] = 220
        mask[y : y + 3, x : x + 3] = 1
    away = np.hypot(*(np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2))
    return images.astype(np.uint8), {
        "truth": truth,
        "random": rng.random(images.shape),
        "centre_prior": np.tile(np.exp(-((away / 4) ** 2)), (count, 1, 1)),
        "other random": rng.random(images.shape),
    }


def bright(pictures):
    assert pictures.shape == (BATCH, SIZE, SIZE)
    return np.maximum(np.asarray(pictures, np.float64) - 130, 0).sum(axis=(1, 2)) / 100 - 3


def judged(results):
    return {result.method: result.verdict for result in results}


COUNT = 24
IMAGES, MAPS = planted(COUNT, 0)
SIGNS = np.ones(COUNT)
GROUPS = np.array([f"patient {i // 2}" for i in range(COUNT)])
MASKS = (MAPS["truth"] * 255).astype(np.uint8)
RESULTS = assess(MAPS, IMAGES, bright, signs=SIGNS, groups=GROUPS, masks=MASKS, settings=QUICK)


def test_of_a_planted_square_the_true_map_is_better_than_chance_and_a_random_one_is_not():
    found = judged(RESULTS)
    assert {name: verdict.answer for name, verdict in found.items()} == {
        "truth": "yes",
        "random": "reference",
        "centre_prior": "reference",
        "other random": found["other random"].answer,
    }
    assert found["other random"].answer != "yes"
    assert found["truth"].p_yes < LEVEL < found["other random"].p_yes
    assert found["truth"].reason == "every gain is shown"


def test_the_true_map_turned_round_is_no_better_but_for_the_other_class():
    maps = {name: MAPS[name] for name in ("truth", "random", "centre_prior")}
    maps["opposite"] = -MAPS["truth"]
    for signs, better, worse in ((SIGNS, "truth", "opposite"), (-SIGNS, "opposite", "truth")):
        found = judged(assess(maps, IMAGES, bright, signs=signs, settings=QUICK))
        assert (found[better].answer, found[worse].answer) == ("yes", "no")
        assert "no gain is shown over random in deletion" in found[worse].reason


def test_scores_that_were_measured_elsewhere_stand_with_the_others_and_do_not_decide():
    maps = {name: MAPS[name] for name in ("truth", "random", "centre_prior")}
    further = {BESIDE: {name: np.arange(COUNT) * 1.0 for name in maps}}
    found = assess(maps, IMAGES, bright, signs=SIGNS, further=further, settings=QUICK)
    assert [r.score for r in found if r.measure == BESIDE] == [11.5, 11.5, 11.5]
    assert judged(found)["truth"].answer == "yes"


def test_every_measure_is_there_once_a_method_and_every_score_beside_its_references():
    names = [f"{kind} ({unit})" for unit in ("logit", "probability")
             for kind in ("deletion", "insertion", "ROAD")]  # fmt: skip
    names += ["pointing game", "mass inside", "IoU", "infidelity"]
    for method in MAPS:
        assert [r.measure.name for r in RESULTS if r.method == method] == names
    for result in RESULTS:
        others = [name for name in ("random", "centre_prior") if name != result.method]
        assert [difference.reference for difference in result.differences] == others
        for found in result.differences:
            assert found.value == pytest.approx(result.score - found.reference_score, abs=1e-12)
            assert (found.units, found.over) == (12, "groups")


def test_the_order_of_images_makes_no_difference():
    order = np.random.default_rng(5).permutation(COUNT)
    moved = assess(
        {name: values[order] for name, values in MAPS.items()},
        IMAGES[order],
        bright,
        signs=SIGNS,
        groups=GROUPS[order],
        masks=MASKS[order],
        settings=QUICK,
    )
    for one, two in zip(rows(RESULTS), rows(moved), strict=True):
        for key, value in one.items():
            # Sums over images, in another order.
            same = pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value
            assert two[key] == same


def test_random_maps_are_hardly_ever_called_better():
    """All six gains must be shown at 2.5 %: of eight random maps not one passes."""
    yes = 0
    for seed in range(1, 5):
        images, maps = planted(12, seed)
        maps = {
            "random": maps["random"],
            "centre_prior": maps["centre_prior"],
            "one": maps["other random"],
            "two": np.random.default_rng([4, seed]).random((12, 3, 3)),
        }
        found = judged(assess(maps, images, bright, signs=np.ones(12), settings=QUICK))
        yes += sum(verdict.answer == "yes" for verdict in found.values())
    assert yes == 0


def simulated(rng, gains, count, methods, groups=None):
    """Verdicts on methods whose scores all decide and are the same: no test is stricter for it."""
    shared = 0 if groups is None else 2 * rng.normal(size=groups.max() + 1)[groups]
    scores = {"random": rng.normal(size=count) + shared}
    for i in range(methods):
        scores[f"method {i}"] = gains + rng.normal(size=count)
    results = compare(HIGHER, scores, references=["random"], groups=groups)
    found = judged(judge(results, references=["random"], reach=1 / MARGIN))
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
        comparisons, "standard_error", lambda values, _: standard_error(values, np.arange(60))
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
    scores = {"random": np.zeros(20), "map": shown, "other": noise}

    def reason(names):
        results = compare(HIGHER, {n: scores[n] for n in names}, references=["random"])
        return judged(judge(results, references=["random"], reach=0.0))["map"].reason

    assert reason(["random", "map"]).startswith("every gain is shown;")
    assert reason(["random", "map", "other"]).startswith("every gain is shown by itself, but not")


def test_gains_are_found_where_there_are_many_images_and_their_absence_too():
    for gains, answer in ((1.0, "yes"), (0.0, "no")):
        assert share_of_trials_with(answer, gains, count=200, methods=1, trials=20) == 1
    # With few, a gain of half the margin can be told neither from nothing nor from enough.
    assert share_of_trials_with("cannot be told", 0.5, count=14, methods=1, trials=50) > 0.4


def test_holms_adjustment_is_that_of_his_example_and_undefined_values_count_as_tests():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    found = holm(np.array([np.nan, 0.01]))
    assert np.isnan(found[0])
    assert found[1] == 0.02


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (np.arange(9.0), "9 images; an interval needs 10"),
        (np.full(20, 3.0), "the difference is the same in every image"),
    ],
)
def test_without_an_interval_nothing_can_be_told_and_the_reason_is_given(scores, reason):
    results = compare(HIGHER, {"map": scores, "random": 0 * scores}, references=["random"])
    (found,) = results[0].differences
    assert np.isnan([found.low, found.high, found.error]).all()
    assert found.reason == reason
    (result, _) = judge(results, references=["random"], reach=1.0)
    assert result.verdict.answer == "cannot be told"
    assert reason in result.verdict.reason


def test_maps_that_do_not_change_with_the_weights_are_said_to_be_insensitive():
    edges = np.abs(np.stack([cv2.Laplacian(image, cv2.CV_64F) for image in IMAGES]))
    maps = MAPS | {"edges": edges}
    del maps["other random"]
    found = judged(
        assess(maps, IMAGES, bright, signs=SIGNS, settings=QUICK,
               weights_correlation={"edges": 1.0, "truth": 0.1})
    )  # fmt: skip
    assert "insensitive to the model's weights (rank correlation 1.00)" in found["edges"].reason
    assert "insensitive" not in found["truth"].reason


def test_what_does_not_decide_gives_no_verdict():
    scores = {"map": np.arange(20.0), "random": np.zeros(20)}
    (result, _) = judge(
        compare(BESIDE, scores, references=["random"]), references=["random"], reach=1.0
    )
    assert result.verdict.answer == "cannot be told"
    assert result.verdict.reason == "nothing was measured that decides"


def test_the_table_has_a_line_a_result_the_settings_the_verdicts_and_the_rule():
    text = table(RESULTS)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(RESULTS)
    assert len({line.count("|") for line in lines}) == 1
    assert lines[0] == (
        "| method | measure | n | score | random | centre_prior | minus random | "
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
    found = rows(RESULTS)
    assert len(found) == sum(len(result.differences) for result in RESULTS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert len({tuple(row) for row in found}) == 1
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]))
    writer.writerows(found)
    assert found[0]["better"] == "lower"
    assert {row["verdict"] for row in found if row["method"] == "random"} == {"reference"}


def test_a_reference_that_is_missing_is_refused_before_anything_is_compared():
    with pytest.raises(SaliencyError, match="references: expected some of map; got random"):
        compare(HIGHER, {"map": np.zeros(3)}, references=["random"])
    with pytest.raises(SaliencyError, match="expected one an image"):
        compare(HIGHER, {"map": np.zeros(3), "random": np.zeros(2)}, references=["random"])
    maps = {"truth": MAPS["truth"], "random": MAPS["random"]}
    with pytest.raises(SaliencyError, match="got centre_prior"):
        assess(maps, IMAGES, lambda x: 1 / 0, signs=SIGNS, settings=QUICK)


def test_masks_of_another_size_are_refused():
    with pytest.raises(SaliencyError, match="masks: expected the size of the images"):
        assess(MAPS, IMAGES, bright, signs=SIGNS, masks=MASKS[:, :6, :6], settings=QUICK)
