"""How a folder of images is laid out: which of its folders are parts, classes or groups.

Part folders go by several names; upper and lower case, and composed and decomposed Unicode, are the
same. What is hidden, or left behind by desktops and storage devices, is passed over and counted.
"""

import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

from msa_flax.config import DataConfig
from msa_flax.data.dicom import is_dicom
from msa_flax.data.examples import DataError
from msa_flax.data.headers import SUFFIXES, ImageError, check_ordinary

PARTS = ("train", "val", "test")  # of a data set to train with
PART_OF = {
    **{"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"},
    **{"test": "test", "testing": "test"},
}
_SYSTEM = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "@recycle"),
    *("#snapshot", "@recently-snapshot", "$recycle.bin", "lost+found", "system volume information"),
    "dicomdir",
}
# Images of other types, which are counted wherever they lie.
_OTHER_IMAGES = (
    *(".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".jfif", ".heic", ".npy", ".npz", ".svg"),
    *(".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".exr", ".pgm"),
)
_BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # reverse what follows
_PERSON = re.compile(r"(patient|pat|subject|sub|case|study|series|scan|pid)[ _.-]*#")
_UID = re.compile(r"#(\.#){3,}")  # such as 1.2.826.0.1
_MANY = 10  # folders that differ by a number alone, from which they are not taken for classes

Layout = Literal["parts", "classes", "external", "any"]
Place = tuple[str, ...]  # names of folders, from the root
Tree = dict[Place, tuple[list[str], list[str]]]  # names of the folders and of the files inside


def fold(name: str) -> str:
    """Returns what all spellings of a name share: upper and lower case, forms of Unicode."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def find_base(root: pathlib.Path, config: DataConfig, layout: Layout) -> pathlib.Path:
    """Returns the folder that holds the parts or the classes: the root or a folder inside it.

    A folder with nothing in it but another folder is entered, as zip files inside zip files have.

    Raises:
        DataError: there is none, more than one, or the root cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"expected a folder of images, got {str(root)!r}")
    folders, files = _inside(root)
    classes = {fold(name) for name in config.classes}
    if layout == "any":  # what is inside may be called anything: only a single folder is entered
        known = {*PART_OF, *classes}
        alone = len(folders) == 1 and fold(folders[0]) not in known
        alone = alone and not any(map(is_image, files)) and bool(_inside(root / folders[0])[0])
        return find_base(root / folders[0], config, layout) if alone else root
    wanted = {*PART_OF} if layout == "parts" else {*PART_OF, *classes}
    expected = _expected(config, layout)

    def fits(folder: pathlib.Path) -> bool:
        return any(fold(name) in wanted for name in _inside(folder)[0])

    candidates = [root] if fits(root) else [root / name for name in folders if fits(root / name)]
    only = not candidates and len(folders) == 1 and not any(map(is_image, files))
    if only and _inside(root / folders[0])[0]:
        return find_base(root / folders[0], config, layout)
    if len(candidates) != 1:
        names = [folder.name for folder in candidates] or folders
        listed = ", ".join(f"{name}/" for name in names[:10]) or "no folders"
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        found = f"{listed}{more} and {len(files)} files" if names or files else "nothing"
        flat = layout == "parts" and any(fold(name) in classes for name in folders)
        raise DataError(
            f"data.root: expected {expected} in {root}, found {found}"
            + "; data.protocol=kfold splits class folders without parts by patient" * flat
        )
    return candidates[0]


def _inside(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """Returns the sorted names of the visible folders and files inside a folder."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{printable(str(folder))} cannot be read: {error.strerror}") from error

    _, folders, files = next(os.walk(folder, onerror=refuse), ("", [], []))
    return _visible(folders), _visible(files)


def _visible(names: Iterable[str], passed: list[str] | None = None) -> list[str]:
    shown = sorted(name for name in names if name[:1] != "." and fold(name) not in _SYSTEM)
    if passed is not None:
        passed += sorted(set(names) - set(shown))
    return shown


def walk(
    base: pathlib.Path, bad: list[tuple[str, str]], passed: list[str], *, depth: int | None
) -> Tree:
    """Returns what is inside a folder, whatever lies below a depth counted as inside of it.

    Args:
        base: the folder.
        bad: (name, reason) of folders that cannot be listed are added.
        passed: names of what is hidden or a system's own are added.
        depth: how deep folders are entered; None for all.
    """
    tree: Tree = {}

    def note(error: OSError) -> None:
        place = pathlib.Path(error.filename).relative_to(base)
        tree[place.parts] = [], []
        reason = f"a folder that cannot be read: {error.strerror}; its files are not counted"
        bad.append((printable(place.as_posix()), reason))

    for folder, folders, files in os.walk(base, followlinks=True, onerror=note):
        here = pathlib.Path(folder)
        place = here.relative_to(base).parts
        visible = [
            name
            for name in _visible(folders, passed)
            if not here.resolve().is_relative_to((here / name).resolve())  # a link in a circle
        ]
        tree[place] = visible, _visible(files, passed)
        folders[:] = visible if depth is None or len(place) < depth else []
    return tree


def check_layout(
    base: pathlib.Path,
    tree: Tree,
    config: DataConfig,
    bad: Sequence[tuple[str, str]],
    layout: Layout,
) -> None:
    """Refuses folders that are unknown, missing, there twice or without images, all at once.

    Folders inside a class folder are unknown with layout "parts" only.

    Raises:
        DataError: everything that is wrong, with counts.
    """
    problems = [f"{name}/: {reason}" for name, reason in bad]

    def children(place: Place, names: dict[str, str], needed: Sequence[str]) -> list[Place]:
        where = f" in {'/'.join(place)}/" if place else ""
        spellings: dict[str, list[str]] = {name: [] for name in names.values()}
        for child in tree[place][0]:
            if fold(child) in names:
                spellings[names[fold(child)]].append(child)
            else:
                inside = (*place, child)
                number = sum(
                    len(files)
                    for below, (_, files) in tree.items()
                    if below[: len(inside)] == inside
                )
                problems.append(f"unknown folder {child}/ ({number} files){where}")
        for name, found in spellings.items():
            if len(found) > 1:
                same = " and ".join(f"{child}/" for child in found)
                problems.append(f"{same} are the same{where}")
            elif not found and name in needed:
                problems.append(f"no {name}/{where}")
        return [(*place, found[0]) for found in spellings.values() if found]

    found = {PART_OF[fold(name)] for name in tree[()][0] if fold(name) in PART_OF}
    needed = ["train"] if "test" in found else ["train", "val"]
    if layout == "external":  # one part is enough to evaluate
        needed = []
    for part in children((), PART_OF, needed) if found else [()]:
        all_needed = () if layout == "external" else config.classes
        for place in children(part, {fold(name): name for name in config.classes}, all_needed):
            folders, files = tree[place]
            where = "/".join(place)
            if layout == "parts":
                problems += [f"unknown folder {name}/ in {where}/" for name in folders]
            else:
                files = [
                    "/".join((*at[len(place) :], name))
                    for at, (_, names) in tree.items()
                    if at[: len(place)] == place
                    for name in names
                ]
            reasons = [refusal(base, "/".join((*place, name)), place[-1]) for name in files]
            unreadable = any(name == where for name, _ in bad)
            if all(reasons) and not unreadable:
                why = f" that can be used: {printable(files[0])}: {reasons[0]}" if files else ""
                more = f" and {len(files) - 1} more" if len(files) > 1 else ""
                problems.append(f"{where}/ has no images{why}{more}")
    if problems:
        few = "; ".join(problems[:8])
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        expected = _expected(config, layout)
        raise DataError(f"{base}: expected {expected}, with images; found: {few}{more}")


def parts_in_classes(base: pathlib.Path, tree: Tree) -> bool:
    """Whether every class folder holds parts (CLASS/PART/FILE) instead of the other way round.

    Raises:
        DataError: some folders inside class folders are called as parts, others are not.
    """
    tops = [name for name in tree[()][0] if fold(name) not in PART_OF]
    inner = [child for top in tops for child in tree[(top,)][0]]
    parts = [child for child in inner if fold(child) in PART_OF]
    if not parts or len(tops) < len(tree[()][0]):
        return False
    if len(parts) < len(inner):
        raise DataError(
            f"{base}: expected [PART/]CLASS/[GROUP/]FILE or CLASS/PART/FILE; found class folders "
            f"that hold parts ({parts[0]}/) and other folders ({(set(inner) - set(parts)).pop()}/)"
        )
    return True


def check_labels(
    base: pathlib.Path, tree: Tree, classes: Sequence[str], *, known: set[str]
) -> None:
    """Refuses folders of patients or series where classes are expected.

    Args:
        base: the data set's folder.
        tree: what is inside.
        classes: names that would be taken for classes.
        known: the configured classes, folded.

    Raises:
        DataError: the names look like patients', or the configured classes lie inside.
    """
    inside = {
        fold(n) for at, (found, _) in tree.items() if at and fold(at[-1]) in classes for n in found
    }
    if not classes:
        return
    below = bool(inside & known) and not known & set(classes)
    forms = {re.sub(r"\d+", "#", name) for name in classes}
    alike = len(forms) == 1 and "#" in min(forms)
    persons = alike and (len(classes) > _MANY or _PERSON.match(min(forms)) is not None)
    persons = persons or all(_UID.fullmatch(form) for form in forms)
    if below or persons:
        shown = ", ".join(f"{name}/" for name in classes[:3])
        raise DataError(
            f"{base}: no labels in this layout: the {len(classes)} folders {shown}... look like "
            "patients or series, not classes"
            + (f"; the classes {', '.join(sorted(inside & known))} are inside" if below else "")
            + "; expected [PART/]CLASS/[GROUP/]FILE"
        )


def place_of(name: str, layout: Layout, tree: Tree, *, by_class: bool) -> tuple[str, str, str]:
    """Returns a file's part, class and group by its folders, "" where there is none.

    The first folder inside a class names the group. With layout "any" parts keep their folder's
    name, and what lies beside parts has no class.
    """
    folders, part = name.split("/")[:-1], ""
    at = 1 if by_class else 0
    if len(folders) > at and fold(folders[at]) in PART_OF:
        part = folders.pop(at)
    elif layout == "any" and any(fold(top) in PART_OF for top in tree[()][0]):
        return "", "", ""
    class_name, group = folders[0] if folders else "", "".join(folders[1:2])
    return (part if layout == "any" or not part else PART_OF[fold(part)]), class_name, group


def is_image(name: str) -> bool:
    """Whether a file's extension is one that is read."""
    return name.lower().endswith(SUFFIXES)


def is_other_image(name: str) -> bool:
    """Whether a file's extension is that of an image that is not read."""
    return name.lower().endswith(_OTHER_IMAGES)


def refusal(base: pathlib.Path, name: str, class_name: str) -> str:
    """Returns why a file cannot be an image of the data set, "" if it can.

    Args:
        base: the data set's folder.
        name: of the file, below it.
        class_name: of the folder that it is in.
    """
    if not class_name:
        return "not inside a class folder"
    try:
        check_ordinary(os.stat(base / name))
    except ImageError as error:
        return str(error)
    except OSError:
        pass  # reading says what is wrong
    if not is_image(name) and not _is_bare_dicom(base / name):
        return f"wrong extension, expected {', '.join(SUFFIXES)}"
    # What is not valid UTF-8 could not be written down; other controls would garble a table.
    return "unprintable file name" if any(map(_is_control, name)) else ""


def _is_bare_dicom(path: pathlib.Path) -> bool:
    """Whether a file whose name ends with no extension, or a number, is DICOM by its content."""
    if path.suffix and not path.suffix[1:].isdecimal():
        return False
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(132))
    except OSError:
        return False


def printable(name: str) -> str:
    """Returns a name as it can be shown: with control characters as their codes."""
    return "".join(
        one.encode("unicode_escape").decode() if _is_control(one) else one for one in name
    )


def _is_control(one: str) -> bool:
    return unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") or one in _BIDI


def _expected(config: DataConfig, layout: Layout) -> str:
    classes = " and ".join(f"{name}/" for name in config.classes)
    parts = f"train/ and val/, each with {classes}"
    classes += " (or one of them)" if layout == "external" else ""
    return parts if layout == "parts" else f"{classes}, or {parts}"
