"""A pattern that would find patients or series in file names, suggested where none is found."""

import pathlib
import re
from collections.abc import Sequence

# What is before a separator, or a leading word with its number; tried in this order.
_SHAPES = (
    r"^(?P<group>[^_]+)_",
    r"^(?P<group>[^-]+)-",
    r"^(?P<group>[^ (]+) ?\(",
    r"^(?P<group>[A-Za-z]*[_ -]?\d+)(?![0-9A-Za-z])",
)
_FEWEST = 3  # groups: two may be the classes, or the parts


def group_hint(example_ids: Sequence[str], *, table: bool = False) -> str:
    """Returns how a user can say which images are of one patient, with one of their own names.

    A pattern is suggested if it fits every name and finds three groups or more, and fewer groups
    than images. It is a guess, which the example shows.

    Args:
        example_ids: of images without a group.
        table: whether they are listed in a table of labels, not in class folders.

    >>> group_hint(["P01_1.png", "P01_2.png", "P02_1.png", "P03_1.png"])[:40]
    "the pattern '^(?P<group>[^_]+)_' finds 3"
    """
    names = [pathlib.PurePosixPath(one).name for one in example_ids]
    way = "put each patient's files into a folder of its own, CLASS/PATIENT/FILE"
    way = "write the patient into the table's column group" if table else way
    for shape in _SHAPES:
        found = [match["group"] if (match := re.search(shape, name)) else "" for name in names]
        if all(found) and _FEWEST <= len(set(found)) < len(names):
            return (
                f"the pattern '{shape}' finds {len(set(found))} groups, such as "
                f"{found[0]!r} in {names[0]!r}; or {way}"
            )
    return f"nothing in names such as {names[0]!r} repeats, so {way}"
