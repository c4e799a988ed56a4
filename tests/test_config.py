import dataclasses
import json

import pytest

from msa_flax.config import Config, ConfigError, DataConfig, changed_fields, quickstart


def test_the_quickstart_is_valid_and_survives_json():
    config = quickstart().validate()
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_defaults_are_the_papers():
    config = Config(data=DataConfig(root="somewhere")).validate()
    assert (config.train.epochs, config.train.batch_size) == (15, 16)
    assert (config.optim.name, config.optim.learning_rate, config.optim.epsilon) == (
        "adam",
        1e-3,
        1e-7,
    )
    assert config.model.kernel_sizes == (3, 5, 7)
    assert (config.data.image_size, config.data.preprocess) == (224, "paper")


def test_a_misspelt_field_cannot_be_set():
    with pytest.raises(AttributeError):
        Config().model.kernel_size = (3,)
    with pytest.raises(ConfigError, match=r"model\.kernel_size"):
        Config.from_dict({"model": {"kernel_size": [3]}})


@pytest.mark.parametrize(
    ("section", "field", "value", "said"),
    [
        ("model", "alpha", "wide", "expected float"),
        ("model", "alpha", -1.0, "above 0"),
        ("model", "attention", "senet", "expected one of msa, cbam, none"),
        ("model", "kernel_sizes", (3, 4), "odd"),
        ("model", "kernel_sizes", (), "odd"),
        ("model", "kernel_sizes", (3, 3), "distinct"),
        ("model", "dropout", 1.0, r"\[0, 1\)"),
        ("data", "classes", ("a", "b", "c"), "more than two classes"),
        ("data", "protocol", "published", "split by patient"),
        ("data", "family_pattern", "(", "regular expression"),
        ("data", "group_pattern", "B", "named group"),
        ("data", "fold", 5, "fold < data.folds"),
        ("data", "validation_fraction", 1.0, r"\(0, 1\)"),
        ("optim", "learning_rate", 0.0, "above 0"),
        ("train", "batch_size", 1, "expected 2 to"),
        ("train", "batch_size", True, "expected int"),
        ("train", "seed", -1, "0 .."),
        ("train", "freeze_backbone", True, "needs pretrained weights"),
        ("eval", "threshold", 0.0, r"\(0, 1\)"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field_and_the_reason(section, field, value, said):
    config = quickstart()
    setattr(getattr(config, section), field, value)
    with pytest.raises(ConfigError, match=said) as caught:
        config.validate()
    assert f"{section}.{field}" in str(caught.value)


def test_all_problems_are_reported_at_once():
    config = quickstart()
    config.model.head, config.data.source, config.optim.name = "x", "y", "z"
    with pytest.raises(ConfigError) as caught:
        config.validate()
    assert all(field in str(caught.value) for field in ("model.head", "data.source", "optim.name"))


def test_a_run_may_be_continued_with_more_epochs_and_other_logging_only():
    old, new = Config(), Config()
    new.train.epochs += 1
    new.train.log_every += 1
    assert changed_fields(old.to_dict(), new.to_dict()) == []
    assert changed_fields(new.to_dict(), old.to_dict()) == ["train.epochs"]
    new.train.seed += 1
    assert changed_fields(old.to_dict(), new.to_dict()) == ["train.seed"]


def test_every_field_of_every_section_has_a_comment_with_its_origin():
    import inspect

    import msa_flax.config as module

    source = inspect.getsource(module)
    for section in dataclasses.fields(Config):
        if not dataclasses.is_dataclass(section.default_factory):
            continue
        for field in dataclasses.fields(section.default_factory):
            assert f"    {field.name}: " in source


def test_epochs_are_fixed_where_the_learning_rate_depends_on_them():
    old, new = quickstart(), quickstart()
    new.train.epochs += 1
    assert changed_fields(old.to_dict(), new.to_dict()) == ["train.epochs"]
