"""Any configuration is taken as it is or refused with the names of its fields; nothing else."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msa_flax.config import Config, ConfigError, quickstart
from msa_flax.files import flatten

FIELDS = sorted(flatten(Config().to_dict()))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-9, 9) | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)
JSON = st.recursive(VALUES, lambda inner: st.dictionaries(st.text(max_size=8), inner, max_size=3))


def with_field(name, value):
    values = quickstart().to_dict()
    *sections, last = name.split(".")
    inner = values
    for section in sections:
        inner = inner[section]
    inner[last] = value
    return values


def refusal(values):
    """Why values are refused, and None; or nothing, and the configuration that they are."""
    try:
        return "", Config.from_dict(values).validate()
    except ConfigError as error:
        return str(error), None


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(FIELDS), value=VALUES)
def test_any_value_of_any_field_is_taken_or_refused_by_the_field_s_name(name, value):
    refused, config = refusal(with_field(name, value))
    if config is None:
        assert name.rsplit(".", 1)[-1] in refused
        return
    # What is taken stays what it is, through the file that a run keeps.
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@settings(max_examples=200, deadline=None)
@given(values=st.dictionaries(st.sampled_from([*Config().to_dict(), "x"]), JSON, max_size=3))
def test_any_json_is_a_configuration_or_refused(values):
    refused, config = refusal(values)
    assert bool(refused) != bool(config)


@given(values=JSON.filter(lambda values: not isinstance(values, dict)))
def test_what_is_no_table_of_fields_is_refused(values):
    with pytest.raises(ConfigError, match="expected"):
        Config.from_dict(values)
