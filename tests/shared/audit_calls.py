"""The command audit, called in this process, and what it has found."""

import json

from msa_flax import audit, cli

PHANTOM = ("--config.data.phantom_patients=12", "--config.data.image_size=64")


def call(*arguments):
    """Returns the exit code of the command."""
    return cli.call(audit.main, audit.define_flags, audit.__doc__, ["audit", *map(str, arguments)])


def findings(out):
    """Returns the findings in audit.json by their keys."""
    values = json.loads((out / "audit.json").read_text())
    return {finding["key"]: finding for finding in values["findings"]}
