"""What cannot be meant, or cannot be done, is refused by the configuration before any work."""

import dataclasses

import pytest

from msa_flax.config import ConfigError, quickstart
from msa_flax.config_checks import looks_positive


def problem(**fields):
    """Returns what is said of the quickstart with ``section__field=value``, "" if it is valid."""
    config = quickstart()
    for name, value in fields.items():
        section, field = name.split("__")
        setattr(getattr(config, section), field, value)
    try:
        config.validate()
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("negative", "positive"),
    [
        ("normal", "fracture"),
        ("Normal", "Fractured"),
        ("no_fracture", "fracture"),
        ("Unfractured", "FRACTURED"),
        ("non-fracture", "fracture"),
        ("normal", "abnormal"),
        ("healthy", "B"),
        ("A", "Fraktur"),
        ("正常", "骨折"),
        ("neg", "pos"),
    ],
)
def test_the_positive_class_comes_second_and_the_other_order_is_refused(negative, positive):
    """In the other order every number of one class would be reported as the other one's."""
    assert problem(data__classes=(negative, positive)) == ""
    said = problem(data__classes=(positive, negative))
    assert f"--config.data.classes={negative},{positive}" in said


def test_an_order_that_the_names_seem_to_contradict_can_be_confirmed():
    assert problem(data__classes=("fracture", "implant"), data__positive="implant") == ""
    assert "negative class first" in problem(data__positive="normal")
    assert "'both' has another meaning" in problem(data__classes=("normal", "both"))
    assert "expected one of normal and fracture" in problem(data__positive="x")
    assert problem(data__classes=("B", "A")) == ""  # these names tell nothing
    assert looks_positive("B") is None


@pytest.mark.parametrize(
    "names", [("a", "A"), ("a", ""), (1, 2), ("normal", "../../etc"), ("a", ".")]
)
def test_classes_are_two_plain_names_of_folders(names):
    assert "expected two different folder names" in problem(data__classes=names)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model__alpha", 0.001),
        ("model__alpha", 1000.0),
        ("model__batch_norm_momentum", 1.0),
        ("model__batch_norm_momentum", -0.1),
        ("model__alpha", float("nan")),
        ("data__image_size", 100_000),
        ("data__phantom_patients", 2_000_000_000),
        ("train__epochs", 10**9),
        ("train__batch_size", 100_000),
        ("train__steps_per_dispatch", 100_000),
        ("optim__learning_rate", float("inf")),
        ("optim__learning_rate", 10**400),
    ],
)
def test_numbers_too_large_or_too_small_to_be_meant_are_refused(field, value):
    assert field.replace("__", ".") in problem(**{field: value})


def test_a_phantom_that_no_memory_holds_is_refused():
    assert "GB" in problem(data__phantom_patients=100_000, data__image_size=4096)


def test_every_problem_is_a_plain_sentence():
    config = quickstart()
    config.data = dataclasses.replace(config.data, classes=("骨折", "正常"), folds=1)
    with pytest.raises(ConfigError) as caught:
        config.validate()
    assert "\n" not in str(caught.value)
