"""A data set in memory: one row an image, columns as arrays."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from msa_flax.files import UserError


class DataError(UserError):
    """The data cannot be used as asked; the message says what was found and what to do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Every image of a data set with what is known of it, sorted by ``example_id`` when loaded."""

    example_id: np.ndarray  # str [n], unique, path-like
    label: np.ndarray  # int8 [n], 1 = fracture (positive), 0 = normal
    group: np.ndarray  # str [n], CT series or patient, "" unknown
    family: np.ndarray  # str [n], source slice, "" unknown
    slice_index: np.ndarray  # int32 [n], -1 unknown
    part: np.ndarray  # str [n], the data set's own split: "train" | "val" | "" (none)
    height: np.ndarray  # int32 [n], pixels of the file
    width: np.ndarray  # int32 [n], pixels of the file
    images: np.ndarray  # uint8 [n, s, s], grey, as msa_flax.data.images makes them
    masks: np.ndarray | None  # uint8 [n, s, s], 1 = fracture line; None where there are none
    bad_files: tuple[tuple[str, str], ...]  # (name, reason) of what was left out
    fingerprint: str  # sha256 hex over ids, labels and preprocessed pixels

    def __len__(self) -> int:
        return len(self.example_id)

    @property
    def groups_known(self) -> bool:
        """Whether every example's series or patient is known."""
        return bool((self.group != "").all())

    @property
    def families_known(self) -> bool:
        """Whether every example's source slice is known."""
        return bool((self.family != "").all())

    def take(self, indices: np.ndarray | Sequence[int]) -> "Examples":
        """Returns the chosen examples in the order of the indices (arrays are copied).

        Args:
            indices: whole numbers [m], positions in this data set.
        """
        fields = [field.name for field in dataclasses.fields(self)]
        values = {name: getattr(self, name) for name in fields}
        taken = {
            name: value[np.asarray(indices, dtype=np.intp)]
            for name, value in values.items()
            if isinstance(value, np.ndarray)
        }
        digest = fingerprint(taken["example_id"], taken["label"], taken["images"])
        return Examples(**(values | taken | {"fingerprint": digest}))

    def one_a_family(self) -> np.ndarray:
        """Returns the position of each family's first image, and of all without one: int [k]."""
        _, first = np.unique(self.family, return_index=True)
        return np.flatnonzero(np.isin(np.arange(len(self)), first) | (self.family == ""))

    def spaced(self, limit: int) -> dict[int, np.ndarray]:
        """Returns for each label that occurs at most so many positions, evenly spaced: int [k].

        Args:
            limit: images a label; 0 for all.
        """
        rows = {int(label): np.flatnonzero(self.label == label) for label in np.unique(self.label)}
        for label, members in rows.items() if limit else ():
            count = min(limit, len(members))
            rows[label] = members[np.linspace(0, len(members) - 1, count).round().astype(np.intp)]
        return rows


def from_rows(
    rows: Sequence[dict[str, Any]],
    images: np.ndarray,
    *,
    masks: np.ndarray | None = None,
    bad_files: Sequence[tuple[str, str]] = (),
) -> Examples:
    """Builds :class:`Examples` sorted by ``example_id``, whatever the order of the rows.

    Args:
        rows: n dictionaries with every per-image field of :class:`Examples` but images and masks.
        images: uint8 [n, s, s], in the order of the rows.
        masks: uint8 [n, s, s] in the order of the rows, or None.
        bad_files: (name, reason) of what was left out.

    Raises:
        DataError: two rows share an ``example_id``.
    """
    ids = np.array([row["example_id"] for row in rows], dtype=np.str_)
    order = np.argsort(ids)
    ids = ids[order]
    _check_unique(ids)

    def column(name: str, dtype: Any) -> np.ndarray:
        return np.array([rows[i][name] for i in order], dtype=dtype)

    label, images = column("label", np.int8), images[order]
    return Examples(
        example_id=ids,
        label=label,
        group=column("group", np.str_),
        family=column("family", np.str_),
        slice_index=column("slice_index", np.int32),
        part=column("part", np.str_),
        height=column("height", np.int32),
        width=column("width", np.int32),
        images=images,
        masks=None if masks is None else masks[order],
        bad_files=tuple(sorted((name, reason) for name, reason in bad_files)),
        fingerprint=fingerprint(ids, label, images),
    )


def _check_unique(sorted_ids: np.ndarray) -> None:
    twice = sorted_ids[1:][sorted_ids[1:] == sorted_ids[:-1]].tolist()
    if twice:
        raise DataError(f"example ids must be unique; {twice[0]!r} occurs more than once")


def fingerprint(example_id: np.ndarray, label: np.ndarray, images: np.ndarray) -> str:
    """Returns the sha256, in hex, over ids, labels and pixels: equal only for equal data.

    Args:
        example_id: str [n].
        label: whole numbers [n].
        images: uint8 [n, s, s].
    """
    digest = hashlib.sha256(f"{images.shape}\n".encode())
    for name, value in zip(example_id.tolist(), label.tolist(), strict=True):
        digest.update(f"{len(name)} {name} {value}\n".encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()
