"""The public names are there, and importing them costs nothing."""

import subprocess
import sys

import pytest

import msa_flax


def test_every_public_name_is_there():
    for name in msa_flax.__all__:
        assert getattr(msa_flax, name) is not None
        assert name in dir(msa_flax)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = msa_flax.no_such_name


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, msa_flax; sys.exit(bool({'jax', 'tensorflow', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
