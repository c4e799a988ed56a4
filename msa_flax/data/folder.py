"""Folders of images: which files there are, what their place and name say, and their pixels.

There is one reader for training and for audits. Both accept the same files and give the same reason
for refusing one; they differ in the folders that they accept, see :func:`list_folder`.
"""

import collections
import dataclasses
import logging
import os
import pathlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data.examples import DataError, Examples, from_rows, pixel_hash
from msa_flax.data.facts import facts_of_file, name_order
from msa_flax.data.headers import SUFFIXES, ImageError
from msa_flax.data.images import decode, read_bytes
from msa_flax.data.layout import (
    Layout,
    check_labels,
    check_layout,
    find_base,
    fold,
    is_image,
    is_other_image,
    parts_in_classes,
    place_of,
    printable,
    refusal,
    walk,
)
from msa_flax.data.patterns import time_limit

_DIGITS = 18  # of a slice's number: what an int64 holds
_PATTERN_SECONDS = 10  # for all names of a folder; 4,200 names take some milliseconds

Progress = Callable[[str, int, int], None]  # called with (what is done, images done, images)
log = logging.getLogger("msa_flax")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One image file and what its place and name say."""

    path: pathlib.Path
    example_id: str  # path below the data set's folder, with forward slashes
    label: int = -1  # index into the listing's classes; -1 unknown
    part: str = ""  # "train", "val", "test" or, with layout "any", as the folder is called; "" none
    group: str = ""  # "" unknown
    family: str = ""  # "" unknown
    study: str = ""  # "" unknown
    slice_index: int = -1  # -1 unknown


class FactsOfName(NamedTuple):
    """What a file's name says of its image."""

    group: str  # "" unknown
    family: str  # "" unknown
    slice_index: int  # -1 unknown


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files of a data set, sorted by ``example_id``; nothing has been decoded."""

    root: pathlib.Path  # the folder that directly holds parts or class folders; a table of labels
    classes: tuple[str, ...]
    files: tuple[File, ...]
    bad_files: tuple[tuple[str, str], ...]  # (name, reason) of files that cannot be images
    config: DataConfig = dataclasses.field(default_factory=DataConfig)  # how files are decoded


def list_folder(root: str | os.PathLike[str], config: DataConfig, *, layout: Layout) -> Listing:
    """Lists the images of a folder: ``ROOT/[PART/]CLASS/FILE``.

    Upper and lower case are the same in the names of folders and in extensions. Hidden files and
    folders are passed over, links to folders are followed. Instead of ROOT, the folder that holds
    nothing but ROOT may be given.

    Args:
        root: the folder.
        config: ``classes``, ``family_pattern`` and ``group_pattern`` are used.
        layout: "parts": ``train/`` and ``val/`` or ``test/`` or both (``training``, ``valid``,
            ``validation`` and ``testing`` are the same), each with exactly the configured classes.
            "classes": the same, or the class folders alone. "external": the same, of which one
            class may be missing. "any": any parts or none, any classes.
            But for "parts" the order may be CLASS/PART too, and the first folder inside a class
            folder names the group where ``group_pattern`` does not fit.

    Raises:
        DataError: the folder is missing or does not have this layout, and everything that is wrong
            with it; with "any", fewer than two classes.
    """
    base = find_base(pathlib.Path(root).expanduser(), config, layout)
    bad: list[tuple[str, str]] = []
    passed: list[str] = []
    tree = walk(base, bad, passed, depth=2 if layout == "parts" else None)
    if layout != "any":
        check_layout(base, tree, config, bad, layout)
    by_class = layout != "parts" and parts_in_classes(base, tree)
    names = sorted("/".join([*place, name]) for place, (_, files) in tree.items() for name in files)
    placed = {name: place_of(name, layout, tree, by_class=by_class) for name in names}
    reasons = {name: refusal(base, name, class_name) for name, (_, class_name, _) in placed.items()}
    _refuse_twins(names, reasons)
    used = {fold(placed[name][1]) for name in names if not reasons[name]}
    for name in names:
        image = is_image(name) or is_other_image(name)
        if reasons[name] and (image or fold(placed[name][1]) in used):
            bad.append((printable(name), reasons[name]))
        elif reasons[name]:
            passed.append(name.rpartition("/")[2])
    if layout == "any":
        check_labels(base, tree, sorted(used), known={fold(name) for name in config.classes})
    fewest = 1 if layout == "external" else 2
    classes = _classes(base, used, config.classes, bad, fewest=fewest)
    slow = DataError(
        "data.family_pattern or data.group_pattern: searching them in the file names takes more "
        f"than {_PATTERN_SECONDS} s; write them without repeats inside repeats, such as (a+)+"
    )
    with time_limit(_PATTERN_SECONDS, slow):
        files = [
            _file(base, name, placed[name], classes, config) for name in names if not reasons[name]
        ]
        _warn_of_numbers(files, config.family_pattern)
    log.info(_understood(files, classes, bad, passed, by_class=by_class))
    return Listing(
        root=base,
        classes=classes,
        files=tuple(files),
        bad_files=tuple(sorted(bad)),
        config=config,
    )


def _refuse_twins(names: Sequence[str], reasons: dict[str, str]) -> None:
    """Refuses files whose names are one in two forms of Unicode: their ids would be the same."""
    forms = collections.Counter(unicodedata.normalize("NFC", name) for name in names)
    for name in names:
        if forms[unicodedata.normalize("NFC", name)] > 1:
            reasons[name] = "two files have this name, in two forms of Unicode; rename one"


def _understood(
    files: Sequence[File],
    classes: Sequence[str],
    bad: Sequence[tuple[str, str]],
    passed: Sequence[str],
    *,
    by_class: bool,
) -> str:
    """Says in one line how a folder was understood, and what was not read in it."""
    parts = list(dict.fromkeys(file.part for file in files if file.part))
    form = "CLASS/PART/file" if by_class else "PART/CLASS/file" if parts else "CLASS/file"
    deep = any(file.example_id.count("/") > form.count("/") for file in files)
    form = form.replace("file", "GROUP/file") if deep else form
    counted = [f"{len(parts)} parts ({listed(parts)})"] if parts else []
    counted += [f"{len(classes)} classes ({listed(classes)})", f"{len(files)} images"]
    text = f"understood as {form}: {', '.join(counted)}"
    if bad:
        text += f"; {len(bad)} files or folders cannot be read: {listed([n for n, _ in bad], 3)}"
    if passed:
        text += f"; passed over, hidden or no images: {len(passed)}, such as " + listed(
            [printable(name) for name in dict.fromkeys(passed)], 3
        )
    return text


def read(
    listing: Listing,
    prepare: Callable[[np.ndarray], np.ndarray],
    *,
    progress: Progress | None = None,
) -> Examples:
    """Decodes the files of a listing; those that cannot be used are added to its ``bad_files``.

    Args:
        listing: what to read.
        prepare: (uint8 [h, w]) -> uint8 [s, s], the image as the table holds it.
        progress: called after each file.
    """
    rows: list[dict[str, Any]] = []
    images = np.empty((0, 0, 0), np.uint8)
    bad = list(listing.bad_files)

    def read_one(file: File) -> tuple[dict[str, Any], np.ndarray] | str:
        try:
            data = read_bytes(file.path)
            image = decode(data, file.path.name, listing.config)
        except ImageError as error:
            return str(error)
        facts = facts_of_file(data, file.path.name, image)
        row = {"height": image.shape[0], "width": image.shape[1], "file_hash": pixel_hash(image)}
        return row | {"facts": facts}, prepare(image)

    with ThreadPoolExecutor() as pool:  # OpenCV and hashing let other threads run
        results = pool.map(read_one, listing.files)
        for i, (file, found) in enumerate(zip(listing.files, results, strict=True), 1):
            if isinstance(found, str):
                bad.append((file.example_id, found))
            else:
                if not rows:
                    images = np.empty((len(listing.files), *found[1].shape), np.uint8)
                images[len(rows)] = found[1]
                rows.append({**dataclasses.asdict(file), **found[0]})
            if progress:
                progress("read", i, len(listing.files))
    order = name_order([row["path"].name for row in rows], [row["group"] for row in rows])
    for row, place in zip(rows, order, strict=True):
        row["facts"]["name order"] = place
    return from_rows(rows, images[: len(rows)], bad_files=bad, classes=listing.classes)


def check_bad_files(bad_files: Sequence[tuple[str, str]], *, skip: bool, total: int) -> None:
    """Refuses files that cannot be used, unless they may be skipped and others are left.

    Args:
        bad_files: (name, reason) of every one.
        skip: whether ``config.on_bad_file`` is "skip".
        total: number of files looked at, good and bad.

    Raises:
        DataError: the count and the first ten, each with its reason.
    """
    if not bad_files or (skip and len(bad_files) < total):
        return
    raise DataError(
        f"{len(bad_files)} of {total} files cannot be used: {first_reasons(bad_files)}; repair or "
        "remove them"
        + (", or leave them out with data.on_bad_file=skip" if len(bad_files) < total else "")
    )


def listed(names: Sequence[str], limit: int = 8) -> str:
    """Returns the first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def first_reasons(bad_files: Sequence[tuple[str, str]]) -> str:
    """Returns the first ten names with their reasons, and how many more there are."""
    first = "; ".join(f"{name}: {reason}" for name, reason in sorted(bad_files)[:10])
    return first + (f"; and {len(bad_files) - 10} more" if len(bad_files) > 10 else "")


