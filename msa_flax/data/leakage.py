"""Copies and series that cross a split: what is refused, and what is said beside every number."""

from collections.abc import Sequence

import numpy as np

from msa_flax.data.examples import DataError, Examples
from msa_flax.data.sources import divided
from msa_flax.data.splits import Splits

COPIES, SERIES = "copies cross the split", "series cross the split"
UNKNOWN = "groups unknown"
UNSEARCHED = "not searched for copies"


def find_stamps(examples: Examples, splits: Splits, *, recorded: Sequence[str] = ()) -> list[str]:
    """Returns what must be said beside every number that comes from these splits.

    "copies cross the split": one source slice, identical pixels, or copies that a search found, are
    in two splits. "series cross the split": one group is. "groups unknown": whether series cross
    cannot be checked.

    Args:
        examples: n examples.
        splits: their splits, in the same order.
        recorded: the stamps of training, which had searched for copies or said that it did not.
    """
    sources = _sources(examples, splits)
    applies = {
        COPIES: COPIES in recorded or any(divided(source, splits.split) for source in sources),
        SERIES: bool(divided(examples.group, splits.split)),
        UNKNOWN: not examples.groups_known,
        UNSEARCHED: UNSEARCHED in recorded,
    }
    return [stamp for stamp, true in applies.items() if true]


def check_leakage(examples: Examples, splits: Splits, *, allow: bool) -> None:
    """Refuses splits between which copies of one slice cross, unless that is allowed.

    Args:
        examples: n examples.
        splits: their splits, in the same order.
        allow: ``config.allow_leakage``.

    Raises:
        DataError: how many slices and images cross, between which splits, and what to do.
    """
    sources = _sources(examples, splits)
    counts = [len(divided(source, splits.split)) for source in sources]
    if allow or not any(counts):
        return
    found = []
    for seen, other in (("validation", "train"), ("test", "train"), ("test", "validation")):
        rows, others = splits.indices(seen), splits.indices(other)
        copied = np.zeros(len(rows), dtype=bool)
        for source in sources:
            copied |= np.isin(source[rows], source[others]) & (source[rows] != "")
        if copied.any():
            count = "all" if copied.all() else f"{copied.sum()} of"
            name = "training" if other == "train" else other
            found.append(f"{count} {len(rows)} {seen} images have a copy in {name}")
    kinds = ("source slices", "identical pictures", "families by pixels")
    divisions = [f"{n} {kind}" for n, kind in zip(counts, kinds, strict=False)]
    unseen = examples.copies is not None and not any(counts[:2])  # names tell of no copy
    ways = "protocol 'family', 'grouped' or 'kfold'"
    if examples.copies is not None:
        ways = "data.families='pixels' with protocol 'family'" if unseen else ways
        ways += ", or data.families='names' if the audit shows that these are no copies"
    raise DataError(
        f"copies cross the split: {', '.join(found)} ({', '.join(divisions[:-1])} and "
        f"{divisions[-1]} are divided); use {ways}, or "
        "accept inflated numbers with data.allow_leakage=True"
    )


def check_contradictions(examples: Examples) -> None:
    """Refuses data in which one picture carries both labels.

    That is: identical pixels or, where copies were searched, pixels that differ by no more than
    they do when a picture is saved again in another format.

    Raises:
        DataError: how many pictures and images are concerned, and the first of them.
    """
    saved_again = "; where they are different slices, data.families=names does not compare them"
    for pictures, more in ((examples.pixels, ""), (examples.same, saved_again)):
        if pictures is None:
            continue
        both = set(pictures[examples.label == 0]) & set(pictures[examples.label == 1]) - {""}
        if both:
            images = np.isin(pictures, list(both))
            names = examples.example_id[pictures == min(both)][:4].tolist()
            raise DataError(
                f"{len(both)} pictures are in both classes ({images.sum()} images), for instance "
                f"{', '.join(names)}; decide which label is right and remove the others{more}"
            )


def _sources(examples: Examples, splits: Splits) -> tuple[np.ndarray, ...]:
    """Returns names of where each image comes from: its family, its pixels and a search's find."""
    if not np.array_equal(examples.example_id, splits.example_id):
        raise DataError(
            f"the table of splits ({len(splits.example_id)} rows) and the data set "
            f"({len(examples)} images) list different examples, or in another order"
        )
    found = () if examples.copies is None else (examples.copies,)
    return examples.family, examples.pixels, *found
