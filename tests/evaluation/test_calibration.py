"""What is fitted, stored and applied: the same numbers bit by bit, and refusals."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from prediction_tables import random_predictions

from msa_flax.evaluation.calibration import PROBABILITIES, Calibration, CalibrationError, apply, fit
from msa_flax.evaluation.operating_point import threshold_for_sensitivity
from msa_flax.evaluation.predictions import PredictionsError

OF = {"checkpoint": "best", "step": 12, "data_fingerprint": "f" * 64}


def shuffled(table, seed=1):
    return table.take(np.random.default_rng(seed).permutation(len(table)))


def calibrated(calibration, logits, alpha=0.1):
    return apply(calibration, logits, alpha=alpha)


def test_a_stored_calibration_gives_the_same_numbers_bit_by_bit(tmp_path):
    before = fit(random_predictions("validation"), **OF)
    before.write(tmp_path / "calibration.json")
    after = Calibration.read(tmp_path / "calibration.json")
    assert after.temperature == before.temperature
    assert after.isotonic == before.isotonic
    new = random_predictions("test", seed=1).logit
    one, two = calibrated(before, new), calibrated(after, new)
    assert set(one.probability) == set(two.probability) == set(PROBABILITIES)
    for name, values in one.probability.items():
        np.testing.assert_array_equal(two.probability[name], values)
        assert values.dtype == np.float32
    np.testing.assert_array_equal(two.p_values, one.p_values)
    np.testing.assert_array_equal(two.sets, one.sets)
    after.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "calibration.json").read_bytes()


def test_the_file_says_what_it_belongs_to(tmp_path):
    fit(random_predictions("validation", groups=7), **OF).write(tmp_path / "c.json")
    values = json.loads((tmp_path / "c.json").read_text())
    assert values["schema_version"] == 1
    assert {name: values[name] for name in OF} == OF
    assert values["split"] == "validation"
    assert values["images"] == {"all": 80, "fracture": 40, "normal": 40}
    assert values["groups"] == {"all": 7, "fracture": 7, "normal": 7}
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_the_order_of_rows_changes_no_byte_of_a_file(tmp_path):
    table, test = random_predictions("validation"), random_predictions("test", seed=1)
    for name, one in (("a", table), ("b", shuffled(table))):
        fit(one, **OF).write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    calibration = fit(table, **OF)
    for name, one in (("c", test), ("d", shuffled(test))):
        calibrated(calibration, one.logit).write(tmp_path / name, one.example_id)
    assert (tmp_path / "c").read_bytes() == (tmp_path / "d").read_bytes()


def test_only_validation_images_are_fitted_on():
    with pytest.raises(CalibrationError, match="'validation' only, got test"):
        fit(random_predictions("test"), **OF)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"step": 13}, "is of step 12, this is step 13"),
        ({"checkpoint": "last"}, "is of checkpoint best, this is checkpoint last"),
        ({"data_fingerprint": "a" * 64}, "data fingerprint ffffffffffff, this is"),
    ],
)
def test_a_calibration_of_another_checkpoint_is_refused(other, said):
    calibration = fit(random_predictions("validation"), **OF)
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
        lambda values: values.update(operating_point={"threshold": 0.5}),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(change, tmp_path):
    path = tmp_path / "c.json"
    fit(random_predictions("validation"), **OF).write(path)
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
    calibration, test = (
        fit(random_predictions("validation"), **OF),
        random_predictions("test", seed=1),
    )
    found = calibrated(calibration, test.logit)
    found.write(tmp_path / "calibrated.csv", test.example_id)
    with (tmp_path / "calibrated.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["example_id", *PROBABILITIES, "set", "p_fracture", "p_normal"]
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
    found = calibrated(fit(random_predictions("validation"), **OF), np.float32([0, 1, 2]))
    found.write(tmp_path / "t.csv", names)
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [row["example_id"] for row in csv.DictReader(file)] == sorted(names.tolist())


@pytest.mark.parametrize(("groups", "counted"), [(20, "groups"), (0, "images")])
def test_a_wanted_sensitivity_chooses_an_operating_point(groups, counted, tmp_path):
    table = random_predictions("validation", groups=groups)
    without, fitted = fit(table, **OF), fit(table, **OF, sensitivity=0.8)
    chosen = threshold_for_sensitivity(
        table.label, table.probability, 0.8, group=table.group if groups else None
    )
    assert without.operating_point is None
    assert fitted.operating_point == chosen
    assert chosen.counted == counted
    fitted.write(tmp_path / "with.json")
    assert Calibration.read(tmp_path / "with.json").operating_point == chosen
    values = json.loads((tmp_path / "with.json").read_text())
    assert values.pop("operating_point") == dataclasses.asdict(chosen)
    without.write(tmp_path / "without.json")
    assert values == json.loads((tmp_path / "without.json").read_text())


@pytest.mark.parametrize("change", [{"threshold": 0.999}, {"missed": 1}, {"n": 99}])
def test_an_operating_point_that_was_changed_is_refused(change, tmp_path):
    path = tmp_path / "c.json"
    fit(random_predictions("validation", groups=0), **OF, sensitivity=0.8).write(path)
    values = json.loads(path.read_text())
    values["operating_point"] |= change
    path.write_text(json.dumps(values))
    with pytest.raises(CalibrationError, match="an operating point that its logits do not give"):
        Calibration.read(path)


def test_no_operating_point_is_chosen_where_some_groups_are_unknown():
    table = random_predictions("validation")
    part = dataclasses.replace(table, group=np.where(np.arange(80) < 5, "", table.group))
    with pytest.raises(PredictionsError, match="a known group for every image of 'fracture'"):
        fit(part, **OF, sensitivity=0.8)
    assert fit(part, **OF).operating_point is None
