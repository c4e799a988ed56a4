"""Every experiment builds, is valid, and says what it claims."""

import importlib.util
import pathlib

import pytest

from msa_flax.config import Config, quickstart

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"
FILES = sorted(FOLDER.glob("*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_builds_a_valid_configuration_and_documents_it(path):
    module = load(path)
    config = module.get_config("somewhere") if path.stem != "quickstart" else module.get_config()
    assert isinstance(config.validate(), Config)
    assert config.name == path.stem
    for word in ("Claim:", "python -m msa_flax.train", f"experiments/{path.name}"):
        assert word in module.__doc__


def test_the_quickstart_experiment_is_the_embedded_default():
    assert load(FOLDER / "quickstart.py").get_config() == quickstart()


def test_the_papers_experiment_is_the_defaults_with_leakage_allowed():
    expected = Config()
    expected.data.root, expected.data.allow_leakage = "somewhere", True
    assert load(FOLDER / "paper1_msa.py").get_config("somewhere") == expected
