"""A finished run with everything, read back."""

import pytest
from saved_runs import write_run

from msa_flax.reporting.saved import read_run


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Returns the folder of a run with groups, explanations, and an audit."""
    folder = tmp_path_factory.mktemp("saved") / "w"
    return write_run(folder, explained=range(0, 120, 3), audit=True)


@pytest.fixture(scope="session")
def run(saved):
    return read_run(saved, "test")
