"""Markdown pages whose tables are written by scripts, between two marker lines."""

import re
from pathlib import Path

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
