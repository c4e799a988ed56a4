"""What the guide of the archive says, to be run as it stands: only ports and patience differ."""

import pathlib
import re

import msa_flax.archive

GUIDE = pathlib.Path(msa_flax.archive.__file__).with_name("README.md")


def guide(name):
    """The commands or settings after a mark of the guide."""
    found = re.search(
        rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", GUIDE.read_text(), re.DOTALL
    )
    assert found, f"archive/README.md: expected commands or settings after <!-- {name} -->"
    return found[1]
