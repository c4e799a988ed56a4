import pathlib
import subprocess
import sys

import pytest

import msa_flax.saliency

ROOT = pathlib.Path(msa_flax.saliency.__file__).parents[2]


@pytest.mark.parametrize("heavy", ["tensorflow", "matplotlib", "flax"])
def test_saliency_is_imported_without(heavy):
    code = f"import sys, msa_flax.saliency; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
