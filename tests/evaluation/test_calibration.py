"""What is fitted, stored, applied and said: the same numbers bit by bit, and reasons."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from msa_flax.evaluation import calibration_summary, conformal
from msa_flax.evaluation.calibration import COLUMNS, Calibration, CalibrationError, apply, fit
from msa_flax.evaluation.predictions import Predictions, sigmoid
from msa_flax.evaluation.summary import metrics_json
from msa_flax.evaluation.terminal import calibration_lines
from msa_flax.files import write_json

OF = {"checkpoint": "best", "step": 12, "data_fingerprint": "f" * 64}
METHODS = ("temperature", "isotonic", "venn_abers")


def predictions(split="validation", n=80, *, seed=0, groups=20, logits=None, labels=None):
    rng = np.random.default_rng(seed)
    if labels is None:
        labels = np.arange(n) % 2
    if logits is None:
        logits = 3 * rng.normal(labels - 0.5, 1)
    logits = np.asarray(logits, np.float32)
    n = len(logits)
    numbers = np.arange(n) if groups is None else np.arange(n) // 2 % max(groups, 1)
    return Predictions(
        example_id=np.char.mod(f"{split} %03d.png", rng.permutation(n)),
        split=np.full(n, split),
        fold=np.full(n, ""),
        group=np.full(n, "") if groups == 0 else np.char.mod("g%d", numbers),
        family=np.full(n, ""),
        label=np.asarray(labels),
        logit=logits,
        probability=sigmoid(logits),
    )


def shuffled(table, seed=1):
    order = np.random.default_rng(seed).permutation(len(table))
    fields = [field.name for field in dataclasses.fields(table)]
    return Predictions(**{name: getattr(table, name)[order] for name in fields})


def calibrated(calibration, logits, alpha=0.1):
    return apply(calibration, logits, alpha=alpha)


def sections(calibration, table, *, alpha=0.1, doubts=()):
    values = metrics_json(table, split="test", threshold=0.5, stamps=[], seconds=1.0)
    found = calibrated(calibration, table.logit, alpha=alpha)
    return values, calibration_summary.sections(
        calibration, table, found, values=values, alpha=alpha, doubts=doubts
    )


def test_a_stored_calibration_gives_the_same_numbers_bit_by_bit(tmp_path):
    before = fit(predictions(), **OF)
    before.write(tmp_path / "calibration.json")
    after = Calibration.read(tmp_path / "calibration.json")
    assert after.temperature == before.temperature
    assert after.isotonic == before.isotonic
    new = predictions("test", seed=1).logit
    one, two = calibrated(before, new), calibrated(after, new)
    assert set(one.probability) == set(two.probability) == set(COLUMNS[1:6])
    for name, values in one.probability.items():
        np.testing.assert_array_equal(two.probability[name], values)
        assert values.dtype == np.float32
    np.testing.assert_array_equal(two.p_values, one.p_values)
    np.testing.assert_array_equal(two.sets, one.sets)
    after.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "calibration.json").read_bytes()


def test_the_file_says_what_it_belongs_to(tmp_path):
    fit(predictions(groups=7), **OF).write(tmp_path / "c.json")
    values = json.loads((tmp_path / "c.json").read_text())
    assert values["schema_version"] == 1
    assert {name: values[name] for name in OF} == OF
    assert values["split"] == "validation"
    assert values["images"] == {"all": 80, "fracture": 40, "normal": 40}
    assert values["groups"] == {"all": 7, "fracture": 7, "normal": 7}
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_the_order_of_rows_changes_neither_file_nor_sections(tmp_path):
    table, test = predictions(), predictions("test", seed=1)
    for name, one in (("a", table), ("b", shuffled(table))):
        fit(one, **OF).write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    calibration = fit(table, **OF)
    assert sections(calibration, shuffled(test)) == sections(calibration, test)
    for name, one in (("c", test), ("d", shuffled(test))):
        calibrated(calibration, one.logit).write(tmp_path / name, one.example_id)
    assert (tmp_path / "c").read_bytes() == (tmp_path / "d").read_bytes()


def test_only_validation_images_are_fitted_on():
    with pytest.raises(CalibrationError, match="'validation' only, got test"):
        fit(predictions("test"), **OF)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"step": 13}, "is of step 12, this is step 13"),
        ({"checkpoint": "last"}, "is of checkpoint best, this is checkpoint last"),
        ({"data_fingerprint": "a" * 64}, "data fingerprint ffffffffffff, this is"),
    ],
)
def test_a_calibration_of_another_checkpoint_is_refused(other, said):
    calibration = fit(predictions(), **OF)
    calibration.check_belongs(**OF)
    with pytest.raises(CalibrationError, match=said) as error:
        calibration.check_belongs(**(OF | other))
    assert "--calibrate" in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("logits"),
        lambda values: values.update(schema_version=2),
        lambda values: values["logits"]["fracture"].pop(),
        lambda values: values.update(temperature={"warmth": 2.0}),
        lambda values: values.update(step="twelve"),
        lambda values: values.update(logits=[1, 2]),
        lambda values: values["logits"].update(normal=["cold"]),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(change, tmp_path):
    path = tmp_path / "c.json"
    fit(predictions(), **OF).write(path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(CalibrationError, match="expected a stored calibration") as error:
        Calibration.read(path)
    assert "\n" not in str(error.value)
    path.write_text('{"step": ')
    with pytest.raises(CalibrationError, match="expected a stored calibration"):
        Calibration.read(path)


def test_the_table_holds_the_values_by_example(tmp_path):
    calibration, test = fit(predictions(), **OF), predictions("test", seed=1)
    found = calibrated(calibration, test.logit)
    found.write(tmp_path / "calibrated.csv", test.example_id)
    with (tmp_path / "calibrated.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    order = np.argsort(test.example_id)
    assert [row["example_id"] for row in rows] == test.example_id[order].tolist()
    for name, values in found.probability.items():
        read = np.array([row[name] for row in rows]).astype(np.float32)
        np.testing.assert_array_equal(read, values[order])
    for k, name in enumerate(("p_normal", "p_fracture")):
        read = np.array([float(row[name]) for row in rows])
        np.testing.assert_array_equal(read, found.p_values[order, k])
    assert [row["set"] for row in rows] == found.sets[order].tolist()


def test_names_with_commas_and_quotes_come_back_from_the_table(tmp_path):
    names = np.array(['a,"b".png', "c\rd.png", "e.png"])
    found = calibrated(fit(predictions(), **OF), np.float32([0, 1, 2]))
    found.write(tmp_path / "t.csv", names)
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [row["example_id"] for row in csv.DictReader(file)] == sorted(names.tolist())


def test_sections_hold_the_scores_beside_the_uncalibrated_ones(tmp_path):
    calibration, test = fit(predictions(n=400), **OF), predictions("test", 400, seed=1)
    values, found = sections(calibration, test)
    write_json(tmp_path / "metrics.json", values | found)  # no NaN, nothing JSON cannot say
    part = found["calibration"]
    for score in calibration_summary.SCORES:
        assert part["uncalibrated"][score] == values["metrics"][score]
    brier = np.mean((calibrated(calibration, test.logit).probability["isotonic"] - test.label) ** 2)
    # The table's probabilities are float32, of seven digits.
    assert part["isotonic"]["metrics"]["brier"]["value"] == pytest.approx(brier, abs=1e-6)
    for name in METHODS:
        entry = part[name]["metrics"]["brier"]
        assert entry["method"] == "clustered bootstrap"
        assert entry["groups"] == 20
    assert part["temperature"]["parameters"] == {"temperature": calibration.temperature.value}
    # Logits were made three times too large for their noise: dividing by about 1.5 is better.
    better = part["temperature"]["metrics"]["log_loss"]["value"]
    assert better < values["metrics"]["log_loss"]["value"]


def test_an_isotonic_probability_of_0_for_a_fracture_has_no_log_loss_but_a_reason():
    labels = np.repeat([0, 1], 20)
    calibration = fit(predictions(logits=np.linspace(-2, 2, 40), labels=labels), **OF)
    test = predictions("test", logits=np.linspace(2, -2, 40), labels=labels)
    _, found = sections(calibration, test)
    entry = found["calibration"]["isotonic"]["metrics"]["log_loss"]
    assert entry["value"] is None
    assert "the loss is infinite" in entry["reason"]
    assert found["calibration"]["venn_abers"]["metrics"]["log_loss"]["value"] > 0
    warm = found["calibration"]["temperature"]["parameters"]
    assert "Platt's" in warm["reason"]


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (np.linspace(-2, 2, 30), np.zeros(30, int), "no fracture"),
        (np.linspace(-2, 2, 30), np.ones(30, int), "no normal image"),
        (np.full(30, 0.5), np.arange(30) % 2, "are the same"),
    ],
)
def test_degenerate_validation_images_leave_conformal_sets_and_a_reason(
    logits, labels, said, tmp_path
):
    fit(predictions(logits=logits, labels=labels), **OF).write(tmp_path / "c.json")
    calibration = Calibration.read(tmp_path / "c.json")
    test = predictions("test", seed=1)
    values, found = sections(calibration, test)
    for name in METHODS:
        assert set(found["calibration"][name]) == {"reason"}
        assert said in found["calibration"][name]["reason"]
    write_json(tmp_path / "m.json", values | found)
    calibrated(calibration, test.logit).write(tmp_path / "t.csv", test.example_id)
    with (tmp_path / "t.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert [row[name] for name in COLUMNS[1:6]] == [""] * 5
    assert row["set"] in conformal.SETS
    for name, label in (("fracture", 1), ("normal", 0)):
        if label not in labels:
            assert found["conformal"]["coverage"][name]["value"] == 1
            limit = found["conformal"]["thresholds"][name]
            assert (limit["n"], limit["logit"]) == (0, None)
            assert "takes 9 validation images of that class, there are 0" in limit["reason"]
    said_of_it = calibration_lines({"test": values | found})
    assert said in said_of_it
    assert all(line.startswith("test: ") for line in said_of_it.splitlines())


@pytest.mark.parametrize(
    ("groups", "doubts", "guarantee", "said"),
    [
        (None, [], True, "probability 0.9 or more for each class"),
        (20, [], False, "the 80 validation images are of 20 groups"),
        (0, [], False, "groups unknown"),
        (0, ["groups unknown"], False, "groups unknown"),
        (None, ["copies cross the split"], False, "copies cross the split"),
        (None, ["from elsewhere", "series cross the split"], False, "elsewhere; series cross"),
    ],
)
def test_a_guarantee_is_given_only_where_images_may_be_exchangeable(
    groups, doubts, guarantee, said
):
    calibration = fit(predictions(groups=groups), **OF)
    test = predictions("test", seed=1, groups=groups)
    _, found = sections(calibration, test, doubts=doubts)
    assert found["conformal"]["guarantee"] is guarantee
    assert said in found["conformal"]["reason"]
    assert found["conformal"]["reason"].count("groups unknown") <= 1


def test_several_evaluated_images_of_one_group_end_the_guarantee_too():
    calibration = fit(predictions(groups=None), **OF)
    _, found = sections(calibration, predictions("test", seed=1, groups=20))
    assert not found["conformal"]["guarantee"]
    assert "the 80 evaluated images are of 20 groups" in found["conformal"]["reason"]


def test_alpha_is_chosen_when_it_is_used():
    calibration, test = fit(predictions(), **OF), predictions("test", seed=1)
    shares = [
        sections(calibration, test, alpha=alpha)[1]["conformal"]["coverage"]["overall"]["value"]
        for alpha in (0.05, 0.2, 0.5)
    ]
    assert shares == sorted(shares, reverse=True)
    np.testing.assert_array_equal(
        calibrated(calibration, test.logit, alpha=0.2).p_values,
        calibrated(calibration, test.logit).p_values,
    )


def test_the_terminal_is_told_in_a_few_lines_and_nothing_where_there_is_nothing():
    calibration, test = fit(predictions(), **OF), predictions("test", seed=1)
    values, found = sections(calibration, test)
    lines = calibration_lines({"test": values | found}).splitlines()
    assert len(lines) == 3
    assert "calibrated on 80 validation images: temperature (" in lines[0]
    assert "abstaining on" in lines[1]
    assert "not guaranteed: the 80 validation images" in lines[2]
    assert calibration_lines({"test": values}) == ""
    reason = calibration_summary.unavailable("because")
    assert calibration_lines({"v": values | reason}) == "v: not calibrated: because\n"
