"""The files of a portable model, as a folder or one zip file: written once, checked at each read.

``model.json`` holds the SHA-256 of every other file and of itself; a zip file's comment is the
SHA-256 of all bytes before it. So a changed bit is noticed wherever it is. Nothing is extracted:
a zip file is read in memory, and no name in it becomes a path.
"""

import hashlib
import io
import json
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msa_flax.files import SCHEMA_VERSION, UserError, misshapen, write_atomically, write_folder

MODEL = "model.json"
# Of all files together: a small zip file may declare sizes that fill the memory.
MAX_BYTES = 4 * 2**30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGITS = 64  # of a SHA-256
_AGAIN = "get the model again, or export it again with python -m msa_flax.export"
_SHAPE = {"schema_version": int, "sha256": str, "files": {"*": str}}

Contents = dict[str, bytes]  # name of a file to what it holds


class PackageError(UserError):
    """A portable model cannot be written there, or is not as export wrote it."""


def sealed(values: Mapping[str, Any], files: Mapping[str, bytes]) -> Contents:
    """Returns the files of a portable model, ``model.json`` among them.

    Args:
        values: what ``model.json`` says.
        files: name of every other file to its content.
    """
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    said = {name: value for name, value in values.items() if name != "sha256"}
    values = {**said, "schema_version": SCHEMA_VERSION, "files": hashes}
    whole = _canonical({**values, "sha256": hashlib.sha256(_canonical(values)).hexdigest()})
    return {MODEL: whole, **files}


def write(path: Path, contents: Contents, *, zipped: bool) -> bool:
    """Writes a portable model, whole or not at all; returns whether it was there already.

    Args:
        path: a new folder, or a new file if ``zipped``.
        contents: from :func:`sealed`.
        zipped: whether one file is written.

    Raises:
        PackageError: something else is there.
        UserError: it cannot be written.
    """
    if path.exists() or path.is_symlink():
        if not _holds(path, contents, zipped):
            raise PackageError(
                f"--out: expected a new place, {path} is there and differs from this model; "
                "nothing was overwritten: name another one"
            )
        return True
    if zipped:
        write_atomically(path, _zip(contents))
        return False
    try:
        write_folder(path, contents)
    except OSError as error:
        raise PackageError(f"--out: {path} cannot be written: {error.strerror}") from error
    return False


def read(path: Path) -> tuple[dict[str, Any], Contents]:
    """Returns what ``model.json`` says and all other files, if they are as export wrote them.

    Args:
        path: a folder, or a zip file.

    Raises:
        PackageError: no portable model, one of a newer version, or one that is not as it was
            written: names the files.
    """
    try:
        contents = dict(_members_of_zip(path) if path.is_file() else _members_of_folder(path))
    except OSError as error:
        raise PackageError(f"{path}: cannot be read: {error.strerror}; {_AGAIN}") from error
    if MODEL not in contents:
        raise PackageError(
            f"{path}: expected a model that msa_flax.export has written, got no {MODEL}"
        )
    values = _checked_values(path, contents.pop(MODEL))
    known = values["files"]
    found = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    lists = {
        "changed": [name for name in known if found.get(name, known[name]) != known[name]],
        "missing": [name for name in known if name not in found],
        "added": [name for name in found if name not in known],
    }
    _refuse(path, lists)
    return values, contents


def _checked_values(path: Path, data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if type(version) is int and version > SCHEMA_VERSION:
        raise PackageError(
            f"{path}: {MODEL} has schema_version {version}, this msa_flax reads {SCHEMA_VERSION}; "
            "install a newer msa_flax"
        )
    if values is None or misshapen(values, _SHAPE) or version != SCHEMA_VERSION:
        _refuse(path, {"changed": [MODEL]})
    rest = {name: value for name, value in values.items() if name != "sha256"}
    own = hashlib.sha256(_canonical(rest)).hexdigest()
    if own != values["sha256"] or _canonical(values) != data:
        _refuse(path, {"changed": [MODEL]})
    return values


def _canonical(values: Mapping[str, Any]) -> bytes:
    """Returns the one way in which values are written as JSON."""
    return (json.dumps(values, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def _refuse(path: Path, lists: Mapping[str, list[str]]) -> None:
    said = [f"{what}: {', '.join(sorted(names))}" for what, names in lists.items() if names]
    if said:
        raise PackageError(
            f"{path}: expected the files as export wrote them, got {'; '.join(said)}; {_AGAIN}"
        )


def _holds(path: Path, contents: Contents, zipped: bool) -> bool:
    if zipped or not path.is_dir():
        return zipped and path.is_file() and path.read_bytes() == _zip(contents)
    found = {file.name: file.is_file() and file.read_bytes() for file in path.iterdir()}
    return found == contents


def _check_size(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise PackageError(f"{path}: expected at most {MAX_BYTES} bytes, got more")


def _members_of_folder(path: Path) -> Iterator[tuple[str, bytes]]:
    if not path.is_dir():
        raise PackageError(f"{path}: expected a folder or file of msa_flax.export, found none")
    total = 0
    for name in sorted(os.listdir(path)):
        status = os.lstat(path / name)
        if not _NAME.fullmatch(name) or not stat.S_ISREG(status.st_mode):
            _refuse(path, {"added": [name]})  # a link, a folder, or a name that export never gives
        total += status.st_size
        _check_size(path, total)
        yield name, (path / name).read_bytes()


def _members_of_zip(path: Path) -> Iterator[tuple[str, bytes]]:
    _check_size(path, path.stat().st_size)
    data = path.read_bytes()
    if hashlib.sha256(data[:-_DIGITS]).hexdigest().encode() != data[-_DIGITS:]:
        raise PackageError(
            f"{path}: expected a file that export --zip has written, whole, got another or a "
            f"changed one; {_AGAIN}"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            strange = [n for n in names if not _NAME.fullmatch(n) or names.count(n) > 1]
            _refuse(path, {"added": sorted(set(strange))})
            _check_size(path, sum(member.file_size for member in members))
            for member in members:
                yield member.filename, archive.read(member)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise PackageError(f"{path}: expected a zip file, got {error}; {_AGAIN}") from error


def _zip(contents: Contents) -> bytes:
    """Returns a zip file that depends on the contents alone: without times, and uncompressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name), contents[name])
        archive.comment = b"0" * _DIGITS
    data = buffer.getvalue()[:-_DIGITS]
    return data + hashlib.sha256(data).hexdigest().encode()
