"""The RSNA 2022 cervical spine challenge (``data.source = "rsna2022"``): slices labelled by boxes.

``data.root`` is a folder as the challenge was handed out:

- ``train_images/STUDY/NUMBER.dcm``: CT slices;
- ``train.csv``: StudyInstanceUID, patient_overall, C1 to C7, each 0 or 1: which are fractured;
- ``train_bounding_boxes.csv``: StudyInstanceUID, x, y, width, height (pixels), slice_number; of
  some of the studies with a fracture.

A slice with a box shows a fracture. Slices of studies without a fracture are normal. Slices without
a box of studies with boxes are left out, unless ``data.rsna_beyond`` says how far from every box
they are normal. ``data.rsna_every`` thins out normal slices. Studies with a fracture and without
boxes label no slice; they serve to evaluate whole studies. A box belongs to the file of its number,
whichever way the numbers run.

``data.root`` may also be what ``python -m msa_flax.prepare`` has made of that folder; where DICOM
files are needed, they are those that it was made from, see :mod:`msa_flax.data.shards`.
"""

import collections
import csv
import dataclasses
import logging
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data import dicom
from msa_flax.data.examples import DataError
from msa_flax.data.folder import File, Listing, check_bad_files, listed
from msa_flax.data.shards import challenge_folder

log = logging.getLogger("msa_flax")

LEVELS = ("C1", "C2", "C3", "C4", "C5", "C6", "C7")
IMAGES, STUDIES, BOXES = "train_images", "train.csv", "train_bounding_boxes.csv"
_STUDY_COLUMNS = ("StudyInstanceUID", "patient_overall", *LEVELS)
_BOX_COLUMNS = ("StudyInstanceUID", "x", "y", "width", "height", "slice_number")
_SOLUTIONS = "public solutions of the challenge"
_STREAM = 0x25A2022  # deals studies without boxes out to folds
_ROOT = "1.2.826.0.1.3680043."


class Fault(NamedTuple):
    """What is known to be wrong with a study."""

    reason: str
    source: str
    unusable: bool = True  # False: it is read all the same, because nothing here depends on it


# What is wrong with the first four could not be looked up; they are left out as others do.
_REVERSED = Fault("said to be numbered against the others along the body", _SOLUTIONS, False)
KNOWN_FAULTS: dict[str, Fault] = {
    **{f"{_ROOT}{suffix}": Fault("left out by many", _SOLUTIONS) for suffix in (20574, 29952)},
    **{f"{_ROOT}{suffix}": Fault("left out by some", _SOLUTIONS) for suffix in (20756, 8362)},
    **{f"{_ROOT}{suffix}": _REVERSED for suffix in (1363, 20120, 2243, 24606, 32071)},
}


