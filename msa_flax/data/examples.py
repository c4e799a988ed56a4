"""The table of images that training, audit and prediction share: one row per image."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.data.stored import fetch
from msa_flax.files import UserError

_PART_ORDER = ("train", "training", "validation", "valid", "val", "test", "testing")


class DataError(UserError):
    """The data cannot be used as asked; the message says what was found and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Every image of a data set with what is known of it, sorted by ``example_id`` when loaded."""

    example_id: np.ndarray  # str [n], unique, path-like
    label: np.ndarray  # int8 [n], index into classes; -1 unknown
    group: np.ndarray  # str [n], CT series or patient, "" unknown
    family: np.ndarray  # str [n], source slice, "" unknown
    slice_index: np.ndarray  # int64 [n], -1 unknown
    part: (
        np.ndarray
    )  # str [n], what an image is for: "train", "val", "test" or as the folder says; "" none
    height: np.ndarray  # int32 [n], pixels of the file
    width: np.ndarray  # int32 [n], pixels of the file
    images: np.ndarray  # uint8 [n, s, s], grey; loaded ones are read when asked for, see stored.py
    masks: np.ndarray | None = None  # uint8 [n, s, s], 1 = fracture line; None: there are none
    bad_files: tuple[tuple[str, str], ...] = ()  # (name, reason) of what was left out
    study: np.ndarray | None = None  # str [n], "" unknown; None: the source has none
    classes: tuple[str, ...] = ("normal", "fracture")  # the second one is the positive class
    facts: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)  # see data/facts.py
    file_hash: np.ndarray | None = None  # str [n], of each file's pixels; None: they were not read
    families_by: str = "names"  # "names" | "pixels": what tells the families
    copies: np.ndarray | None = None  # str [n], family by pixels, "" no copy; None: not searched
    same: np.ndarray | None = None  # str [n], picture that was saved again, "" none; None: as above

    def __len__(self) -> int:
        return len(self.example_id)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256, in hex, over ids, labels and images: equal only for equal data."""
        digest = hashlib.sha256(f"{self.images.shape}\n".encode())
        for name, label in zip(self.example_id.tolist(), self.label.tolist(), strict=True):
            digest.update(f"{len(name)} {name} {label}\n".encode())
        for start in range(0, len(self), 256):  # they may be more than memory holds
            digest.update(np.ascontiguousarray(self.images[start : start + 256]).data)
        return digest.hexdigest()

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """A hash per image, str [n], equal only for equal pixels: the file's where it was read."""
        if self.file_hash is not None:
            return self.file_hash
        return np.array([pixel_hash(image) for image in self.images], dtype=np.str_)

    @property
    def groups_known(self) -> bool:
        """Whether every example's series or patient is known."""
        return bool((self.group != "").all())

    @property
    def families_known(self) -> bool:
        """Whether every example's source slice is known."""
        return bool((self.family != "").all())

    @property
    def parts(self) -> list[str]:
        """The names of the parts, training first."""
        rank = {name: i for i, name in enumerate(_PART_ORDER)}
        found = sorted(set(self.part.tolist()) - {""})
        return sorted(found, key=lambda name: rank.get(name.casefold(), len(rank)))

    def take(self, indices: np.ndarray | Sequence[int]) -> "Examples":
        """Returns the chosen examples in the order of the indices (arrays are copied).

        Args:
            indices: whole numbers [m], positions in this data set.
        """
        rows = np.asarray(indices, dtype=np.intp)
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        taken = {
            name: value[rows]
            for name, value in values.items()
            if isinstance(value, np.ndarray) and name != "images"
        }
        taken["images"] = fetch(self.images, rows)
        facts = {name: value[rows] for name, value in self.facts.items()}
        return Examples(**(values | taken | {"facts": facts}))

    def first_of_each_family(self) -> np.ndarray:
        """Returns the position of each family's first image, and of all without one: int [k]."""
        _, first = np.unique(self.family, return_index=True)
        return np.flatnonzero(np.isin(np.arange(len(self)), first) | (self.family == ""))

    def spaced(self, limit: int) -> dict[int, np.ndarray]:
        """Returns, for each label that occurs, evenly spaced positions: int [k].

        Args:
            limit: images per label; 0 for all.
        """
        rows = {int(label): np.flatnonzero(self.label == label) for label in np.unique(self.label)}
        for label, members in rows.items() if limit else ():
            count = min(limit, len(members))
            rows[label] = members[np.linspace(0, len(members) - 1, count).round().astype(np.intp)]
        return rows


def from_rows(
    rows: Sequence[Mapping[str, Any]],
    images: np.ndarray,
    *,
    masks: np.ndarray | None = None,
    bad_files: Sequence[tuple[str, str]] = (),
    classes: Sequence[str] = ("normal", "fracture"),
) -> Examples:
    """Builds :class:`Examples` sorted by ``example_id``, whatever the order of the rows.

    Args:
        rows: n dictionaries with every per-image field of :class:`Examples` from ``example_id`` to
            ``width``, and perhaps ``study``; where files were read, also "facts" (a dictionary) and
            "file_hash".
        images: uint8 [n, s, s], in the order of the rows.
        masks: uint8 [n, s, s] in the order of the rows, or None.
        bad_files: (name, reason) of what was left out.
        classes: names of the classes; index = label.

    Raises:
        DataError: two rows share an ``example_id``.
    """
    ids = np.array([row["example_id"] for row in rows], dtype=np.str_)
    order = np.argsort(ids)
    rows, ids = [rows[i] for i in order], ids[order]
    twice = ids[1:][ids[1:] == ids[:-1]].tolist()
    if twice:
        raise DataError(f"example ids must be unique; {twice[0]!r} occurs more than once")

    def column(name: str, dtype: Any) -> np.ndarray:
        return np.array([row[name] for row in rows], dtype=dtype)

    def ordered(pixels: np.ndarray) -> np.ndarray:  # copied only if need be: they may be large
        return pixels if (np.diff(order) > 0).all() else pixels[order]

    facts = [row["facts"] for row in rows if "facts" in row]
    return Examples(
        example_id=ids,
        label=column("label", np.int8 if len(classes) < 128 else np.int32),
        group=column("group", np.str_),
        family=column("family", np.str_),
        slice_index=column("slice_index", np.int64),
        part=column("part", np.str_),
        height=column("height", np.int32),
        width=column("width", np.int32),
        images=ordered(images),
        masks=None if masks is None else ordered(masks),
        bad_files=tuple(sorted((name, reason) for name, reason in bad_files)),
        study=column("study", np.str_) if all("study" in row for row in rows) else None,
        classes=tuple(classes),
        facts={name: np.array([row[name] for row in facts], np.float64) for name in facts[0]}
        if facts
        else {},
        file_hash=column("file_hash", np.str_) if facts else None,
    )


def pixel_hash(image: np.ndarray) -> str:
    """Returns a hash of an image, equal only for images of equal shape and pixels."""
    digest = hashlib.blake2b(f"{image.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
