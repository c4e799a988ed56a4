"""Finding the images of a class-per-folder data set; nothing is decoded until :func:`read`."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data.examples import DataError, Examples, from_rows
from msa_flax.data.images import SUFFIXES, ImageError, preprocess, read_image

PARTS = ("train", "val")
_IGNORED = ("thumbs.db", "desktop.ini", "__macosx")  # left behind by desktops, never data


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image file and what its place and name say."""

    path: pathlib.Path
    example_id: str  # path below the data set's folder, with forward slashes
    label: int  # index in config.classes
    part: str  # "train" | "val" | ""
    group: str  # "" if the pattern does not fit the name
    family: str  # idem
    slice_index: int  # -1 if unknown


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The listing of a data set's folder, sorted by name."""

    root: pathlib.Path  # the folder that directly holds train/ and val/, or the class folders
    entries: tuple[Entry, ...]
    bad_files: tuple[tuple[str, str], ...]  # (name, reason) of files that cannot be images


def scan_folder(
    root: str | os.PathLike[str], config: DataConfig, *, need_parts: bool = False
) -> Scan:
    """Lists ``ROOT/{train,val}/CLASS/*.{png,jpg,jpeg}`` or ``ROOT/CLASS/*.{png,jpg,jpeg}``.

    Upper and lower case are the same in folder names and extensions; ROOT may also be the only
    folder inside ``root``. Hidden files are passed over.

    Args:
        root: the folder.
        config: ``classes``, ``family_pattern`` and ``group_pattern`` are used.
        need_parts: True refuses a folder without ``train/`` and ``val/``.

    Raises:
        DataError: root missing or empty; a part or class folder missing, empty, unknown or there
            twice. All that was found is listed.
    """
    base, has_parts = _find_base(pathlib.Path(root).expanduser(), config, need_parts)
    problems: list[str] = []
    entries: list[Entry] = []
    bad: list[tuple[str, str]] = []
    parts = _children(base, PARTS, base, problems, bad) if has_parts else {"": base}
    for part, folder in parts.items():
        classes = _children(folder, config.classes, base, problems, bad)
        for name, class_folder in classes.items():
            files = _class_files(class_folder, base, problems, bad)
            label = config.classes.index(name)
            entries += [_entry(path, base, part, label, config) for path in files]
    if problems:
        found = "; ".join(problems)
        raise DataError(f"{base}: expected {_layout(config)}, with images; found: {found}")
    entries.sort(key=lambda entry: entry.example_id)
    return Scan(root=base, entries=tuple(entries), bad_files=tuple(sorted(bad)))


def read(scan: Scan, config: DataConfig) -> Examples:
    """Decodes and preprocesses the images of a listing.

    Raises:
        DataError: see :func:`check_bad_files`.
    """
    rows: list[dict[str, Any]] = []
    bad = list(scan.bad_files)
    images = np.empty((len(scan.entries), config.image_size, config.image_size), np.uint8)
    for entry in scan.entries:
        try:
            image = read_image(entry.path)
        except ImageError as error:
            bad.append((entry.example_id, str(error)))
            continue
        images[len(rows)] = preprocess(image, size=config.image_size, equalize=config.equalize)
        fields = {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}
        rows.append(fields | {"height": image.shape[0], "width": image.shape[1]})
    total = len(scan.entries) + len(scan.bad_files)
    check_bad_files(bad, skip=config.on_bad_file == "skip", total=total)
    return from_rows(rows, images[: len(rows)], bad_files=bad)


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
    first = "; ".join(f"{name}: {reason}" for name, reason in sorted(bad_files)[:10])
    more = f"; and {len(bad_files) - 10} more" if len(bad_files) > 10 else ""
    raise DataError(
        f"{len(bad_files)} of {total} files cannot be used: {first}{more}; repair or remove them"
        + (", or leave them out with data.on_bad_file=skip" if len(bad_files) < total else "")
    )


