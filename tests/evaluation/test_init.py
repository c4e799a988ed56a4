import pathlib
import subprocess
import sys

import pytest

import msa_flax.evaluation

ROOT = pathlib.Path(msa_flax.evaluation.__file__).parents[2]


@pytest.mark.parametrize("heavy", ["tensorflow", "jax", "matplotlib", "sklearn", "scipy"])
def test_evaluation_is_imported_without(heavy):
    code = f"import sys, msa_flax.plots.figures; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
