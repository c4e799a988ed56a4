"""What importing explanations costs, and that all public names are there."""

import subprocess
import sys

import msa_flax.saliency

HEAVY = {"tensorflow", "matplotlib", "flax"}


def test_saliency_is_imported_without_what_it_does_not_need():
    code = (
        "import sys, msa_flax.saliency as s; all(getattr(s, name) for name in s.__all__);"
        f"sys.exit(bool({HEAVY} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_no_public_name_is_an_attribute_error():
    assert not hasattr(msa_flax.saliency, "gradcan")
    assert set(msa_flax.saliency.__all__) <= set(dir(msa_flax.saliency))
