"""The ground floor: what every part may use, and what imports nothing of this package.

The error that ends a command with exit code 2, the notice that every output carries, files that are
written whole or not at all, the cache folder, tables of text, and batches of one fixed size.
"""

import contextlib
import csv
import errno
import hashlib
import io
import json
import logging
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

NOTICE = "Research use only, not a medical device."
log = logging.getLogger("msa_flax")
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")
SCHEMA_VERSION = 1  # of every JSON file that this package writes


class UserError(ValueError):
    """Something that the user can mend: what was expected, what came, and what to do.

    Every part derives its own error from this one. A command says it in one sentence, without a
    traceback, and ends with the exit code. What it quotes from a file may hold anything, so control
    characters and line ends are shown as Python writes them.
    """

    exit_code = 2

    def __str__(self) -> str:
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], super().__str__())


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` to write to, and renames it at the end.

    So the file, or folder of files, is there whole or not at all. The folder that it is in is made
    if it is not there.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():  # renaming would replace it
        raise FileExistsError(errno.EEXIST, "a pipe, a socket or a device is there", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)  # of a killed process with this number
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def write_folder(path: str | os.PathLike[str], contents: Mapping[str, bytes]) -> None:
    """Writes a new folder, whole or not at all: the bytes of each file by its name.

    Raises:
        OSError: it cannot be written, or is there and not empty.
    """
    with written_whole(path) as temporary:
        temporary.mkdir()
        for name, data in contents.items():
            (temporary / name).write_bytes(data)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets SIGINT and SIGTERM wait for the end of a block that writes files which belong together.

    In a thread beside the main one, which gets no signals, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    chosen = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in chosen}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def remove_unfinished(folder: Path) -> None:
    """Removes what :func:`written_whole` left below a folder when its process was killed.

    Files of processes that are still alive on this machine are left to them.
    """
    for path in [*folder.rglob(".*.tmp")]:
        *_, process, _ = path.name.split(".")
        if process.isdecimal() and not _alive(int(process)):
            _remove(path)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file, whole or not at all; makes its folder if it is not there.

    Raises:
        UserError: it cannot be written: no permission, no room, or a file where a folder should be.
    """
    try:
        with written_whole(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; free it or name another place"
        ) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes text as UTF-8, whole or not at all.

    File names that are not valid UTF-8 reach Python as surrogates; they are written as they came.
    """
    write_atomically(path, text.encode("utf-8", "surrogateescape"))


# A spreadsheet takes a cell that begins with one of these for a formula (OWASP, "CSV Injection").
_FORMULA = re.compile("'*[=+\\-@\\t\\r\\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|-inf|-nan", re.IGNORECASE)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table as CSV: cells as ``str`` has them, None as an empty cell.

    Cells with a comma, a quote or an end of line are quoted; Python's csv.writer quotes a carriage
    return in some versions only, and readers need it. Text that a spreadsheet would run as a
    formula gets an apostrophe before it, which :func:`csv_rows` takes away; numbers stay numbers.
    """

    def quoted(cell: Any) -> str:
        text = "" if cell is None else str(cell)
        if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
            text = "'" + text
        return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text

    return "".join(",".join(map(quoted, row)) + "\n" for row in (header, *rows))


def csv_rows(path: str | os.PathLike[str]) -> list[list[str]]:
    """Returns the cells of a file that :func:`csv_text` made, the header first; [] if it is empty.

    A byte-order mark, which a spreadsheet puts before a table that it saves, is left out.

    Raises:
        UserError: the file cannot be read, or is no table of text.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except OSError as error:
        raise UserError(
            f"{path}: expected a table, which cannot be read: {error.strerror}"
        ) from error
    except csv.Error as error:
        raise UserError(f"{path}: expected a table, got {error}; make the file again") from error
    return [
        [cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell for cell in row]
        for row in rows
    ]


def write_json(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Writes values as JSON with the schema version, whole or not at all.

    Keys are sorted, so that the same values give the same bytes.

    Raises:
        ValueError: a value is NaN or infinite, which JSON cannot say; use None and a reason.
    """
    versioned = {"schema_version": SCHEMA_VERSION, **values}
    write_text(path, json.dumps(versioned, sort_keys=True, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str], shape: Any = None) -> dict[str, Any]:
    """Returns what :func:`write_json` has written, or {} where there is no such file.

    Args:
        path: the file.
        shape: what a reader needs of it, see :func:`misshapen`; None: nothing.

    Raises:
        UserError: the file cannot be read, or is no JSON object of this version and shape.
    """
    path = Path(path)
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_bytes().decode("utf-8-sig"), parse_constant=_not_json)
    except (OSError, ValueError, RecursionError) as error:
        got = "an empty file" if path.is_file() and not path.stat().st_size else str(error)
        raise UserError(f"{path}: expected JSON, got {got}; make the file again") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(values).__name__}")
    if (version := values.get("schema_version", SCHEMA_VERSION)) != SCHEMA_VERSION:
        raise UserError(
            f"{path}: expected schema_version {SCHEMA_VERSION}, got {version!r}: the file is of "
            "another version of msa_flax; use that version, or make the file again"
        )
    if shape is not None and (problem := misshapen(values, shape)):
        raise UserError(f"{path}: {problem}; make the file again")
    return values


def misshapen(value: Any, shape: Any, where: str = "") -> str:
    """Returns what of a JSON value is not of a shape, "" where all is.

    Args:
        value: anything that ``json.loads`` returns.
        shape: ``str``, ``bool``, ``int``, ``float`` (any finite number), ``None``; a set of texts;
            a tuple of shapes of which one must fit; a list with the shape of all members; or a
            dictionary: "key" must be there, "key?" may be, "*" stands for all keys.
        where: the value's place, for the sentence.
    """
    kind = type(value)
    if isinstance(shape, tuple):
        found = [misshapen(value, one, where) for one in shape]
        return "" if "" in found else found[-1]
    parts = None
    if isinstance(shape, dict) and kind is dict:
        parts = list(_members(value, shape, f"{where}." if where else ""))
    if isinstance(shape, list) and kind is list:
        parts = [(f"{where}[{i}]", x, shape[0]) for i, x in enumerate(value)]
    if parts is not None:
        return next(filter(None, (misshapen(x, one, name) for name, x, one in parts)), "")
    if shape is float:
        right = kind in (int, float) and abs(value) < 1e300  # also no infinity and no NaN
    else:
        right = value in shape if isinstance(shape, set) and kind is str else shape in (kind, value)
    expected = _KINDS.get(type(shape), _KINDS.get(shape) if isinstance(shape, type) else "null")
    got = "nothing" if value is _ABSENT else repr(value)[:60]
    return "" if right else f"expected {expected} as {where or 'content'}, got {got}"


_ABSENT = object()
_KINDS: dict[Any, str] = {dict: "an object", list: "a list", set: "another text", str: "a text"}
_KINDS |= {int: "a whole number", float: "a number", bool: "true or false"}


def _members(value: dict[str, Any], shape: dict[str, Any], start: str) -> Iterator[tuple[Any, ...]]:
    """Yields name, value and shape of all that a shape says of an object."""
    for key, inner in shape.items():
        name = key.removesuffix("?")
        if key == "*":
            yield from ((f"{start}{name}", member, inner) for name, member in value.items())
        elif name in value or name == key:
            yield f"{start}{name}", value.get(name, _ABSENT), inner


def _not_json(name: str) -> None:
    raise ValueError(f"{name}, which is no JSON")


def sha256(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file's bytes; "" where it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


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
    """Returns a table in markdown; what the cells hold is shown as text, never as markup."""
    lines = [[_markdown(cell) for cell in line] for line in (head, *rows)]
    lines.insert(1, ["---"] * len(head))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _markdown(cell: str) -> str:
    """Escapes a cell (CommonMark 2.4 and 2.5), its ends of line as spaces: a row is one line."""
    text = " ".join(cell.splitlines()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`|])", r"\\\1", text).replace("](", "]\\(")


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
        filler = np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)
        yield np.concatenate([batch, filler]) if len(filler) else batch, len(batch)
