"""A finished run with everything, read back."""

import shutil

import pytest
from saved_runs import write_run

from msa_flax.reporting.saved import read_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser():
    """A browser, where one is installed; the test skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason='pip install -e ".[browser]"')
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        # As root in a container a browser has no sandbox of its own.
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Returns the folder of a run with groups, explanations, and an audit."""
    folder = tmp_path_factory.mktemp("saved") / "w"
    return write_run(folder, explained=range(0, 120, 3), audit=True)


@pytest.fixture(scope="session")
def run(saved):
    return read_run(saved, "test")
