"""Folders of images: which files there are, what their place and name say, and their pixels.

There is one reader for training and for audits. Both accept the same files and give the same reason
for refusing one; they differ in the folders that they accept, see :func:`list_folder`.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data.examples import DataError, Examples, from_rows, pixel_hash
from msa_flax.data.facts import facts_of_file, name_order
from msa_flax.data.headers import SUFFIXES, ImageError
from msa_flax.data.images import decode, read_bytes
from msa_flax.files import time_limit

PARTS = ("train", "val")  # of a data set to train with
_PART_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing")  # of any other
_PATTERN_SECONDS = 10  # for all names of a folder; 4,200 names take some milliseconds
_IGNORED = ("thumbs.db", "desktop.ini", "__macosx")  # left behind by desktops, never data

Layout = Literal["parts", "classes", "any"]
Progress = Callable[[str, int, int], None]  # called with (what is done, images done, images)
_Place = tuple[str, ...]  # names of folders, from the root
_Tree = dict[_Place, tuple[list[str], list[str]]]  # names of the folders and of the files inside


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One image file and what its place and name say."""

    path: pathlib.Path
    example_id: str  # path below the data set's folder, with forward slashes
    label: int = -1  # index into the listing's classes; -1 unknown
    part: str = ""  # "train", "val" or, with layout "any", as the folder is called; "" none
    group: str = ""  # "" unknown
    family: str = ""  # "" unknown
    slice_index: int = -1  # -1 unknown


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files of a data set, sorted by ``example_id``; nothing has been decoded."""

    root: pathlib.Path  # the folder that directly holds the parts or the class folders
    classes: tuple[str, ...]
    files: tuple[File, ...]
    bad_files: tuple[tuple[str, str], ...]  # (name, reason) of files that cannot be images


def list_folder(root: str | os.PathLike[str], config: DataConfig, *, layout: Layout) -> Listing:
    """Lists the images of a folder: ``ROOT/[PART/]CLASS/FILE``.

    Upper and lower case are the same in the names of folders and in extensions. Hidden files and
    folders are passed over, links to folders are followed. Instead of ROOT, the folder that holds
    nothing but ROOT may be given.

    Args:
        root: the folder.
        config: ``classes``, ``family_pattern`` and ``group_pattern`` are used.
        layout: "parts": ``train/`` and ``val/``, both with exactly the configured classes.
            "classes": the same, or the class folders alone. "any": any parts or none, any classes;
            folders inside a class folder name the group where ``group_pattern`` does not fit.

    Raises:
        DataError: the folder is missing or does not have this layout, and everything that is wrong
            with it; with "any", fewer than two classes.
    """
    base = _find_base(pathlib.Path(root).expanduser(), config, layout)
    bad: list[tuple[str, str]] = []
    tree = _walk(base, bad, depth=None if layout == "any" else 2)
    if layout != "any":
        _check_layout(base, tree, config)
    names = sorted("/".join([*place, name]) for place, (_, files) in tree.items() for name in files)
    placed = {name: _place(name, layout) for name in names}
    reasons = {name: _refusal(name, class_name) for name, (_, class_name, _) in placed.items()}
    used = {placed[name][1].casefold() for name in names if not reasons[name]}
    bad += [
        (_printable(name), reasons[name])
        for name in names
        if reasons[name] and (_is_image(name) or placed[name][1].casefold() in used)
    ]
    classes = _classes(base, used, config.classes, bad)
    slow = DataError(
        "data.family_pattern or data.group_pattern: searching them in the file names takes more "
        f"than {_PATTERN_SECONDS} s; write them without repeats inside repeats, such as (a+)+"
    )
    with time_limit(_PATTERN_SECONDS, slow):
        files = [
            _file(base, name, placed[name], classes, config) for name in names if not reasons[name]
        ]
    return Listing(root=base, classes=classes, files=tuple(files), bad_files=tuple(sorted(bad)))


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
            image = decode(data, file.path.name)
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


def first_reasons(bad_files: Sequence[tuple[str, str]]) -> str:
    """Returns the first ten names with their reasons, and how many more there are."""
    first = "; ".join(f"{name}: {reason}" for name, reason in sorted(bad_files)[:10])
    return first + (f"; and {len(bad_files) - 10} more" if len(bad_files) > 10 else "")


def _find_base(root: pathlib.Path, config: DataConfig, layout: Layout) -> pathlib.Path:
    """Returns the folder that holds the parts or the classes: the root or a folder inside it."""
    if not root.is_dir():
        raise DataError(f"expected a folder of images, got {str(root)!r}")
    folders, files = _inside(root)
    classes = {name.casefold() for name in config.classes}
    if layout == "any":  # what is inside may be called anything: only a single folder is entered
        known = {*_PART_NAMES, *classes}
        alone = len(folders) == 1 and folders[0].casefold() not in known
        alone = alone and not any(map(_is_image, files)) and bool(_inside(root / folders[0])[0])
        return root / folders[0] if alone else root
    wanted = {*PARTS} if layout == "parts" else {*PARTS, *classes}

    def fits(folder: pathlib.Path) -> bool:
        return any(name.casefold() in wanted for name in _inside(folder)[0])

    candidates = [root] if fits(root) else [root / name for name in folders if fits(root / name)]
    if len(candidates) != 1:
        names = [folder.name for folder in candidates] or folders
        listed = ", ".join(f"{name}/" for name in names[:10]) or "no folders"
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        found = f"{listed}{more} and {len(files)} files" if names or files else "nothing"
        raise DataError(f"data.root: expected {_expected(config)} in {root}, found {found}")
    return candidates[0]


def _inside(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """Returns the sorted names of the visible folders and files inside a folder."""
    _, folders, files = next(os.walk(folder), ("", [], []))
    return _visible(folders), _visible(files)


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(
        name for name in names if not name.startswith(".") and name.casefold() not in _IGNORED
    )


def _walk(base: pathlib.Path, bad: list[tuple[str, str]], *, depth: int | None) -> _Tree:
    """Returns what is inside a folder, down to a depth; notes folders that cannot be listed."""
    tree: _Tree = {}

    def note(error: OSError) -> None:
        place = pathlib.Path(error.filename).relative_to(base)
        tree[place.parts] = [], []
        bad.append((_printable(place.as_posix()), f"cannot be read: {error.strerror}"))

    for folder, folders, files in os.walk(base, followlinks=True, onerror=note):
        here = pathlib.Path(folder)
        place = here.relative_to(base).parts
        visible = [
            name
            for name in _visible(folders)
            if not here.resolve().is_relative_to((here / name).resolve())  # a link in a circle
        ]
        tree[place] = visible, _visible(files)
        folders[:] = visible if depth is None or len(place) < depth else []
    return tree


def _check_layout(base: pathlib.Path, tree: _Tree, config: DataConfig) -> None:
    """Refuses folders that are unknown, missing, there twice or without images, all at once."""
    problems: list[str] = []

    def children(place: _Place, names: Sequence[str]) -> list[_Place]:
        where = f" in {'/'.join(place)}/" if place else ""
        spellings: dict[str, list[str]] = {name.casefold(): [] for name in names}
        for child in tree[place][0]:
            if child.casefold() in spellings:
                spellings[child.casefold()].append(child)
            else:
                number = len(tree[(*place, child)][1])
                problems.append(f"unknown folder {child}/ ({number} files){where}")
        for name, found in zip(names, spellings.values(), strict=True):
            if len(found) != 1:
                same = " and ".join(f"{child}/" for child in found)
                problems.append(f"{same} are the same{where}" if found else f"no {name}/{where}")
        return [(*place, found[0]) for found in spellings.values() if found]

    has_parts = any(name.casefold() in PARTS for name in tree[()][0])
    for part in children((), PARTS) if has_parts else [()]:
        for place in children(part, config.classes):
            folders, files = tree[place]
            where = "/".join(place)
            problems += [f"unknown folder {name}/ in {where}/" for name in folders]
            if all(_refusal(name, place[-1]) for name in files):
                problems.append(f"{where}/ has no images")
    if problems:
        found = "; ".join(problems)
        raise DataError(f"{base}: expected {_expected(config)}, with images; found: {found}")


def _place(name: str, layout: Layout) -> tuple[str, str, str]:
    """Returns a file's part, class and group by its folders, "" where there is none."""
    folders, part = name.split("/")[:-1], ""
    if folders and folders[0].casefold() in (_PART_NAMES if layout == "any" else PARTS):
        part = folders.pop(0)
    class_name, group = folders[0] if folders else "", "/".join(folders[1:])
    return part if layout == "any" else part.casefold(), class_name, group


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _refusal(name: str, class_name: str) -> str:
    """Returns why a file cannot be an image of the data set, "" if it can."""
    if not class_name:
        return "not inside a class folder"
    if not _is_image(name):
        return f"wrong extension, expected {', '.join(SUFFIXES)}"
    # What is not valid UTF-8 is not printable either: it could not be written down.
    return "" if name.isprintable() else "unprintable file name"


