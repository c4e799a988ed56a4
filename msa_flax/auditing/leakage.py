"""Copies: images that are equal or of one source, within and across classes and splits."""

import collections
from typing import Any

import numpy as np

from msa_flax.auditing.families import Families, connected
from msa_flax.auditing.findings import SHOWN, Finding, Images

_RANDOM_SPLIT = 0.2  # share held out by the random split that is tried (paper 1 §3.1)


def duplicates(images: Images) -> Finding:
    """Images of equal pixels, within and across classes and splits."""
    kept = collections.defaultdict(list)
    for i, key in enumerate(images.pixels.tolist()):
        kept[key].append(i)
    sets = [rows for rows in kept.values() if len(rows) > 1]
    across = {
        what: [rows for rows in sets if len(set(column[rows].tolist())) > 1]
        for what, column in (("classes", images.label), ("splits", images.split))
    }
    counts = {
        "sets": len(sets),
        "files": sum(map(len, sets)),
        **{f"sets across {what}": len(found) for what, found in across.items()},
    }
    if not sets:
        evidence, severity, advice = "No two images have equal pixels.", "none", ""
    else:
        evidence = (
            f"{counts['files']} files show {counts['sets']} pictures, pixel for pixel; "
            f"{counts['sets across classes']} pictures are in more than one class, "
            f"{counts['sets across splits']} in more than one split."
        )
        severity = "high" if across["classes"] or across["splits"] else "low"
        advice = (
            "Keep one file a picture."
            if severity == "low"
            else ("Decide which class is right and keep one file a picture, in one split.")
        )
    worst = across["classes"] or across["splits"] or sets
    return Finding(
        key="duplicates",
        severity=severity,
        title="exact duplicates",
        evidence=evidence,
        advice=advice,
        counts=counts,
        examples=[str(images.example_id[i]) for rows in worst for i in rows][:SHOWN],
    )


def family_findings(images: Images, found: Families) -> list[Finding]:
    """Families by name and by pixels, whether they agree, and which splits they cross."""
    findings = [_family_sizes(images, found)]
    for key, title, source in (
        ("leakage by name", "copies in two splits, by file names", images.family),
        ("leakage by pixels", "copies in two splits, by pixels", by_pixels(images, found)),
    ):
        if key == "leakage by pixels" or (source != "").any():
            findings += [_leakage(images, source, key, title), _random_split(images, source, key)]
    return findings


def by_pixels(images: Images, found: Families) -> np.ndarray:
    """Returns each image's family by pixels as text, "" where an image has no copy, str [n]."""
    sizes = np.bincount(found.family, minlength=len(found.family))
    return np.where(sizes[found.family] > 1, images.example_id[found.family], "")


def all_sources(images: Images, found: Families | None = None) -> np.ndarray:
    """Returns what connects images by names, equal pixels and, if given, pixel families: int [n].

    This is the unit that permutations and random splits must keep whole.
    """
    count = len(images.example_id)
    names = [images.pixels, np.where(images.family == "", images.example_id, images.family)]
    links = [np.stack([np.arange(count), found.family], axis=1)] if found is not None else []
    for column in names:
        _, first, member = np.unique(column, return_index=True, return_inverse=True)
        links.append(np.stack([np.arange(count), first[member]], axis=1))
    return connected(np.concatenate(links), count)


