"""A folder of images as an auditor sees it: any classes, any parts, every fact about the files."""

import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data.examples import DataError, Examples
from msa_flax.data.images import SUFFIXES, ImageError, decode, read_bytes, read_header

SIZE = 224  # pixels, the side of the images that are compared with one another
PART_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing")
BORDER = 0.04  # width of the border, of the shorter side

# What is known of every file, apart from what it shows; "bytes" to "metadata" are the file's own.
FILE_FACTS = ("bytes", "height", "width", "channels", "metadata")
PIXEL_FACTS = ("mean", "spread", "border", "black")

Progress = Callable[[str, int, int], None]  # called with (what is done, images done, images)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inspection:
    """Every usable image of a folder, one row an image, sorted by ``example_id``.

    Attributes:
        root: the folder, as given.
        classes: names of the classes; index = label.
        example_id: path below the folder, str [n], unique.
        label: int [n].
        part: the name of the part's folder ("train", "val", ...), "" where there is none, str [n].
        group: series or patient, "" unknown, str [n].
        family: source slice by its name, "" unknown, str [n].
        slice_index: int [n], -1 unknown.
        pixels: a hash of the decoded grey image, equal only for equal pixels, str [n].
        facts: by name, float64 [n]. Of a file: "bytes"; "height", "width", pixels; "channels";
            "metadata", bytes that are neither pixels nor structure. Of its pixels: "mean" and
            "spread" (standard deviation), grey levels; "border", mean of the outermost 4 %;
            "black", share of zeros. "name order": place among the names of its group, 0..1.
        images: grey, uint8 [n, 224, 224].
        bad_files: (name, reason) of what cannot be used.
    """

    root: pathlib.Path
    classes: tuple[str, ...]
    example_id: np.ndarray
    label: np.ndarray
    part: np.ndarray
    group: np.ndarray
    family: np.ndarray
    slice_index: np.ndarray
    pixels: np.ndarray
    facts: dict[str, np.ndarray]
    images: np.ndarray
    bad_files: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.example_id)


def inspect_folder(
    root: str | os.PathLike[str], config: DataConfig, *, progress: Progress | None = None
) -> Inspection:
    """Reads ``ROOT/[PART/]CLASS/[GROUP/.../]FILE``, whatever the classes are called.

    The first folder below the root, or below a part's folder, is the class. ``group_pattern`` and
    ``family_pattern`` are searched in the file's name; where the former does not fit, a folder
    inside the class folder is the group.

    Args:
        root: the folder; it may also be the only folder inside.
        config: ``classes`` gives the order of classes it names; patterns as above.
        progress: called after each image.

    Raises:
        DataError: no such folder, no images, a single class, fewer than two usable images.
    """
    base = _base(pathlib.Path(root).expanduser(), config.classes)
    paths, places, bad = _sorted_out(base)
    classes = _classes({place[1] for place in places}, config.classes)
    if len(classes) < 2:
        outside = f"{len(bad)} images in no class folder" if bad else "no images"
        found = f"only the class {classes[0]}" if classes else outside
        raise DataError(
            f"{base}: expected images in two or more class folders, CLASS/FILE or "
            f"PART/CLASS/FILE with extension {', '.join(SUFFIXES)}; found {found}"
        )
    read, refused = _read_all(paths, base, progress)
    bad += refused
    if len(read) < 2:
        tally = "; ".join(f"{name}: {reason}" for name, reason in bad[:3])
        more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise DataError(
            f"{base}: expected two or more usable images, found {len(read)}; "
            f"{len(bad)} files cannot be used: {tally}{more}"
        )
    by_path = dict(zip(paths, places, strict=True))
    rows = [by_path[path] for path, *_ in read]
    names = [path.name for path, *_ in read]
    families = _matches(config.family_pattern, names)
    groups = _matches(config.group_pattern, names)
    folders = [folder for _, _, folder in rows]
    group = np.array(
        [m.get("group") or folder for m, folder in zip(groups, folders, strict=True)],
        dtype=np.str_,
    )
    slices = [m.get("slice") or "" for m in families]
    facts = {
        name: np.array([values[name] for _, values, _, _ in read], dtype=np.float64)
        for name in (*FILE_FACTS, *PIXEL_FACTS)
    }
    return Inspection(
        root=pathlib.Path(root),
        classes=classes,
        example_id=np.array([path.relative_to(base).as_posix() for path, *_ in read]),
        label=np.array([_position(name, classes) for _, name, _ in rows]),
        part=np.array([part for part, _, _ in rows], dtype=np.str_),
        group=group,
        family=np.array([m.get("family") or "" for m in families], dtype=np.str_),
        slice_index=np.array([int(text) if text.isdecimal() else -1 for text in slices]),
        pixels=np.array([digest for _, _, digest, _ in read]),
        facts=facts | {"name order": name_order(names, group)},
        images=np.stack([image for *_, image in read]),
        bad_files=tuple(sorted(bad)),
    )


def inspect_examples(examples: Examples, classes: Sequence[str]) -> Inspection:
    """Returns the same for images that are in memory already: there are no facts about files."""
    images = [_resized(image) for image in examples.images]
    facts = [_pixel_facts(image) for image in examples.images]
    return Inspection(
        root=pathlib.Path(),
        classes=tuple(classes),
        example_id=examples.example_id,
        label=examples.label.astype(np.int64),
        part=examples.part,
        group=examples.group,
        family=examples.family,
        slice_index=examples.slice_index,
        pixels=np.array([_digest(image) for image in examples.images]),
        facts={name: np.array([row[name] for row in facts]) for name in PIXEL_FACTS},
        images=np.stack(images),
        bad_files=examples.bad_files,
    )


