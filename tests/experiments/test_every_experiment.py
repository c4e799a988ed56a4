"""Every experiment and every row of every table builds, is valid, and says what it claims."""

import importlib
import re
import runpy
import sys

import protocol
import pytest
import sweep

from msa_flax.config import Config, quickstart
from msa_flax.models import MODELS

SINGLE = ("paper1_msa", "quickstart")
TABLES = ("ablation_msa", "paper1_table4", "paper1_table5", "paper1_table6", "paper2_table1")
EXPERIMENTS = (*SINGLE, *TABLES, "protocol")

load = importlib.import_module


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_documents_claim_command_time_and_what_was_obtained(name):
    for words in ("Claim", "python -m msa_flax.train", f"experiments/{name}.py", "Obtained"):
        assert words in load(name).__doc__
    assert re.search(r"\bs\b|seconds|minutes|hours", load(name).__doc__)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_loaded_from_its_file_alone(name, monkeypatch):
    """As the train command loads it: nothing beside the file can be imported."""
    here = str(sweep.HERE)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != here])
    monkeypatch.delitem(sys.modules, "table_rows", raising=False)
    values = runpy.run_path(str(sweep.HERE / f"{name}.py"))
    assert isinstance(values["get_config"](), Config)


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_experiment_builds_a_valid_configuration(name):
    config = load(name).get_config(*(["somewhere"] if name == "paper1_msa" else []))
    assert isinstance(config.validate(), Config)
    assert config.name == name


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_table_builds_a_valid_configuration(name):
    table = load(name)
    assert table.PAPER.keys() <= table.ROWS.keys()
    for row in table.ROWS:
        config = table.get_config(row)
        config.data.root = "somewhere"
        assert isinstance(config.validate(), Config)
        assert config.name == f"{name}:{row}"
        assert config.model.backbone in MODELS
        assert set(table.PAPER.get(row, {})) <= set(table.METRICS)
    with pytest.raises(ValueError, match="expected a row out of"):
        table.get_config("resnet51")


def test_the_tables_are_found_and_cover_every_backbone():
    assert tuple(sweep.table_files()) == TABLES
    rows = [load(name).get_config(row) for name in TABLES for row in load(name).ROWS]
    assert {config.model.backbone for config in rows} == set(MODELS)


def test_rows_that_two_tables_share_have_one_configuration():
    for name in TABLES:
        for row, other in getattr(load(name), "SHARED", {}).items():
            table, there = other.split("/")
            ours, theirs = load(name).get_config(row), load(table).get_config(there)
            ours.name = theirs.name
            assert ours == theirs


def test_the_quickstart_experiment_is_the_embedded_default():
    assert load("quickstart").get_config() == quickstart()


def test_the_papers_experiment_is_the_defaults_with_leakage_allowed():
    expected = Config()
    expected.data.root, expected.data.allow_leakage = "somewhere", True
    assert load("paper1_msa").get_config("somewhere") == expected
    row = load("paper1_table4").get_config("msa")
    row.name, row.data.root = expected.name, "somewhere"
    assert row == expected


@pytest.mark.parametrize("model", protocol.MODELS)
@pytest.mark.parametrize("split", ["published", "family", "grouped,B12"])
def test_every_protocol_is_a_valid_configuration(model, split):
    config = protocol.get_config(f"{model},{split}")
    config.data.root = "somewhere"
    assert isinstance(config.validate(), Config)
    assert config.name == f"protocols:{model},{split}"
    assert config.data.allow_leakage == (split == "published")
    assert config.train.epochs == protocol.EPOCHS


@pytest.mark.parametrize(
    "arg", ["resnet51,family", "msa", "msa,kfold", "msa,grouped", "msa,family,B12"]
)
def test_another_protocol_is_refused_with_the_choices(arg):
    with pytest.raises(ValueError, match=r"expected MODEL,PROTOCOL out of msa, mobilenet_v2"):
        protocol.get_config(arg)