def _family_sizes(images: Images, found: Families) -> Finding:
    _, sizes = np.unique(found.family, return_counts=True)
    copied = sizes[sizes > 1]
    counts: dict[str, Any] = {
        "families by pixels": len(sizes),
        "with copies": len(copied),
        "images in them": int(copied.sum()),
        "largest": int(sizes.max(initial=0)),
        "of two classes": _of_two_classes(images, found),
    }
    known = images.family != ""
    agreement = ""
    if known.any():
        names = images.family[known]
        pairs = set(zip(names.tolist(), found.family[known].tolist(), strict=True))
        divided = collections.Counter(name for name, _ in pairs)
        merged = collections.Counter(root for _, root in pairs)
        counts |= {
            "families by name": len(divided),
            "names divided by pixels": sum(number > 1 for number in divided.values()),
            "pixel families of several names": sum(number > 1 for number in merged.values()),
        }
        agreement = (
            f" File names tell {len(divided)} families of {known.sum()} images; pixels divide "
            f"{counts['names divided by pixels']} of them and join several in "
            f"{counts['pixel families of several names']} cases."
        )
    else:
        agreement = " File names tell no families."
    order = np.argsort(-np.bincount(found.family, minlength=len(found.family)), kind="stable")
    largest = order[0] if len(copied) else -1
    contradicting = counts["of two classes"]
    if contradicting:
        agreement += f" {contradicting} families hold images of two classes."
    return Finding(
        key="families",
        severity="high" if contradicting else "low" if len(copied) else "none",
        title="families (copies of one source)",
        evidence=(
            f"{counts['images in them']} of {len(found.family)} images are copies of one another "
            f"in {len(copied)} families, the largest of {counts['largest']}." + agreement
            if len(copied)
            else f"No image is a copy of another one by its pixels.{agreement}"
        ),
        advice="Count families, not images; keep each in one split." if len(copied) else "",
        counts=counts,
        examples=images.example_id[found.family == largest][:SHOWN].tolist(),
    )


def _of_two_classes(images: Images, found: Families) -> int:
    pairs = set(zip(found.family.tolist(), images.label.tolist(), strict=True))
    return sum(number > 1 for number in collections.Counter(root for root, _ in pairs).values())


def _leakage(images: Images, source: np.ndarray, key: str, title: str) -> Finding:
    """How many images of each split have a copy in another one, training first."""
    counts, said, copied_rows = {}, [], []
    splits = images.splits
    for j, other in enumerate(splits):
        for reference in splits[:j]:
            rows = np.flatnonzero(images.split == other)
            there = source[images.split == reference]
            copied = rows[(source[rows] != "") & np.isin(source[rows], there)]
            counts[f"{other} in {reference}"] = len(copied)
            counts[other] = len(rows)
            copied_rows += copied.tolist()
            if len(copied):
                said.append(
                    f"{len(copied)} of {len(rows)} {other} images have a copy in {reference}"
                )
    if len(splits) < 2:
        evidence, severity = "The images are in one part: there is no split to leak.", "none"
    elif said:
        evidence, severity = f"{'; '.join(said)}.", "high"
    else:
        evidence, severity = f"No copy of an image is in two of {', '.join(splits)}.", "none"
    return Finding(
        key=key,
        severity=severity,
        title=title,
        evidence=evidence,
        advice="Split families, not images: data.protocol=family." if said else "",
        counts=counts,
        examples=images.example_id[copied_rows[:SHOWN]].tolist(),
    )


def _random_split(images: Images, source: np.ndarray, key: str) -> Finding:
    """What a random split of the training images, image by image, would leak."""
    first = images.splits[0] if images.splits else ""
    rows = np.flatnonzero(images.split == first)
    shuffled = np.random.default_rng(0).permutation(rows)
    number = max(1, round(_RANDOM_SPLIT * len(rows)))
    held, rest = shuffled[:number], shuffled[number:]
    copied = int(((source[held] != "") & np.isin(source[held], source[rest])).sum())
    share = copied / number
    where = f"the {first} images" if first else "the images"
    return Finding(
        key=f"random split, {key.removeprefix('leakage ')}",
        severity="high" if share > 0.05 else "low" if copied else "none",
        title=f"a random split, {key.removeprefix('leakage ')}",
        evidence=(
            f"Of {where}, a random {_RANDOM_SPLIT:.0%} ({number} images, seed 0) would have copies "
            f"among the rest in {copied} cases ({share:.0%})."
        ),
        advice="Draw validation by family (data.protocol=family) or group." if copied else "",
        counts={"held out": number, "with a copy": copied},
    )
