"""The search for copies among the images of a run: what it found is kept, and then it is used.

A search of thousands of images takes a while, so its result is kept in the cache folder under what
the images are: the same images are searched once, whatever is trained on them.
"""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data.examples import DataError, Examples, pixel_hash
from msa_flax.data.families import THRESHOLD, VERSION, Families, find_families, name_by_first
from msa_flax.data.sources import connected, find_sources
from msa_flax.files import UserError, cache_dir, read_json, write_json

log = logging.getLogger("msa_flax")

_COLUMNS = ("family", "equal", "same")  # of what is kept
# Grey levels, root mean square: a JPEG file of quality 75 or more differs by about as much or less;
# of 1,089 pairs of neighbouring slices of the public data set the most alike differ by 3.6.
_SAVED_AGAIN = 2.5
# Images of known patients beyond which "auto" does not search: that of 2,000 takes a minute, and
# the time grows faster than their number.
MOST_SEARCHED = 5000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Searched:
    """What a search among n images found.

    Attributes:
        family: the position of the first image of each image's family by pixels, int [n].
        equal: the position of the first image that is equal to each, pixel for pixel, int [n].
        same: the position of the first image that shows the same picture as each, int [n]: a copy
            that was neither turned nor changed, but for what another format of the file does.
    """

    family: np.ndarray
    equal: np.ndarray
    same: np.ndarray


def search(
    fingerprints: Sequence[str], count: int, images: Callable[[], Sequence[np.ndarray]]
) -> Searched:
    """Finds copies among images, or reads what an earlier search among the same ones found.

    Args:
        fingerprints: of the tables that the images are from, see :attr:`Examples.fingerprint`.
        count: number of images, n.
        images: returns them in parts, comparable with one another, uint8 [n, 224, 224] together;
            called only where they were not searched before.

    Raises:
        DataError: the images are not so many.
    """
    key = json.dumps([VERSION, THRESHOLD, count, *fingerprints])
    path = cache_dir() / "families" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    found = _kept(path, count)
    if found:
        return found
    log.info(
        "searching %d images for copies of one another (may take minutes; done once, kept in %s)",
        *(count, cache_dir()),
    )
    began = time.perf_counter()
    parts = list(images())
    pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if len(pixels) != count:
        raise DataError(f"expected {count} images, found {len(pixels)} now: files have changed")
    families = find_families(pixels)
    found = Searched(
        family=families.family,
        equal=find_sources(np.array([pixel_hash(image) for image in pixels])),
        same=connected(same_pictures(pixels, families), count),
    )
    copied = int((np.bincount(found.family, minlength=1)[found.family] > 1).sum())
    log.info("%d images are copies of one another: %.1f s", copied, time.perf_counter() - began)
    values = {name: getattr(found, name).tolist() for name in _COLUMNS}
    try:
        write_json(path, {**values, "sha256": _digest(values)})
    except (OSError, UserError) as error:
        log.warning("%s; the next start searches again", error)
    return found


def same_pictures(images: np.ndarray, families: Families) -> np.ndarray:
    """Returns the pairs that are one picture, saved in two ways: int [k, 2].

    They are copies by the search, in place, and differ by less than neighbouring slices do.

    Args:
        images: uint8 [n, 224, 224].
        families: what the search found among them.
    """
    in_place = (np.abs((families.degrees + 180) % 360 - 180) < 1) & ~families.mirrored
    linked = families.similarity >= families.threshold
    linked &= np.equal(*families.family[families.pairs].T)
    pairs = families.pairs[in_place & linked]
    differ = (np.subtract(*images[pair].astype(np.float32)) for pair in pairs)
    near = [np.square(one).mean() <= _SAVED_AGAIN**2 for one in differ]
    return pairs[np.array(near, np.bool_)]


def too_many(examples: Examples, config: DataConfig) -> bool:
    """Returns whether "auto" leaves images unsearched because there are more than 5,000 of them.

    Only images of known patients are left: splits that keep patients whole keep the copies of a
    slice on one side, too. Where groups are unknown, a search is all there is.
    """
    searchable = config.families == "auto" and config.source not in ("phantom", "rsna2022")
    return searchable and examples.groups_known and len(examples) > MOST_SEARCHED


def with_families(examples: Examples, config: DataConfig) -> Examples:
    """Returns a data set with the families that ``config.families`` asks for, and its copies.

    Names that tell the family of every image are taken at their word in "auto"; what a search finds
    beside them is in :attr:`Examples.copies`, so that a split which divides it can be refused. The
    phantom has no copies, nor has the RSNA 2022 challenge, whose slices are as the scanner made
    them; neither is searched in "auto", nor are sets of which :func:`too_many` is true.

    Args:
        examples: their families are those of their names.
        config: where they are from, and ``families``.
    """
    original = config.source == "rsna2022" and config.families == "auto"
    if original or config.source == "phantom" or config.families == "names":
        return examples
    if too_many(examples, config):
        log.warning(
            "%d images of known patients are not searched for copies, only for equal pixels: it "
            "would take long; data.families=pixels searches them, data.families=names says that "
            "there is nothing to search",
            len(examples),
        )
        return examples
    from msa_flax.data import load

    fingerprint, n = examples.fingerprint, len(examples)
    found = search([fingerprint], n, lambda: [load(config, for_search=True).images])
    copies = name_by_first(found.family, examples.example_id)
    same = name_by_first(found.same, examples.example_id)
    examples = dataclasses.replace(examples, copies=copies, same=same)
    if (examples.family != "").all() and config.families == "auto":
        return examples
    if config.families == "pixels" or not (examples.family != "").any():
        family = copies
    else:  # some names tell something: what either way connects is one
        family = examples.family
        own = np.where(family == "", examples.example_id, family)
        source = find_sources(found.family, own)
        order = np.argsort(family == "", kind="stable")  # a name goes before an id
        named = np.where(family == "", name_by_first(source, examples.example_id), family)[order]
        _, first, member = np.unique(source[order], return_index=True, return_inverse=True)
        family = np.empty_like(named)
        family[order] = named[first[member]]
    return dataclasses.replace(examples, family=family, families_by="pixels")


def _kept(path: Path, count: int) -> Searched | None:
    """Returns what was kept, or None if there is nothing or it is damaged."""
    try:
        values = read_json(path)
        kept = {name: values[name] for name in _COLUMNS}
        if values["sha256"] == _digest(kept):
            columns = {name: np.array(column, np.intp) for name, column in kept.items()}
            if all(column.shape == (count,) for column in columns.values()):
                return Searched(**columns)
    except (OSError, ValueError, LookupError, TypeError):
        pass  # whatever is wrong with it, the images are there to be searched again
    return None


def _digest(values: dict[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