def name_order(names: Sequence[str], group: np.ndarray) -> np.ndarray:
    """Returns the place of each name among its group's, numbers by value, float64 [n], 0..1."""
    order = np.zeros(len(names))
    for one in np.unique(group):
        rows = np.flatnonzero(group == one).tolist()
        for place, i in enumerate(sorted(rows, key=lambda i: _natural(names[i]))):
            order[i] = place / max(len(rows) - 1, 1)
    return order


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _base(root: pathlib.Path, classes: Sequence[str]) -> pathlib.Path:
    """Returns the folder that holds parts or classes: a single folder inside is entered."""
    if not root.is_dir():
        raise DataError(f"expected a folder of images, got {str(root)!r}")
    visible = [path for path in root.iterdir() if not _is_hidden(path.name)]
    inside = [path for path in visible if path.is_dir()]
    files = any(path.suffix.lower() in SUFFIXES for path in visible)
    known = {*PART_NAMES, *(name.casefold() for name in classes)}
    deeper = len(inside) == 1 and not files and inside[0].name.casefold() not in known
    has_folders = deeper and any(path.is_dir() for path in inside[0].iterdir())
    return inside[0] if has_folders else root


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() == "__macosx"


_Place = tuple[str, str, str]  # part, class, group folder


def _sorted_out(
    base: pathlib.Path,
) -> tuple[list[pathlib.Path], list[_Place], list[tuple[str, str]]]:
    """Returns the images in class folders, where they are, and (name, reason) of the others."""
    paths, places, bad = [], [], []
    for path in _image_files(base):
        relative = path.relative_to(base)
        name, place = relative.as_posix(), _place(relative)
        if not name.isprintable():  # also what is not valid UTF-8: it cannot be written down
            bad.append((name.encode("unicode_escape").decode(), "unprintable file name"))
        elif place is None:
            bad.append((name, "not inside a class folder"))
        else:
            paths.append(path)
            places.append(place)
    return paths, places, bad


def _image_files(base: pathlib.Path) -> list[pathlib.Path]:
    """Returns the image files below a folder by name; links to folders are followed."""
    found = []
    for folder, inside, files in os.walk(base, followlinks=True):
        here = pathlib.Path(folder)
        inside[:] = [
            name
            for name in inside
            if not _is_hidden(name) and not here.resolve().is_relative_to((here / name).resolve())
        ]
        found += [here / name for name in files if not _is_hidden(name)]
    images = [path for path in found if path.suffix.lower() in SUFFIXES]
    return sorted(images, key=lambda path: path.relative_to(base).as_posix())


def _place(path: pathlib.Path) -> _Place | None:
    """Returns part, class and group folder of a file; None if it is in no class folder."""
    folders = list(path.parts[:-1])
    part = folders.pop(0) if folders and folders[0].casefold() in PART_NAMES else ""
    return (part, folders[0], "/".join(folders[1:])) if folders else None


def _classes(names: set[str], known: Sequence[str]) -> tuple[str, ...]:
    """Returns the classes by index: in the configured order where that names them all."""
    folded = {name.casefold() for name in names}
    if folded == {name.casefold() for name in known}:
        return tuple(known)
    return tuple(sorted(folded))


def _matches(pattern: str, names: Sequence[str]) -> list[dict[str, str | None]]:
    """Returns the named groups of a pattern in each name, empty where it does not fit."""
    matches = [re.search(pattern, name) if pattern else None for name in names]
    return [match.groupdict() if match else {} for match in matches]


def _position(name: str, classes: Sequence[str]) -> int:
    return [one.casefold() for one in classes].index(name.casefold())


_Read = tuple[pathlib.Path, dict[str, float], str, np.ndarray]


def _read_all(
    paths: list[pathlib.Path], base: pathlib.Path, progress: Progress | None
) -> tuple[list[_Read], list[tuple[str, str]]]:
    good: list[_Read] = []
    bad: list[tuple[str, str]] = []
    with ThreadPoolExecutor() as pool:  # OpenCV and hashing let other threads run
        for i, (path, found) in enumerate(zip(paths, pool.map(_read, paths), strict=True), 1):
            if isinstance(found, str):
                bad.append((path.relative_to(base).as_posix(), found))
            else:
                good.append((path, *found))
            if progress:
                progress("read", i, len(paths))
    return good, bad


def _read(path: pathlib.Path) -> tuple[dict[str, float], str, np.ndarray] | str:
    """Returns a file's facts, its pixels' hash and its image, or why it cannot be used."""
    try:
        data = read_bytes(path)
        image = decode(data, path.name)
        header = read_header(data, path.name)
    except ImageError as error:
        return str(error)
    height, width = image.shape
    facts = {
        "bytes": len(data),
        "height": height,
        "width": width,
        "channels": header.channels,
        "metadata": header.metadata,
    }
    return facts | _pixel_facts(image), _digest(image), _resized(image)


def _pixel_facts(image: np.ndarray) -> dict[str, float]:
    edge = max(1, round(BORDER * min(image.shape)))
    inner = image[edge:-edge, edge:-edge]
    outer = image.sum(dtype=np.int64) - inner.sum(dtype=np.int64)
    return {
        "mean": float(image.mean()),
        "spread": float(image.std()),
        "border": float(outer / (image.size - inner.size)),
        "black": float((image == 0).mean()),
    }


def _resized(image: np.ndarray) -> np.ndarray:
    if image.shape == (SIZE, SIZE):
        return image
    smaller = min(image.shape) > SIZE
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return cv2.resize(image, (SIZE, SIZE), interpolation=method)


def _digest(image: np.ndarray) -> str:
    digest = hashlib.blake2b(f"{image.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
