"""The ground floor: what every part may use, and what imports nothing of this package.

The error that ends a command with exit code 2, the notice that every output carries, files that are
written whole or not at all, the cache folder, tables of text, and batches of one fixed size.
"""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

NOTICE = "Research use only, not a medical device."
SCHEMA_VERSION = 1  # of every JSON file that this package writes


class UserError(ValueError):
    """Something that the user can mend: what was expected, what came, and what to do.

    Every part derives its own error from this one. A command says it in one sentence, without a
    traceback, and ends with the exit code.
    """

    exit_code = 2


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` to write to, and renames it at the end.

    So the file is there whole or not at all. Its folder is made if it is not there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def time_limit(seconds: float, error: Exception) -> Iterator[None]:
    """Raises the error in what runs longer; in a thread beside the main one nothing is limited.

    A regular expression stops for a signal too, which is how it is stopped.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file, whole or not at all; makes its folder if it is not there."""
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes text as UTF-8, whole or not at all.

    File names that are not valid UTF-8 reach Python as surrogates; they are written as they came.
    """
    write_atomically(path, text.encode("utf-8", "surrogateescape"))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table as CSV: cells as ``str`` has them, None as an empty cell.

    Cells with a comma, a quote or an end of line are quoted; Python's csv.writer quotes a carriage
    return in some versions only, and readers need it.
    """

    def quoted(cell: Any) -> str:
        text = "" if cell is None else str(cell)
        return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text

    return "".join(",".join(map(quoted, row)) + "\n" for row in (header, *rows))


def write_json(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Writes values as JSON with the schema version, whole or not at all.

    Keys are sorted, so that the same values give the same bytes.

    Raises:
        ValueError: a value is NaN or infinite, which JSON cannot say; use None and a reason.
    """
    versioned = {"schema_version": SCHEMA_VERSION, **values}
    write_text(path, json.dumps(versioned, sort_keys=True, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns what :func:`write_json` has written, or {} where there is no such file."""
    path = Path(path)
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def cache_dir() -> Path:
    """Returns the folder for what can be made or downloaded again; it need not exist.

    ``MSA_FLAX_CACHE``, or else ``msa_flax`` in ``XDG_CACHE_HOME``, or else ``~/.cache/msa_flax``.
    """
    own = os.environ.get("MSA_FLAX_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification: a relative path is invalid and to be ignored.
    base = Path(shared) if shared and Path(shared).is_absolute() else Path.home() / ".cache"
    return base / "msa_flax"


def flatten(values: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Returns ``{"section.field": value}`` for nested dictionaries."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = flatten(value, separator)
            flat |= {f"{key}{separator}{name}": item for name, item in inner.items()}
        else:
            flat[key] = value
    return flat


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in markdown."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (head, *rows)]
    lines.insert(1, ["---"] * len(head))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def batches(rows: "np.ndarray", size: int) -> "Iterator[tuple[np.ndarray, int]]":
    """Yields the rows in batches of one fixed size, so that a compiled function is compiled once.

    No row is dropped: the last batch is filled up with zeros.

    Args:
        rows: array [n, ...]; n may be 0.
        size: rows a batch, 1 or more.

    Yields:
        The batch [size, ...], and how many of its rows, from the first, are real.
    """
    import numpy as np

    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        missing = size - len(batch)
        if missing:
            filler = np.zeros((missing, *batch.shape[1:]), batch.dtype)
            yield np.concatenate([batch, filler]), len(batch)
        else:
            yield batch, size