def _find_base(
    root: pathlib.Path, config: DataConfig, need_parts: bool
) -> tuple[pathlib.Path, bool]:
    """Returns the folder that holds the parts or classes, and whether it holds parts."""
    if not root.is_dir():
        raise DataError(f"data.root: expected a folder ({_layout(config)}), got {str(root)!r}")
    wanted = set(PARTS) if need_parts else {*PARTS, *(name.casefold() for name in config.classes)}

    def fits(folder: pathlib.Path) -> bool:
        return any(child.name.casefold() in wanted for child in _folders(folder))

    inside = _folders(root)
    candidates = [root] if fits(root) else [folder for folder in inside if fits(folder)]
    if len(candidates) != 1:
        names = [folder.name + "/" for folder in candidates or inside]
        files = sum(child.is_file() for child in root.iterdir())
        found = f"{_some(names)} and {files} files" if names or files else "nothing"
        raise DataError(f"data.root: expected {_layout(config)} in {root}, found {found}")
    base = candidates[0]
    return base, any(child.name.casefold() in PARTS for child in _folders(base))


def _children(
    folder: pathlib.Path,
    names: Sequence[str],
    base: pathlib.Path,
    problems: list[str],
    bad: list[tuple[str, str]],
) -> dict[str, pathlib.Path]:
    """Returns the sub-folder of each name; notes what is missing, double, unknown or misplaced."""
    where = f" in {_relative(folder, base)}/" if folder != base else ""
    found: dict[str, list[pathlib.Path]] = {name.casefold(): [] for name in names}
    for child in _folders(folder):
        if child.name.casefold() in found:
            found[child.name.casefold()].append(child)
        else:
            problems.append(f"unknown folder {child.name}/ ({len(_files(child))} files){where}")
    for path in _files(folder):
        if path.suffix.lower() in SUFFIXES:
            bad.append((_relative(path, base), "not inside a class folder"))
    for name, paths in zip(names, found.values(), strict=True):
        if len(paths) != 1:
            same = " and ".join(path.name + "/" for path in paths)
            problems.append(f"{same} are the same{where}" if paths else f"no {name}/{where}")
    return {name: paths[0] for name, paths in zip(names, found.values(), strict=True) if paths}


def _class_files(
    folder: pathlib.Path, base: pathlib.Path, problems: list[str], bad: list[tuple[str, str]]
) -> list[pathlib.Path]:
    """Returns the image files of a class folder; notes everything else that lies there."""
    where, good = _relative(folder, base), []
    problems += [f"unknown folder {child.name}/ in {where}/" for child in _folders(folder)]
    for path in _files(folder):
        name = _relative(path, base)
        if path.suffix.lower() not in SUFFIXES:
            bad.append((name, f"wrong extension, expected {', '.join(SUFFIXES)}"))
        elif not path.name.isprintable():  # also what is not valid UTF-8: it cannot be written down
            bad.append((name.encode("unicode_escape", "replace").decode(), "unprintable file name"))
        else:
            good.append(path)
    if not good:
        problems.append(f"{where}/ has no images")
    return good


def _entry(
    path: pathlib.Path, base: pathlib.Path, part: str, label: int, config: DataConfig
) -> Entry:
    family = re.search(config.family_pattern, path.name) if config.family_pattern else None
    group = re.search(config.group_pattern, path.name) if config.group_pattern else None
    slice_index = family.groupdict().get("slice") if family else None
    return Entry(
        path=path,
        example_id=_relative(path, base),
        label=label,
        part=part,
        group=(group["group"] or "") if group else "",
        family=(family["family"] or "") if family else "",
        slice_index=int(slice_index) if slice_index else -1,
    )


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in _visible(folder) if path.is_dir())


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in _visible(folder) if not path.is_dir())


def _visible(folder: pathlib.Path) -> Iterable[pathlib.Path]:
    for path in folder.iterdir():
        if not path.name.startswith(".") and path.name.casefold() not in _IGNORED:
            yield path


def _relative(path: pathlib.Path, base: pathlib.Path) -> str:
    return path.relative_to(base).as_posix()


def _layout(config: DataConfig) -> str:
    return f"train/ and val/, each with {' and '.join(name + '/' for name in config.classes)}"


def _some(names: list[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "no folders") + more
