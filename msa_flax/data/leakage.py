"""Copies and series that cross a split: what is refused, and what is said beside every number."""

import numpy as np

from msa_flax.data.examples import DataError, Examples
from msa_flax.data.sources import divided
from msa_flax.data.splits import Splits

COPIES, SERIES = "copies cross the split", "series cross the split"
UNKNOWN = "groups unknown"


def find_stamps(examples: Examples, splits: Splits) -> list[str]:
    """Returns what must be said beside every number that comes from these splits.

    "copies cross the split": one source slice, or identical pixels, are in two splits. "series
    cross the split": one group is. "groups unknown": whether series cross cannot be checked.

    Args:
        examples: n examples.
        splits: their splits, in the same order.
    """
    sources = _sources(examples, splits)
    applies = {
        COPIES: any(divided(source, splits.split) for source in sources),
        SERIES: bool(divided(examples.group, splits.split)),
        UNKNOWN: not examples.groups_known,
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
    slices, pictures = (len(divided(source, splits.split)) for source in sources)
    if allow or slices + pictures == 0:
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
    raise DataError(
        f"copies cross the split: {', '.join(found)} ({slices} source slices and {pictures} "
        "identical pictures are divided); use protocol 'family', 'grouped' or 'kfold', or "
        "accept inflated numbers with data.allow_leakage=True"
    )


def check_contradictions(examples: Examples) -> None:
    """Refuses data in which identical pixels carry both labels.

    Raises:
        DataError: how many pictures and images are concerned, and the first of them.
    """
    pixels = examples.pixels
    both = sorted(set(pixels[examples.label == 0]) & set(pixels[examples.label == 1]))
    if both:
        images = np.isin(pixels, both)
        names = examples.example_id[pixels == both[0]][:4].tolist()
        raise DataError(
            f"{len(both)} pictures are in both classes ({images.sum()} images), for instance "
            f"{', '.join(names)}; decide which label is right and remove the others"
        )


def _sources(examples: Examples, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    """Returns two names per image for where it comes from: its family, and its pixels."""
    if not np.array_equal(examples.example_id, splits.example_id):
        raise DataError(
            f"the table of splits ({len(splits.example_id)} rows) and the data set "
            f"({len(examples)} images) list different examples, or in another order"
        )
    return examples.family, examples.pixels
