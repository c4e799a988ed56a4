"""The plan of the house as tests: who imports whom, what is complete, and how long things are."""

import ast
import graphlib
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

PARTS = (
    "models",
    "weights",
    "data",
    "training",
    "evaluation",
    "auditing",
    "plots",
    "saliency",
    "prediction",
    "exporting",
    "archive",
)
# part -> the parts it may import; every part may import itself and files.py, nothing else
ARROWS = {
    "models": set(),
    "weights": set(),
    "data": {"config"},
    "training": {"config", "run_files"},
    "evaluation": set(),
    "auditing": {"data", "evaluation", "plots", "config"},
    "plots": {"evaluation"},
    "reporting": {"plots", "evaluation", "auditing", "saliency", "run_files"},
    "saliency": {"evaluation"},
    "prediction": {"data", "evaluation", "config"},
    "exporting": {"prediction", "evaluation", "training", "weights"},
    "preparation": {"data", "config"},
    "archive": set(),
    # The one part that takes a whole run, and so puts the others together.
    "results": {"run", "config", "reporting", *PARTS},
}
COMMANDS = {
    "train",
    "evaluate",
    "predict",
    "watch",
    "export",
    "explain",
    "audit",
    "report",
    "prepare",
}
GROUND = {
    "__init__",
    "__main__",
    "cli",
    "cli_model",
    "config",
    "config_checks",
    "files",
    "initial",
    "run",
    "run_files",
}  # beside them, at the top
NOT_IN_KERAS = {"googlenet", "lenet_alexnet"}

# What has no test file of its own, and what tests it; every other file has one of its name.
TESTED_ELSEWHERE = {
    "train": "test_end_to_end.py",
    "archive/visits": "archive/test_queue.py",
    "cli_model": "test_predict.py",
    "auditing/findings": "auditing/test_audit.py",
    "data/overlap": "results/test_scores_external.py",
    "evaluation/shapes": "reporting/test_shapes.py",
    "results/features": "results/test_training.py",
    "results/overview": "test_end_to_end.py",
    "results/scores": "test_evaluate_calibration.py",
    "training/compile": "training/test_devices.py",
    "training/progress": "test_end_to_end.py",
} | {
    f"{folder}{name}": f"parity/test_{name}.py"
    for folder in ("models/", "weights/rules/")
    for name in ("mobilenet_v1", "mobilenet_v2", "resnet50", "efficientnet_b0")
}
# Tests of more than one file, or of what is not Python.
OF_NO_FILE = {
    "architecture",
    "archive/guide",  # its commands and settings
    "archive/peers",  # programs of others take the results
    "commands",  # every flag of all of them
    "end_to_end",
    "models/all_models",
    "privacy",  # of all artefacts
    "reporting/operating_point",  # the script of the page
    "saliency/own_model",  # the example in the guide
    "weights/rules",  # the folder
}

LINES_OF_CODE = 19_380
LINES_OF_A_FILE = 350
LINES_OF_A_MEDIAN_FILE = 150
LINES_OF_A_FUNCTION = 30  # of nine in ten functions, without their docstrings


