"""The commands, called in this process: without starting Python and its libraries for each."""

import importlib

from msa_flax import cli


def call(name, *arguments):
    """Returns the exit code of ``python -m msa_flax.NAME``; what it says goes where tests look."""
    module = importlib.import_module(f"msa_flax.{name}")
    argv = [name, *map(str, arguments)]
    return cli.call(module.main, module.define_flags, module.__doc__, argv)
