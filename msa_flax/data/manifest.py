"""A table of labels: one row per image, wherever the images lie (``data.source = "manifest"``).

The table is CSV as spreadsheets write it: commas, semicolons or tabs, a byte-order mark, quoted
cells, UTF-8, UTF-16 or Windows-1252. Columns:

- ``path``: a PNG, JPEG or DICOM file with one image, relative to the table's folder or absolute;
- ``label``: the name of a class, or 0 or 1;
- optional ``group`` (patient or series), ``study``, ``family`` (source slice), ``slice_index`` (a
  whole number), ``split`` (train, validation or test).

Where a row names no group, it is the patient of a DICOM file, as a pseudonym, or what
``data.group_pattern`` finds in the file's name; ``family`` goes by ``data.family_pattern`` for PNG
and JPEG files. A DICOM file's ``slice_index`` is its place along its series. Identifiers of DICOM
files that a row repeats as group or study are replaced by their pseudonyms, too.
"""

import csv
import dataclasses
import io
import logging
import os
import pathlib
import re
import unicodedata
from collections.abc import Sequence

from msa_flax.config import DataConfig
from msa_flax.data import dicom
from msa_flax.data.examples import DataError
from msa_flax.data.folder import File, Listing, facts_of_name, listed
from msa_flax.data.headers import DICOM_SUFFIXES, SUFFIXES, ImageError, check_ordinary
from msa_flax.data.layout import PART_OF, fold, printable
from msa_flax.data.pseudonyms import read_salt
from msa_flax.data.series import find_series

log = logging.getLogger("msa_flax")

COLUMNS = ("path", "label", "group", "study", "family", "split", "slice_index")
_PLAIN = tuple(set(SUFFIXES) - set(DICOM_SUFFIXES))
_DELIMITERS = ",;\t"
_SHOWN = 8  # wrong rows that an error describes
_NUMBER = re.compile(r"\d{1,18}")  # what an int64 holds

Rows = list[tuple[int, dict[str, str]]]  # number of the row in the table, cells by column


def list_manifest(
    path: str | os.PathLike[str], config: DataConfig, *, any_class: bool = False
) -> Listing:
    """Lists the images of a table, with the headers of its DICOM files; no pixel is decoded.

    Args:
        path: the table.
        config: classes, patterns and, for the headers, ``max_tilt`` are used.
        any_class: take whatever labels there are for the classes, as an audit does, unless they
            are the configured ones.

    Raises:
        DataError: the table cannot be read, or everything that is wrong with its rows.
    """
    path = pathlib.Path(path).expanduser().absolute()
    rows, unknown = _read_table(path)
    classes = _classes(rows, config, any_class=any_class)
    wrong: list[str] = []
    seen: dict[str, int] = {}
    files = []
    for number, row in rows:
        found = _file(path.parent, row, classes)
        problems = [found] if isinstance(found, str) else []
        if isinstance(found, File):
            key = unicodedata.normalize("NFC", os.path.realpath(found.path))
            if (first := seen.setdefault(key, number)) != number:
                problems.append(f"path {row['path']!r} is the file of row {first} again")
            files.append(found)
        wrong += [f"row {number}: {printable(problem)}" for problem in problems]
    parts = {file.part for file in files}
    if not wrong and "" in parts and len(parts) > 1:
        empty = [number for number, row in rows if not row["split"]]
        wrong = [f"row {number}: split is empty, as it is not in others" for number in empty]
    if wrong:
        raise DataError(
            f"{path}: {len(wrong)} of {len(rows)} rows are wrong: "
            + "; ".join(wrong[:_SHOWN])
            + (f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")
        )
    files, bad = _with_headers(files, config)
    files = [_with_names(file, config) for file in files]
    files.sort(key=lambda file: file.example_id)
    counted = ", ".join(f"{sum(f.label == i for f in files)} {n}" for i, n in enumerate(classes))
    said = (
        f"; {len(bad)} files cannot be read: {listed([name for name, _ in bad], 3)}" if bad else ""
    )
    said += f"; columns that are not read: {listed(unknown)}" if unknown else ""
    log.info("%s: %d images: %s%s", path, len(files), counted, said)
    return Listing(
        root=path,
        classes=classes,
        files=tuple(files),
        bad_files=tuple(sorted(bad)),
        config=config,
    )


def has_splits(path: str | os.PathLike[str]) -> bool:
    """Whether a table says which split an image is in; its rows are not checked.

    Raises:
        DataError: the table cannot be read.
    """
    return any(row["split"] for _, row in _read_table(pathlib.Path(path).expanduser())[0])


def _read_table(path: pathlib.Path) -> tuple[Rows, list[str]]:
    """Returns the rows that are not empty, and the names of columns that are not known.

    Rows have every known column; where the table lacks one, it is empty.
    """
    try:
        check_ordinary(path.stat())
        text = _decode(path.read_bytes())
    except ImageError as error:
        raise DataError(f"data.manifest: expected a table of labels, {path} is {error}") from error
    except OSError as error:
        raise DataError(
            f"data.manifest: expected a table of labels, {path} cannot be read: {error.strerror}"
        ) from error
    text = re.sub(r'\A"?sep=.?"?\n', "", text)  # how some programs tell Excel the delimiter
    first = text.partition("\n")[0]
    heads = [next(csv.reader([first], delimiter=one), []) for one in _DELIMITERS]
    heads = [[cell.strip().casefold() for cell in head] for head in heads]
    fitting = [i for i, head in enumerate(heads) if {"path", "label"} <= {*head}]
    if not fitting:
        found = ", ".join(printable(cell)[:40] for cell in max(heads, key=len)) or "nothing"
        raise DataError(
            f"{path}: expected a table with a first row that names columns, path and label among "
            f"them, separated by commas, semicolons or tabs; found {found[:200]}"
        )
    head, delimiter = heads[fitting[0]], _DELIMITERS[fitting[0]]
    twice = sorted({name for name in head if name and head.count(name) > 1})
    if twice:
        raise DataError(f"{path}: expected each column once, found twice: {', '.join(twice)}")
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path}: expected a table of labels, got {error}") from error
    rows = []
    for number, record in enumerate(records[1:], 2):
        cells = [cell.strip() for cell in record]
        if any(cells[len(head) :]):
            raise DataError(
                f"{path}: row {number} has {len(cells)} cells, expected {len(head)}; put quotes "
                f"around a cell that holds {delimiter!r}"
            )
        if any(cells):
            known = dict(zip(head, cells, strict=False))
            rows.append((number, {name: known.get(name, "") for name in COLUMNS}))
    if not rows:
        raise DataError(f"{path}: expected rows below the names of the columns, found none")
    return rows, [printable(name) for name in head if name and name not in COLUMNS]