def imports(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_parts(path: pathlib.Path) -> set[str]:
    names = {name.split(".")[1] for name in imports(path) if name.startswith("msa_flax.")}
    return names - {"__version__"}


def module_name(path: pathlib.Path) -> str:
    return ".".join(("msa_flax", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def documented(tree: ast.AST) -> list[tuple[str, ast.AST]]:
    """Public functions, classes and methods with their names, whatever they are inside of."""
    found = []
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            found.append((node.name, node))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += documented(node)
    return found


def lines_of_code(path: pathlib.Path) -> int:
    text = path.read_text()
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            documentation |= set(range(body[0].lineno, body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and number not in documentation for number, line in lines)


@pytest.mark.parametrize("part", sorted(ARROWS))
def test_a_part_imports_only_what_its_arrows_allow(part):
    found = set().union(*(own_parts(path) for path in (PACKAGE / part).rglob("*.py")))
    assert found <= ARROWS[part] | {part, "files"}


def test_the_ground_floor_imports_nothing_of_the_package():
    assert not own_parts(PACKAGE / "files.py")
    assert own_parts(PACKAGE / "config.py") <= {
        "config",  # it imports itself by name
        "config_checks",
        "files",
    }
    assert not own_parts(PACKAGE / "config_checks.py")
    assert own_parts(PACKAGE / "run_files.py") == {"files"}
    assert own_parts(PACKAGE / "cli.py") <= {"config", "files"}


def test_nothing_imports_a_command():
    for path in FILES:
        assert not own_parts(path) & COMMANDS, path


def test_every_folder_is_a_part_and_every_file_at_the_top_is_a_command_or_known():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    files = {path.stem for path in PACKAGE.glob("*.py")}
    assert folders == set(ARROWS)
    assert files == COMMANDS | GROUND


def test_no_module_imports_itself_through_others_in_a_circle():
    names = {module_name(path): path for path in FILES}
    graph = {}
    for name, path in names.items():
        # A package's own file gathers what is in its folder; that is no circle.
        inside = name + "." if path.stem == "__init__" else "\0"
        graph[name] = {
            other
            for other in imports(path)
            if other in names
            and other != name
            and not other.startswith(inside)
            and names[other].stem != "__init__"
        }
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, with the circle


def test_only_data_imports_tensorflow_and_there_only_three_files():
    users = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if {name.split(".")[0] for name in imports(path)} & {"tensorflow", "tensorflow_datasets"}
    }
    assert users <= {"data/tfds.py", "data/copies.py", "data/pipeline.py"}


def test_nothing_imports_experiments_or_tests():
    for path in FILES:
        assert not {name.split(".")[0] for name in imports(path)} & {"experiments", "tests"}, path


@pytest.mark.parametrize("module", ["msa_flax", "msa_flax.run", "msa_flax.evaluate"])
def test_importing_does_not_import_tensorflow(module):
    code = f"import sys, {module}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_imports_nothing_heavy(name):
    code = (
        "import atexit, os, runpy, sys; sys.argv = ['command', '--help'];"
        "heavy = {'numpy', 'cv2', 'sklearn', 'matplotlib', 'jax', 'flax', 'tensorflow'};"
        "atexit.register(lambda: heavy & set(sys.modules) and os._exit(3));"
        f"runpy.run_module('msa_flax.{name}', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"--debug" in done.stdout


def test_the_tables_of_models_are_complete():
    assert set(MODELS) == set(PARAM_COUNTS) == set(NATIVE_SCALING)
    assert set(MODELS) == set(KERAS_FAMILIES) | NOT_IN_KERAS


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_everything_public_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    public = [("the module", tree), *documented(tree)]
    assert not [name for name, node in public if not ast.get_docstring(node)]


def test_the_package_and_its_files_stay_short():
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: count for name, count in lines.items() if count > LINES_OF_A_FILE}
    assert statistics.median(lines.values()) <= LINES_OF_A_MEDIAN_FILE
    assert sum(map(lines_of_code, FILES)) <= LINES_OF_CODE


def test_tests_mirror_the_files():
    tests = pathlib.Path(__file__).parent
    sources = {str(path.relative_to(PACKAGE).with_suffix("")).replace("__", "") for path in FILES}
    names = {
        str(path.relative_to(tests).with_name(path.stem.removeprefix("test_")))
        for folder in ("", *(f"{part}/" for part in ARROWS))
        for path in tests.glob(f"{folder}**/test_*.py" if folder else "test_*.py")
    }

    def belong(test: str, source: str) -> bool:
        return test == source or test.startswith(f"{source}_")

    alone = {s for s in sources if not any(belong(test, s) for test in names)}
    assert {s for s in alone if not s.endswith("init")} <= set(TESTED_ELSEWHERE)
    assert {t for t in names if not any(belong(t, s) for s in sources)} <= OF_NO_FILE
    assert not [place for place in TESTED_ELSEWHERE.values() if not (tests / place).exists()]


def test_functions_stay_short():
    lengths = sorted(
        node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )
    assert lengths[int(0.9 * len(lengths))] <= LINES_OF_A_FUNCTION