class Box(NamedTuple):
    """Where a fracture is in a slice, in pixels of its file."""

    x: float  # left edge
    y: float  # upper edge
    width: float
    height: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the two tables say, by study."""

    levels: Mapping[str, tuple[int, ...]]  # 0 or 1 for each of LEVELS
    boxes: Mapping[str, Mapping[int, Box]]  # by slice number; studies without boxes are not here

    def fractured(self, study: str) -> bool:
        """Whether a study has a fracture at any level."""
        return any(self.levels[study])

    @property
    def without_boxes(self) -> list[str]:
        """The studies with a fracture that have no boxes: they label no slice."""
        return [one for one in self.levels if self.fractured(one) and one not in self.boxes]


def read_truth(root: str | os.PathLike[str]) -> Truth:
    """Reads and checks the challenge's two tables.

    Args:
        root: the folder that holds them.

    Raises:
        DataError: they are missing, of another challenge, or contradict themselves or each other;
            the message lists what is wrong.
    """
    root = challenge_folder(root)
    problems: list[str] = []
    levels: dict[str, tuple[int, ...]] = {}
    for number, row in enumerate(_read(root / STUDIES, _STUDY_COLUMNS), 2):
        study, where = row["StudyInstanceUID"], f"{STUDIES}, row {number}"
        values = [row[name] for name in _STUDY_COLUMNS[1:]]
        if study in levels:
            problems.append(f"{where}: study {study} for the second time")
        elif not study or not set(values) <= {"0", "1"}:
            problems.append(f"{where}: expected a study and 0 or 1 in each column")
        elif values[0] != max(values[1:]):
            problems.append(f"{where}: patient_overall is not the maximum of {study}'s levels")
        else:
            levels[study] = tuple(map(int, values[1:]))
    boxes: dict[str, dict[int, Box]] = collections.defaultdict(dict)
    for number, row in enumerate(_read(root / BOXES, _BOX_COLUMNS), 2):
        study, where = row["StudyInstanceUID"], f"{BOXES}, row {number}"
        box = _box(row)
        if box is None or not row["slice_number"].isdecimal():
            problems.append(f"{where}: expected numbers, with a width and a height above 0")
        elif study not in levels:
            problems.append(f"{where}: study {study} is not in {STUDIES}")
        elif not any(levels[study]):
            problems.append(f"{where}: a box in study {study}, which has no fracture")
        elif int(row["slice_number"]) in boxes[study]:
            problems.append(f"{where}: a second box on slice {row['slice_number']} of {study}")
        else:
            boxes[study][int(row["slice_number"])] = box
    if problems:
        raise DataError(
            f"{root}: expected rows that fit, {len(problems)} do not: {listed(problems)}"
        )
    return Truth(levels=levels, boxes={study: found for study, found in boxes.items() if found})


def list_rsna(config: DataConfig) -> Listing:
    """Lists the labelled slices of the challenge; ``group`` and ``study`` are the study's UID.

    Args:
        config: ``root``, ``rsna_beyond``, ``rsna_every``, ``rsna_faulty``, ``on_bad_file`` and
            ``max_tilt`` are used.

    Raises:
        DataError: the tables are wrong; or files, folders and boxes do not fit them, and
            ``config.on_bad_file`` is "error".
    """
    root = challenge_folder(config.root)
    truth = read_truth(root)
    bad: list[tuple[str, str]] = []
    studies = _slices_by_study(root, truth, bad)
    _leave_out_faulty(studies, config)
    files: list[File] = []
    for study, slices in studies.items():
        if study in truth.boxes:
            files += _of_boxed_study(study, slices, truth.boxes[study], config, bad)
        elif not truth.fractured(study):
            every = config.rsna_every
            files += [slice_file(study, path, 0) for n, path in slices.items() if n % every == 0]
    files.sort(key=lambda file: file.example_id)
    _say(files, studies, truth)
    # Now, and not after hundreds of thousands of slices have been decoded.
    check_bad_files(bad, skip=config.on_bad_file == "skip", total=len(files) + len(bad))
    return Listing(
        root=root, classes=tuple(config.classes), files=tuple(files), bad_files=tuple(sorted(bad))
    )


def labelled_studies(config: DataConfig) -> list[str]:
    """Returns the studies that label slices by what the tables say, whatever files there are.

    Raises:
        DataError: as :func:`read_truth`.
    """
    truth, leave_out = read_truth(config.root), config.rsna_faulty == "leave_out"
    faulty = {study for study, fault in KNOWN_FAULTS.items() if fault.unusable and leave_out}
    return sorted({*truth.levels} - {*truth.without_boxes} - faulty)


def whole_studies(
    config: DataConfig, split: str, among: Collection[str]
) -> dict[str, list[pathlib.Path]]:
    """Returns every slice of the studies that a split evaluates as a whole, by study.

    These are the studies whose labelled slices are in the split, and a share of the studies with a
    fracture and without boxes, which no split can hold: one in ``config.folds`` of them is tested
    in each fold, as many serve for validation.

    Args:
        config: ``root``, ``rsna_faulty``, ``rsna_unboxed``, ``fold`` and ``folds`` are used.
        split: "train", "validation" or "test".
        among: the studies whose labelled slices are in the split.

    Raises:
        DataError: as :func:`list_rsna`.
    """
    root = challenge_folder(config.root)
    truth = read_truth(root)
    studies = _slices_by_study(root, truth, [])
    _leave_out_faulty(studies, config)
    unboxed = [study for study in sorted(truth.without_boxes) if study in studies]
    if config.rsna_unboxed == "leave_out":
        unboxed = []
    offset = {"test": 0, "validation": 1}
    dealt = [
        study
        for i, study in enumerate(np.random.default_rng(_STREAM).permutation(unboxed).tolist())
        if split in offset and i % config.folds == (config.fold + offset[split]) % config.folds
    ]
    return {study: list(studies[study].values()) for study in sorted({*among, *dealt})}


def _read(path: pathlib.Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"data.root: expected {path.name} of the RSNA 2022 challenge, {path} cannot be read: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from error
    if list(reader.fieldnames or ()) != list(columns):
        found = ", ".join(reader.fieldnames or ())[:200] or "nothing"
        raise DataError(
            f"{path}: expected the RSNA 2022 challenge's columns {', '.join(columns)}; found "
            f"{found}: a table of another challenge?"
        )
    return [{name: (row[name] or "").strip() for name in columns} for row in rows]


def _box(row: Mapping[str, str]) -> Box | None:
    try:
        box = Box(*(float(row[name]) for name in Box._fields))
    except ValueError:
        return None
    good = np.isfinite(box).all() and box.width > 0 and box.height > 0
    return box if good else None


def _slices_by_study(
    root: pathlib.Path, truth: Truth, bad: list[tuple[str, str]]
) -> dict[str, dict[int, pathlib.Path]]:
    """Returns the files of each study by their number; what does not fit goes to ``bad``."""
    base = root / IMAGES
    if not base.is_dir():
        raise DataError(f"data.root: expected a folder with {IMAGES}/STUDY/NUMBER.dcm, got {root}")
    folders = {entry.name for entry in os.scandir(base) if entry.is_dir()}
    bad += [
        (f"{IMAGES}/{one}", f"a folder that {STUDIES} does not name")
        for one in folders - {*truth.levels}
    ]
    found: dict[str, dict[int, pathlib.Path]] = {}
    for study in truth.levels:
        if study not in folders:
            bad.append((f"{IMAGES}/{study}", f"no such folder, {STUDIES} names it"))
            continue
        slices: dict[int, pathlib.Path] = {}
        for path in sorted((base / study).glob("*.dcm"), reverse=True):
            if path.stem.isdecimal() and slices.setdefault(int(path.stem), path) != path:
                reason = f"another file of slice {int(path.stem)} is there"
                bad.append((f"{IMAGES}/{study}/{path.name}", reason))
        if not slices:
            bad.append((f"{IMAGES}/{study}", "no slices: no file NUMBER.dcm in it"))
            continue
        found[study] = dict(sorted(slices.items()))
        bad += [
            (f"{IMAGES}/{study}/{number}.dcm", f"no such file, {BOXES} has a box on it")
            for number in truth.boxes.get(study, {})
            if number not in slices
        ]
    return found


def _leave_out_faulty(studies: dict[str, dict[int, pathlib.Path]], config: DataConfig) -> None:
    """Takes out the studies with known faults, if so configured, and says which."""
    for study, fault in KNOWN_FAULTS.items():
        if study in studies:
            out = fault.unusable and config.rsna_faulty == "leave_out"
            log.warning(
                "%s: %s (%s): %s",
                *(study, fault.reason, fault.source, "left out" if out else "used"),
            )
            if out:
                del studies[study]


def _of_boxed_study(
    study: str,
    slices: Mapping[int, pathlib.Path],
    boxes: Mapping[int, Box],
    config: DataConfig,
    bad: list[tuple[str, str]],
) -> list[File]:
    """Returns the slices with boxes, and those that are far enough from all of them."""
    wanted = [number for number in boxes if number in slices]
    if config.rsna_beyond:
        wanted += [n for n in slices if n not in boxes and n % config.rsna_every == 0]
    heights: dict[int, float] = {}
    for number in wanted:
        name = f"{IMAGES}/{study}/{number}.dcm"
        try:
            header = dicom.read_header(slices[number], max_tilt=config.max_tilt)[0]
        except dicom.DicomError as error:
            bad.append((name, str(error)))
            continue
        box = boxes.get(number)
        if box and not _inside(box, header):
            size = f"{header.columns} x {header.rows}"
            bad.append((name, f"its box {tuple(box)} is outside its frame of {size} pixels"))
        else:
            heights[number] = header.position[2]
    broken = [number for number in boxes if number in heights]
    files = [slice_file(study, slices[number], 1) for number in broken]
    near = np.array([heights[number] for number in broken])
    for number, height in heights.items():
        if number not in boxes and len(near) and abs(near - height).min() >= config.rsna_beyond:
            files.append(slice_file(study, slices[number], 0))
    return files


def _inside(box: Box, header: dicom.DicomSlice) -> bool:
    left_top = box.x >= 0 and box.y >= 0
    return left_top and box.x + box.width <= header.columns and box.y + box.height <= header.rows


def slice_file(study: str, path: pathlib.Path, label: int) -> File:
    """Returns what is known of a labelled slice; its number is the name of its file."""
    number = int(path.stem)
    return File(
        path=path,
        example_id=f"{IMAGES}/{study}/{number}.dcm",
        label=label,
        group=study,
        study=study,
        slice_index=number,
    )


def _say(files: Sequence[File], studies: Mapping[str, object], truth: Truth) -> None:
    kinds = collections.Counter(
        "with boxes" if one in truth.boxes else "fractured" if truth.fractured(one) else "normal"
        for one in studies
    )
    log.info(
        "RSNA 2022: %d studies: %d without a fracture, %d with boxes, %d with a fracture and no "
        "boxes, which label no slice; %d slices with a fracture, %d without",
        *(len(studies), kinds["normal"], kinds["with boxes"], kinds["fractured"]),
        *(sum(file.label for file in files), sum(not file.label for file in files)),
    )
