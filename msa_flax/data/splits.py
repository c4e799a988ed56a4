"""Which image is used for what: the table of splits, and four protocols that fill it."""

import collections
import dataclasses
import logging
import os
from collections.abc import Sequence

import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data.examples import DataError, Examples
from msa_flax.data.group_names import group_hint
from msa_flax.data.sources import find_sources
from msa_flax.files import UserError, csv_rows, csv_text, write_text

log = logging.getLogger("msa_flax")

SPLITS = ("train", "validation", "test")
_COLUMNS = ("example_id", "split", "fold")
_ALL_COLUMNS = (*_COLUMNS, "family")
_DRAWS = 16  # random draws of validation units, of which the best balanced one is taken
_STREAM = 0x5EED  # keeps these draws apart from the training order's, which start with seed too


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Splits:
    """The split of every example, one row per example, as written to ``splits.csv``."""

    example_id: np.ndarray  # str [n], unique
    split: np.ndarray  # str [n], one of SPLITS
    fold: np.ndarray  # str [n], what is held out: a group, a fold's number, "" (published, family)
    family: np.ndarray | None = None  # str [n], "" unknown; None: they are those of the names

    def indices(self, split: str) -> np.ndarray:
        """Returns the positions of the rows of one split, ascending.

        Args:
            split: one of SPLITS.
        """
        if split not in SPLITS:
            raise DataError(f"expected one of {', '.join(SPLITS)}, got {split!r}")
        return np.flatnonzero(self.split == split)

    def with_families(self, examples: Examples) -> Examples:
        """Returns the examples of the rows with the families of this table, if it has any."""
        if self.family is None:
            return examples
        return dataclasses.replace(examples, family=self.family, families_by="pixels")

    def counts(self, labels: np.ndarray) -> dict[str, tuple[int, int]]:
        """Returns, for each split, how many examples have label 0 and how many label 1.

        Args:
            labels: 0 or 1, [n], in the order of the rows.
        """
        tally = {split: np.bincount(labels[self.split == split], minlength=2) for split in SPLITS}
        return {split: (int(n[0]), int(n[1])) for split, n in tally.items()}

    def as_text(self, labels: np.ndarray, classes: Sequence[str]) -> str:
        """Returns the number of images per class and split, laid out like paper 1's Table 1.

        Args:
            labels: 0 or 1, [n], in the order of the rows.
            classes: class names; index = label.
        """
        counts = self.counts(labels)
        rows: list[tuple[str, ...]] = [("class", *SPLITS, "total")]
        for label in (1, 0):  # paper 1's order: fracture first
            numbers = [counts[split][label] for split in SPLITS]
            rows.append((classes[label], *(str(number) for number in (*numbers, sum(numbers)))))
        first = max(len(row[0]) for row in rows)
        return "\n".join(
            row[0].ljust(first) + "".join(cell.rjust(12) for cell in row[1:]) for row in rows
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as CSV, whole or not at all: example_id, split, fold[, family].

        The families are there if the names alone do not tell them.
        """
        families = [] if self.family is None else [self.family]
        rows = zip(self.example_id, self.split, self.fold, *families, strict=True)
        write_text(path, csv_text(_ALL_COLUMNS[: 3 + len(families)], rows))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Splits":
        """Reads what :meth:`write` has written.

        Raises:
            DataError: not such a table: missing, other columns, unknown splits, an id twice.
        """
        try:
            header, *rows = csv_rows(path) or [[]]
        except UserError as error:
            raise DataError(str(error)) from error
        width, known = len(header), tuple(header) in (_COLUMNS, _ALL_COLUMNS)
        ok = known and all(len(row) == width and row[1] in SPLITS for row in rows)
        if not ok or len({row[0] for row in rows}) != len(rows):
            raise DataError(f"{path} is not a table of splits with columns {', '.join(_COLUMNS)}")
        columns = [np.array([row[i] for row in rows], dtype=np.str_) for i in range(width)]
        return cls(**dict(zip(header, columns, strict=True)))


def assign_splits(examples: Examples, config: DataConfig, *, seed: int) -> Splits:
    """Assigns every example to training, validation or test, by ``config.protocol``.

    - "published": the data set's ``val`` is the test split, its ``train`` is split at random, image
      by image and class by class (paper 1 §3.1). Where the data set has a ``test`` too, that is
      the test split and ``val`` the validation split, and so they are with "family". A table of
      labels is split as it says; where it has no validation images, whole groups are drawn.
    - "family": as "published", but families stay whole, in test too: a family is test if at least
      half of its images are in ``val``; validation takes whole families of the others. Where that
      leaves nothing to train with or to test, families that are in both parts are drawn for test
      at random, until it has as many images of each class as ``val``.
    - "grouped": ``config.holdout_group`` is the test split; validation takes whole families.
    - "kfold": fold ``config.fold`` of ``config.folds`` is the test split; groups stay whole.

    Families that share a picture, pixel by pixel, count as one. Groups that share a picture stay
    two, and :func:`msa_flax.data.leakage.check_leakage` refuses a split between them. The result
    depends on the seed and the examples, not on their order.

    Args:
        examples: n examples.
        config: protocol and its options, ``validation_fraction``.
        seed: the run's seed, >= 0.

    Raises:
        DataError: the protocol cannot be carried out on these examples; an empty split; a single
            class in training.
    """
    order = np.argsort(examples.example_id)
    family = np.where(examples.family != "", examples.family, examples.example_id)
    if config.protocol in ("family", "grouped"):  # the others do not look at families
        family = _join_families(family, examples.pixels)
    group, manifest = examples.group[order], config.source == "manifest"
    rows = _Rows(
        example_id=examples.example_id[order],
        label=examples.label[order],
        group=_by_occurrence(group) if manifest and config.protocol != "grouped" else group,
        family=family[order],
        part=examples.part[order],
    )
    if config.protocol in ("published", "family") and not examples.groups_known:
        nameless = rows.example_id[rows.group == ""].tolist()
        log.warning(
            "%d of %d images are of no known patient or series, which may cross the split; "
            "data.group_pattern: %s",
            *(len(nameless), len(order), group_hint(nameless, table=manifest)),
        )
    if manifest and config.protocol == "kfold":
        said = "no column split in the table: fold %d of %d is held out, groups stay whole"
        log.info(said, config.fold, config.folds)
    fold = ""
    if config.protocol == "grouped":
        test, fold = _is_of_group(rows, config), config.holdout_group
    elif config.protocol == "kfold":
        test, fold = _is_in_fold(rows, config, seed), str(config.fold)
    else:
        test = _is_in_part(rows, "test" if "test" in rows.part else "val", config, seed)
    sorted_split = np.where(test, "test", "train").astype("<U10")
    sorted_split[_choose_validation(rows, test, config, seed)] = "validation"
    split = np.empty_like(sorted_split)
    split[order] = sorted_split
    folds = np.full(len(examples), fold)
    searched = examples.family if examples.families_by == "pixels" else None
    splits = Splits(example_id=examples.example_id, split=split, fold=folds, family=searched)
    _check_usable(splits.counts(examples.label), config)
    return splits


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """The columns that a protocol may look at, in the order of the sorted ids."""

    example_id: np.ndarray
    label: np.ndarray
    group: np.ndarray
    family: np.ndarray  # the example's own id where the family is unknown
    part: np.ndarray


def _is_in_part(rows: _Rows, part: str, config: DataConfig, seed: int) -> np.ndarray:
    """Whether each image, with protocol "family" most of its family, is in a part of the set."""
    if config.source == "manifest" and "test" not in rows.part:
        found = ", ".join(sorted({*rows.part.tolist()} - {""})) or "nothing"
        raise DataError(
            f"data.manifest: the column split must name images to test on, it has {found}; write "
            "test beside them, or leave the column out to split by patient"
        )
    if unknown := int((rows.part == "").sum()):
        raise DataError(
            f"protocol {config.protocol!r} needs train/ and val/; {unknown} images are in neither"
        )
    inside = rows.part == part
    if config.protocol == "published":
        return inside
    _, member = np.unique(rows.family, return_inverse=True)
    share = (np.bincount(member, weights=inside) / np.bincount(member))[member]
    test = share >= 0.5
    if test.any() and len(np.unique(rows.label[~test])) == 2:
        return test
    both, test = (share > 0) & (share < 1), share == 1
    missing = [np.bincount(rows.label[some], minlength=2) for some in (inside, test)]
    rng = np.random.default_rng([seed, _STREAM, 1])
    test[both] = _draw(rows.family[both], rows.label[both], missing[0] - missing[1], rng)
    return test


def _is_of_group(rows: _Rows, config: DataConfig) -> np.ndarray:
    test = rows.group == config.holdout_group
    if not test.any() or not config.holdout_group:
        counts = collections.Counter(sorted(rows.group[rows.group != ""].tolist()))
        known = ", ".join(f"{name} ({count} images)" for name, count in counts.items())
        raise DataError(
            f"data.holdout_group: expected one of {known or 'no group, none is known'}; "
            f"got {config.holdout_group!r}"
        )
    return test


def _is_in_fold(rows: _Rows, config: DataConfig, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold

    nameless = rows.example_id[rows.group == ""].tolist()
    groups, unknown = len(np.unique(rows.group[rows.group != ""])), len(nameless)
    rarest = int(np.bincount(rows.label, minlength=2).min())
    if unknown or groups <= config.folds or rarest < config.folds:
        raise DataError(
            f"protocol 'kfold' with {config.folds} folds needs the group of every image, more "
            f"groups than folds, and {config.folds} images of each class; got {groups} groups, "
            f"{unknown} images without one, {rarest} images of the rarer class"
            + (
                f"; data.group_pattern: {group_hint(nameless, table=config.source == 'manifest')}"
                if nameless
                else ""
            )
        )
    folds = StratifiedGroupKFold(config.folds, shuffle=True, random_state=seed)
    test = np.zeros(len(rows.label), dtype=bool)
    test[list(folds.split(test, rows.label, rows.group))[config.fold][1]] = True
    return test


def _choose_validation(rows: _Rows, test: np.ndarray, config: DataConfig, seed: int) -> np.ndarray:
    """Returns the positions of the validation images: single ones, or whole families or groups."""
    rng = np.random.default_rng([seed, _STREAM])
    if config.protocol in ("published", "family") and {"val", "test"} <= {*rows.part.tolist()}:
        return np.flatnonzero(~test & _is_in_part(rows, "val", config, seed))
    if config.protocol == "published" and config.source != "manifest":
        classes = [np.flatnonzero(~test & (rows.label == label)) for label in (0, 1)]
        return np.concatenate(
            [rng.permutation(c)[: round(config.validation_fraction * len(c))] for c in classes]
        )
    unit = rows.group if config.protocol == "kfold" else rows.family
    if config.protocol == "published":  # of a table of labels
        unit = np.where(rows.group != "", rows.group, rows.family)
    label = rows.label[~test]
    wanted = config.validation_fraction * np.bincount(label, minlength=2)
    return np.flatnonzero(~test)[_draw(unit[~test], label, wanted, rng)]


def _draw(
    unit: np.ndarray, label: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns which images are of the units that are drawn for so many images of each class."""
    names, member = np.unique(unit, return_inverse=True)
    tally = np.zeros((len(names), 2))  # images of each class in each unit
    np.add.at(tally, (member, label), 1)
    draws = [_draw_units(tally, wanted, rng) for _ in range(_DRAWS)]
    chosen, _ = min(draws, key=lambda draw: draw[1])
    drawn: np.ndarray = np.isin(member, chosen)
    return drawn


def _draw_units(
    tally: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> tuple[list[int], float]:
    """Returns units drawn at random, and how far their images are from the wanted numbers.

    Units come in random order; one is taken if that brings both classes, together, nearer.
    """
    chosen: list[int] = []
    missing = wanted
    for i in rng.permutation(len(tally)):
        if np.abs(missing - tally[i]).sum() < np.abs(missing).sum():
            missing = missing - tally[i]
            chosen.append(i)
    if not chosen and len(tally):  # every unit is more than twice what is wanted: the nearest one
        chosen = [int(np.abs(wanted - tally).sum(axis=1).argmin())]
        missing = wanted - tally[chosen[0]]
    return chosen, float(np.abs(missing).sum())


def _by_occurrence(group: np.ndarray) -> np.ndarray:
    """Returns groups named by their first row: splits must not depend on a secret's pseudonyms."""
    _, first, member = np.unique(group, return_index=True, return_inverse=True)
    return np.where(group == "", "", np.char.zfill(first[member].astype(np.str_), 12))


def _check_usable(counts: dict[str, tuple[int, int]], config: DataConfig) -> None:
    empty = [split for split, numbers in counts.items() if sum(numbers) == 0]
    if empty or 0 in counts["train"]:
        found = ", ".join(f"{split} {a} + {b}" for split, (a, b) in counts.items())
        what = f"no images in {' and '.join(empty)}" if empty else "a single class in training"
        raise DataError(
            f"protocol {config.protocol!r} leaves {what}; images per split "
            f"({' + '.join(config.classes)}): {found}"
        )


def _join_families(family: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Returns, for every image, the first name of the families that equal pictures connect."""
    order = np.argsort(family)
    joined = np.empty_like(family)
    joined[order] = family[order][find_sources(family[order], pixels[order])]
    return joined