def _printable(name: str) -> str:
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def _classes(
    base: pathlib.Path, used: set[str], known: Sequence[str], bad: Sequence[tuple[str, str]]
) -> tuple[str, ...]:
    """Returns the classes by label: in the configured order if that names exactly these."""
    if len(used) < 2:
        outside = f"{len(bad)} images in no class folder" if bad else "no images"
        raise DataError(
            f"{base}: expected images in two or more class folders, CLASS/FILE or PART/CLASS/FILE "
            f"with extension {', '.join(SUFFIXES)}; found "
            + (f"only the class {min(used)}" if used else outside)
        )
    return tuple(known) if used == {name.casefold() for name in known} else tuple(sorted(used))


def _file(
    base: pathlib.Path,
    name: str,
    place: tuple[str, str, str],
    classes: Sequence[str],
    config: DataConfig,
) -> File:
    part, class_name, folder = place
    file_name = name.rpartition("/")[2]

    def named(pattern: str) -> dict[str, str | None]:
        match = re.search(pattern, file_name) if pattern else None
        return match.groupdict() if match else {}

    family = named(config.family_pattern)
    slice_index = family.get("slice") or ""
    return File(
        path=base / name,
        example_id=name,
        label=[one.casefold() for one in classes].index(class_name.casefold()),
        part=part,
        group=named(config.group_pattern).get("group") or folder,
        family=family.get("family") or "",
        slice_index=int(slice_index) if slice_index.isdecimal() else -1,
    )


def _expected(config: DataConfig) -> str:
    return f"train/ and val/, each with {' and '.join(f'{name}/' for name in config.classes)}"
