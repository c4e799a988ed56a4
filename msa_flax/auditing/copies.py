"""Copies: images that are equal or show one source, within and across classes and splits."""

import collections
from typing import Any

import numpy as np

from msa_flax.auditing.families import Families, connected
from msa_flax.auditing.findings import SHOWN, Finding
from msa_flax.data.examples import Examples

_RANDOM_SPLIT = 0.2  # share held out by the random split that is tried (paper 1 §3.1)


def duplicates(examples: Examples) -> Finding:
    """Looks for images of equal pixels, within and across classes and parts."""
    rows_by_pixels = collections.defaultdict(list)
    for i, pixels in enumerate(examples.pixels.tolist()):
        rows_by_pixels[pixels].append(i)
    sets = [rows for rows in rows_by_pixels.values() if len(rows) > 1]
    across_classes, across_splits = (
        [rows for rows in sets if len(set(column[rows].tolist())) > 1]
        for column in (examples.label, examples.part)
    )
    files = sum(map(len, sets))
    evidence, severity, advice = "No two images have equal pixels.", "none", ""
    if sets:
        evidence = (
            f"{files} files show {len(sets)} pictures, pixel for pixel; "
            f"{len(across_classes)} pictures are in more than one class, "
            f"{len(across_splits)} in more than one split."
        )
        severity, advice = "low", "Keep one file a picture."
    if across_classes or across_splits:
        severity = "high"
        advice = "Decide which class is right and keep one file a picture, in one split."
    worst = across_classes or across_splits or sets
    return Finding(
        key="duplicates",
        severity=severity,
        title="exact duplicates",
        evidence=evidence,
        advice=advice,
        counts={
            "sets": len(sets),
            "files": files,
            "sets across classes": len(across_classes),
            "sets across splits": len(across_splits),
        },
        examples=[str(examples.example_id[i]) for rows in worst for i in rows][:SHOWN],
    )


def family_findings(examples: Examples, families: Families) -> list[Finding]:
    """Compares families by name and by pixels, and finds which parts they cross.

    Args:
        examples: n images.
        families: their families by pixels.
    """
    by_pixels = names_by_pixels(examples, families)
    findings = [_family_sizes(examples, families)]
    for how, title, family in (
        ("name", "file names", examples.family),
        ("pixels",) * 2 + (by_pixels,),
    ):
        if how == "pixels" or (family != "").any():
            findings.append(_across_parts(examples, family, how, title))
            findings.append(_random_split(examples, family, how))
    return findings


def names_by_pixels(examples: Examples, families: Families) -> np.ndarray:
    """Returns the id of the first image of each family by pixels, "" without copies: str [n]."""
    sizes = np.bincount(families.family, minlength=len(examples))
    return np.where(sizes[families.family] > 1, examples.example_id[families.family], "")


def sources(examples: Examples, families: Families) -> np.ndarray:
    """Returns what connects images by names, equal pixels and families by pixels: int [n].

    This is the unit that permutations and random splits must keep whole.
    """
    rows = np.arange(len(examples))
    links = [np.stack([rows, families.family], axis=1)]
    for column in (
        examples.pixels,
        np.where(examples.family == "", examples.example_id, examples.family),
    ):
        _, first, member = np.unique(column, return_index=True, return_inverse=True)
        links.append(np.stack([rows, first[member]], axis=1))
    return connected(np.concatenate(links), len(examples))


