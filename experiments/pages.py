"""Markdown pages whose tables are written by scripts, between two marker lines."""

import argparse
import re
from pathlib import Path

from command_line import say_failures

from msa_flax.files import UserError, write_text


def write_between(path: Path, name: str, text: str) -> None:
    """Replaces what stands between the lines ``<!-- name -->`` and ``<!-- /name -->`` of a file.

    Raises:
        UserError: the file does not have these lines, once each.
    """
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    new, count = re.subn(pattern, lambda m: f"{m[1]}{text}\n{m[2]}", path.read_text(), flags=re.S)
    if count != 1:
        raise UserError(f"{path}: expected the lines <!-- {name} --> and <!-- /{name} -->")
    write_text(path, new)


def print_or_write(path: Path | None, name: str, text: str) -> None:
    """Prints a table, or writes it between its marker lines where a file is named."""
    if path:
        write_between(path, name, text)
    else:
        print(text)


def show(options: argparse.Namespace, name: str, text: str, failed: dict[str, str]) -> int:
    """Prints or writes a script's table and says which runs failed; returns the exit code.

    Args:
        options: ``into`` and ``results`` are used.
        name: of the marker lines.
        text: the table, "" if there are no finished runs.
        failed: name of a run to the reason.

    Raises:
        UserError: there is no finished run, and none has failed.
    """
    if text:
        print_or_write(options.into, name, text)
    elif not failed:
        raise UserError(f"--results: expected finished runs below {options.results}, found none")
    return say_failures(failed)
