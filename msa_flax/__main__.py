"""The list of commands: python -m msa_flax."""

import importlib
import sys

from msa_flax import cli
from msa_flax.files import NOTICE

COMMANDS: tuple[str, ...] = ("train", "evaluate", "predict", "watch", "export", "explain")
COMMANDS += ("audit", "report", "prepare")


def main(arguments: list[str]) -> int:
    """Prints the list of commands and returns the exit code, 2 for an argument."""
    if not set(arguments) <= {"-h", "--help"}:
        print(f"error: {_refusal(arguments[0])}", file=sys.stderr)
        return 2
    return cli.call(lambda _: print(_list()), lambda _: None, __doc__ or "", ["msa_flax"])


def _list() -> str:
    lines = [f"Fracture detection in cervical-spine CT slices. {NOTICE}", ""]
    for name in COMMANDS:
        doc = importlib.import_module(f"msa_flax.{name}").__doc__ or ""
        lines.append(f"  python -m msa_flax.{name:10}{doc.partition(': python -m')[0]}")
    lines += ["", "Add --help to a command to see what it does and takes. On synthetic data:"]
    return "\n".join([*lines, "  python -m msa_flax.train --workdir runs/quickstart"])


def _refusal(argument: str) -> str:
    if argument in COMMANDS:
        return (
            f"expected no argument, got {argument!r}; the command is python -m msa_flax.{argument}"
        )
    return (
        f"expected no argument, got {argument!r}; the commands are python -m "
        f"{', '.join(f'msa_flax.{name}' for name in COMMANDS)}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