def _family_sizes(examples: Examples, families: Families) -> Finding:
    _, sizes = np.unique(families.family, return_counts=True)
    copied = sizes[sizes > 1]
    _, contradicting = _several(families.family, examples.label)
    counts: dict[str, Any] = {
        "families by pixels": len(sizes),
        "with copies": len(copied),
        "images in them": int(copied.sum()),
        "largest": int(sizes.max(initial=0)),
        "of two classes": contradicting,
    }
    known = examples.family != ""
    agreement = " File names tell no families."
    if known.any():
        names, divided = _several(examples.family[known], families.family[known])
        _, joined = _several(families.family[known], examples.family[known])
        counts |= {
            "families by name": names,
            "names divided by pixels": divided,
            "pixel families of several names": joined,
        }
        agreement = (
            f" File names tell {names} families of {known.sum()} images; pixels divide "
            f"{divided} of them and join several in {joined} cases."
        )
    if contradicting:
        agreement += f" {contradicting} families hold images of two classes."
    if len(copied):
        evidence = (
            f"{copied.sum()} of {len(examples)} images are copies of one another "
            f"in {len(copied)} families, the largest of {sizes.max()}."
        )
    else:
        evidence = "No image is a copy of another one by its pixels."
    number = np.bincount(families.family, minlength=len(examples))
    largest = families.family == number.argmax() if len(copied) else np.zeros(len(examples), bool)
    return Finding(
        key="families",
        severity="high" if contradicting else "low" if len(copied) else "none",
        title="families (copies of one source)",
        evidence=evidence + agreement,
        advice="Count families, not images; keep each in one split." if len(copied) else "",
        counts=counts,
        examples=examples.example_id[largest][:SHOWN].tolist(),
    )


def _several(unit: np.ndarray, value: np.ndarray) -> tuple[int, int]:
    """Returns the number of units, and how many of them hold more than one value."""
    pairs = set(zip(unit.tolist(), value.tolist(), strict=True))
    values = collections.Counter(one for one, _ in pairs)
    return len(values), sum(number > 1 for number in values.values())


def _across_parts(examples: Examples, family: np.ndarray, how: str, title: str) -> Finding:
    """Counts the images of each part that have a copy in another one, training first."""
    counts: dict[str, int] = {}
    said, copied_rows = [], []
    parts = examples.parts
    for j, other in enumerate(parts):
        rows = np.flatnonzero(examples.part == other)
        for reference in parts[:j]:
            there = family[examples.part == reference]
            copied = rows[(family[rows] != "") & np.isin(family[rows], there)]
            counts |= {f"{other} in {reference}": len(copied), other: len(rows)}
            copied_rows += copied.tolist()
            if len(copied):
                said.append(
                    f"{len(copied)} of {len(rows)} {other} images have a copy in {reference}"
                )
    evidence = f"No copy of an image is in two of {', '.join(parts)}."
    if said:
        evidence = f"{'; '.join(said)}."
    elif len(parts) < 2:
        evidence = "The images are in one part: there is no split to leak."
    return Finding(
        key=f"leakage by {how}",
        severity="high" if said else "none",
        title=f"copies in two splits, by {title}",
        evidence=evidence,
        advice="Split families, not images: data.protocol=family." if said else "",
        counts=counts,
        examples=examples.example_id[copied_rows[:SHOWN]].tolist(),
    )


def _random_split(examples: Examples, family: np.ndarray, how: str) -> Finding:
    """Says what a random split of the training images, image by image, would leak."""
    part = examples.parts[0] if examples.parts else ""
    rows = np.flatnonzero(examples.part == part)
    shuffled = np.random.default_rng(0).permutation(rows)
    number = max(1, round(_RANDOM_SPLIT * len(rows)))
    held, rest = family[shuffled[:number]], family[shuffled[number:]]
    copied = int(((held != "") & np.isin(held, rest)).sum())
    share = copied / number
    where = f"the {part} images" if part else "the images"
    return Finding(
        key=f"random split, by {how}",
        severity="high" if share > 0.05 else "low" if copied else "none",
        title=f"a random split, by {how}",
        evidence=(
            f"Of {where}, a random {_RANDOM_SPLIT:.0%} ({number} images, seed 0) would have copies "
            f"among the rest in {copied} cases ({share:.0%})."
        ),
        advice="Draw validation by family (data.protocol=family) or group." if copied else "",
        counts={"held out": number, "with a copy": copied},
    )
