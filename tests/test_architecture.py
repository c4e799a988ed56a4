"""The arrows between the parts, and the budgets that keep files readable, are tests."""

import ast
import pathlib
import statistics
import subprocess
import sys

import pytest

import msa_flax
from msa_flax.models import MODELS, NATIVE_SCALING, PARAM_COUNTS
from msa_flax.weights import KERAS_FAMILIES

PACKAGE = pathlib.Path(msa_flax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# part -> what it may import of this package; anything not listed is forbidden
ARROWS = {
    "models": {"models"},
    "weights": {"weights"},
    "data": {"data", "config"},
    "training": {"training", "config"},
    "evaluation": {"evaluation"},
    "auditing": {"auditing", "data", "evaluation", "plots"},
    "plots": {"plots", "evaluation"},
    "reporting": {"reporting", "plots", "evaluation", "auditing", "saliency"},
    "saliency": {"saliency", "evaluation"},
    # The one part that takes a whole run, and so puts the others together.
    "results": {"results", "run", "config", "data", "evaluation", "auditing", "plots", "saliency"},
}
NOT_IN_KERAS = {"googlenet", "lenet_alexnet"}
COMMANDS = {"train.py", "evaluate.py", "explain.py", "audit.py", "report.py"}
OTHERS_AT_THE_TOP = {"__init__.py", "__main__.py", "cli.py", "config.py", "files.py", "run.py"}


def imports(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_parts(path: pathlib.Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("msa_flax.")}


@pytest.mark.parametrize("part", sorted(ARROWS))
def test_a_part_imports_only_what_its_arrows_allow(part):
    found = set().union(*(own_parts(path) for path in (PACKAGE / part).rglob("*.py")))
    assert found <= ARROWS[part] | {"files"}


def test_every_folder_is_a_part_and_every_file_at_the_top_is_a_command_or_known():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    files = {path.name for path in PACKAGE.glob("*.py")}
    assert folders == set(ARROWS)
    assert files == COMMANDS | OTHERS_AT_THE_TOP


def test_only_data_imports_tensorflow_and_there_only_two_places():
    users = {
        path.relative_to(PACKAGE).parts[:2]
        for path in FILES
        if any(
            name.split(".")[0] in ("tensorflow", "tensorflow_datasets") for name in imports(path)
        )
    }
    assert users <= {("data", "tfds.py"), ("data", "pipeline.py")}


def test_nothing_imports_experiments_or_tests():
    for path in FILES:
        assert not {name.split(".")[0] for name in imports(path)} & {"experiments", "tests"}, path


@pytest.mark.parametrize("module", ["msa_flax", "msa_flax.run", "msa_flax.evaluate"])
def test_importing_does_not_import_tensorflow(module):
    code = f"import sys, {module}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_imports_nothing_heavy(name):
    module = f"msa_flax.{name.removesuffix('.py')}"
    code = (
        "import atexit, os, runpy, sys; sys.argv = ['command', '--help'];"
        "heavy = {'numpy', 'cv2', 'sklearn', 'matplotlib', 'jax', 'flax', 'tensorflow'};"
        "atexit.register(lambda: heavy & set(sys.modules) and os._exit(3));"
        f"runpy.run_module('{module}', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"--workdir" in done.stdout


def test_the_tables_of_models_are_complete():
    assert set(MODELS) == set(PARAM_COUNTS) == set(NATIVE_SCALING)
    assert set(MODELS) == set(KERAS_FAMILIES) | NOT_IN_KERAS


def test_files_and_functions_stay_short():
    lines = [len(path.read_text().splitlines()) for path in FILES]
    assert max(lines) <= 350
    assert statistics.median(lines) <= 200
    lengths = sorted(
        node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )
    assert lengths[int(0.9 * len(lengths))] <= 35