def _classes(
    base: pathlib.Path,
    used: set[str],
    known: Sequence[str],
    bad: Sequence[tuple[str, str]],
    *,
    fewest: int,
) -> tuple[str, ...]:
    """Returns the classes by label: in the configured order if that names exactly these."""
    if len(used) < fewest:
        loose = all(reason == "not inside a class folder" for _, reason in bad)
        outside = f"{len(bad)} {'images in no class folder' if loose else 'unusable files'}"
        outside = outside if bad else "no images"
        why = f"; {first_reasons(bad[:3])}" if bad else ""
        raise DataError(
            f"{base}: expected images in two or more class folders, CLASS/FILE or PART/CLASS/FILE "
            f"with extension {', '.join(SUFFIXES)}; found "
            + (f"only the class {min(used)}" if used else outside)
            + why
        )
    if fewest == 1 or used == {fold(name) for name in known}:
        return tuple(known)
    return tuple(sorted(used))


def _file(
    base: pathlib.Path,
    name: str,
    place: tuple[str, str, str],
    classes: Sequence[str],
    config: DataConfig,
) -> File:
    part, class_name, folder = place
    said = facts_of_name(name.rpartition("/")[2], config)
    return File(
        path=base / name,
        example_id=unicodedata.normalize("NFC", name),  # the same on every file system
        label=[fold(one) for one in classes].index(fold(class_name)),
        part=part,
        group=said.group or folder,
        family=said.family,
        slice_index=said.slice_index,
    )


def facts_of_name(name: str, config: DataConfig) -> FactsOfName:
    """Returns what the patterns find in a file's name."""

    def named(pattern: str) -> dict[str, str | None]:
        match = re.search(pattern, name) if pattern else None
        return match.groupdict() if match else {}

    family = named(config.family_pattern)
    number = family.get("slice") or ""
    return FactsOfName(
        group=named(config.group_pattern).get("group") or "",
        family=family.get("family") or "",
        slice_index=int(number) if _is_number(number) else -1,
    )


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= _DIGITS


def _warn_of_numbers(files: Sequence[File], pattern: str) -> None:
    """Says that a pattern finds slices that are no numbers: they count as unknown."""
    if "(?P<slice>" not in pattern:
        return
    found = {file.path.name: re.search(pattern, file.path.name) for file in files}
    odd = [name for name, m in found.items() if m and m["slice"] and not _is_number(m["slice"])]
    if odd:
        log.warning(
            "data.family_pattern: (?P<slice>...) finds no number of at most %d digits in %d files, "
            "such as %r: their slice counts as unknown",
            *(_DIGITS, len(odd), odd[0]),
        )