def _decode(data: bytes) -> str:
    """Returns the text of a table, its lines ended by a line feed.

    Excel writes UTF-8 or UTF-16 with a mark, or Windows-1252; on a Mac it may end lines by a
    carriage return alone.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _classes(rows: Rows, config: DataConfig, *, any_class: bool) -> tuple[str, ...]:
    """Returns the configured classes, or those that the labels name if these are others."""
    labels = {fold(row["label"]) for _, row in rows} - {""}
    numbers = labels & {"0", "1", "0.0", "1.0"}
    if not any_class or numbers or labels <= {fold(name) for name in config.classes}:
        return tuple(config.classes)
    if len(labels) < 2:
        raise DataError(f"expected labels of two or more classes, got only {min(labels)!r}")
    return tuple(sorted(labels))


def _file(base: pathlib.Path, row: dict[str, str], classes: Sequence[str]) -> File | str:
    """Returns what a row says of its image, or the first thing that is wrong with it."""
    path = _find(base, row["path"])
    if isinstance(path, str):
        return path
    names = [fold(one) for one in classes]
    label = fold(row["label"]).removesuffix(".0")  # 1.0: a column with gaps, in some programs
    if label not in names and label not in ("0", "1"):
        got = repr(row["label"]) if label else "empty"
        return f"label is {got}, expected {', '.join(classes)}, 0 or 1"
    if (part := row["split"]) and fold(part) not in PART_OF:
        return f"split {part!r}, expected train, validation or test"
    if (index := row["slice_index"]) and not _NUMBER.fullmatch(index):
        return f"slice_index {index!r}, expected a whole number from 0 on"
    inside = path.relative_to(base) if path.is_relative_to(base) else path
    return File(
        path=path,
        example_id=unicodedata.normalize("NFC", inside.as_posix()),
        label=names.index(label) if label in names else int(label),
        part=PART_OF[fold(part)] if part else "",
        group=row["group"],
        study=row["study"],
        family=row["family"],
        slice_index=int(index) if index else -1,
    )


def _find(base: pathlib.Path, name: str) -> pathlib.Path | str:
    """Returns the file that a row names, or what is wrong with its path."""
    if not name or printable(name) != name:
        return f"path {name!r} is no name of a file"
    if not (base / name).exists() and "\\" in name:  # written on Windows
        name = name.replace("\\", "/")
    place = pathlib.PurePosixPath(os.path.normpath(name))
    if place.parts[:1] == ("..",):
        return f"path {name!r} leaves the table's folder; write it as an absolute path if meant"
    path = base / place
    if not path.is_file():
        return f"path {name!r} is {'a folder' if path.is_dir() else 'missing'}"
    return path


def _with_headers(
    files: Sequence[File], config: DataConfig
) -> tuple[list[File], list[tuple[str, str]]]:
    """Returns the files with what DICOM headers say, and those whose header is refused."""
    headers: dict[str, dicom.DicomSlice] = {}
    bad: dict[str, str] = {}
    for file in files:
        if file.path.suffix.lower() in _PLAIN or not _is_dicom(file.path):
            continue
        try:
            slices = dicom.read_header(file.path, max_tilt=config.max_tilt)
            headers[file.example_id] = dicom.only_slice(slices)
        except dicom.DicomError as error:
            bad[file.example_id] = str(error)
    if not headers:
        return [file for file in files if file.example_id not in bad], [*bad.items()]
    salt = read_salt()
    places = {
        (one.path, one.frame): i
        for series in find_series(headers.values())
        for i, one in enumerate(series.slices)
    }

    def completed(file: File) -> File:
        header = headers.get(file.example_id)
        if header is None:
            return file
        at = places[header.path, header.frame]
        return dataclasses.replace(
            file,
            group=_private(file.group, header.patient_id, salt),
            study=_private(file.study, header.study_uid, salt),
            slice_index=at if file.slice_index < 0 else file.slice_index,
        )

    return [completed(file) for file in files if file.example_id not in bad], [*bad.items()]


def _private(given: str, identifier: str, salt: str) -> str:
    """Returns what the table says, or the pseudonym of the file's identifier: never that itself."""
    if given and given != identifier:
        return given
    return dicom.pseudonym(identifier, salt) if identifier else ""


def _is_dicom(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        return dicom.is_dicom(file.read(256))


def _with_names(file: File, config: DataConfig) -> File:
    """Returns a PNG or JPEG file with what its name says and the table does not."""
    if file.path.suffix.lower() not in _PLAIN:
        return file
    said = facts_of_name(file.path.name, config)
    return dataclasses.replace(
        file,
        group=file.group or said.group,
        family=file.family or said.family,
        slice_index=file.slice_index if file.slice_index >= 0 else said.slice_index,
    )
