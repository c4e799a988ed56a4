"""Copies: images that are equal or show one source, within and across classes and splits."""

from typing import Any

import numpy as np

from msa_flax.auditing.findings import SHOWN, Finding
from msa_flax.data.examples import Examples
from msa_flax.data.families import NOT_SEARCHED, SEARCHED, Families, names_by_pixels
from msa_flax.data.sources import divided

_RANDOM_SPLIT = 0.2  # share held out by the random split that is tried (paper 1 §3.1)


def duplicates(examples: Examples) -> Finding:
    """Looks for images of equal pixels, within and across classes and parts."""
    _, first, member, number = np.unique(
        examples.pixels, return_index=True, return_inverse=True, return_counts=True
    )
    repeated = np.flatnonzero(number > 1).tolist()
    across_classes, across_splits = (
        divided(member, column) for column in (examples.label, examples.part)
    )
    files = int(number[repeated].sum())
    evidence, severity, advice = "No two images have equal pixels.", "none", ""
    if repeated:
        evidence = (
            f"{files} files show {len(repeated)} pictures, pixel for pixel; "
            f"{len(across_classes)} pictures are in more than one class, "
            f"{len(across_splits)} in more than one split."
        )
        severity, advice = "low", "Keep one file a picture."
    if across_classes or across_splits:
        severity = "high"
        advice = "Decide which class is right and keep one file a picture, in one split."
    worst = np.flatnonzero(np.isin(member, across_classes or across_splits or repeated))
    by_picture = worst[np.argsort(first[member[worst]], kind="stable")]
    return Finding(
        key="duplicates",
        severity=severity,
        title="exact duplicates",
        evidence=evidence,
        advice=advice,
        counts={
            "sets": len(repeated),
            "files": files,
            "sets across classes": len(across_classes),
            "sets across splits": len(across_splits),
        },
        examples=examples.example_id[by_picture[:SHOWN]].tolist(),
    )


def family_findings(examples: Examples, families: Families) -> list[Finding]:
    """Compares families by name and by pixels, and finds which parts they cross.

    Args:
        examples: n images.
        families: their families by pixels.
    """
    by_pixels = names_by_pixels(examples, families)
    findings = [_family_sizes(examples, families)]
    if len(families.unclear):
        findings.append(_neighbours(examples, families))
    if (examples.family != "").any():
        findings.append(_across_parts(examples, examples.family, "name", "file names"))
        findings.append(_random_split(examples, examples.family, "name"))
    findings.append(_across_parts(examples, by_pixels, "pixels", "pixels"))
    findings.append(_random_split(examples, by_pixels, "pixels"))
    return findings


def _family_sizes(examples: Examples, families: Families) -> Finding:
    first, sizes = np.unique(families.family, return_counts=True)
    copied = sizes[sizes > 1]
    contradicting = len(divided(families.family, examples.label))
    counts: dict[str, Any] = {
        "families by pixels": len(sizes),
        "with copies": len(copied),
        "images in them": int(copied.sum()),
        "largest": int(sizes.max()),
        "of two classes": contradicting,
    }
    if len(copied):
        evidence = (
            f"{copied.sum()} of {len(examples)} images are copies of one another "
            f"in {len(copied)} families, the largest of {sizes.max()}."
        )
        largest = np.flatnonzero(families.family == first[sizes.argmax()])
    else:
        evidence = f"No copy was found among {SEARCHED}."
        largest = np.zeros(0, np.intp)
    known = examples.family != ""
    if known.any():
        by_name, by_pixels = examples.family[known], families.family[known]
        names = len(np.unique(by_name))
        split, joined = len(divided(by_name, by_pixels)), len(divided(by_pixels, by_name))
        counts |= {
            "families by name": names,
            "names divided by pixels": split,
            "pixel families of several names": joined,
        }
        evidence += (
            f" File names tell {names} families of {known.sum()} images; pixels divide "
            f"{split} of them and join several in {joined} cases."
        )
    else:
        evidence += " File names tell no families."
    evidence += f" Not searched: {NOT_SEARCHED}."
    if contradicting:
        evidence += f" {contradicting} families hold images of two classes."
    return Finding(
        key="families",
        severity="high" if contradicting else "low" if len(copied) else "open",
        title="families (copies of one source)",
        evidence=evidence,
        advice="Count families, not images; keep each in one split." if len(copied) else "",
        counts=counts,
        examples=examples.example_id[largest[:SHOWN]].tolist(),
    )


def _neighbours(examples: Examples, families: Families) -> Finding:
    """Says which images are alike as copies are, and may be neighbouring slices all the same."""
    part = examples.part[families.unclear]
    crossing = int((part[:, 0] != part[:, 1]).sum())
    of_split = f", {crossing} of them in two splits" if crossing else ""
    return Finding(
        key="copies or neighbours",
        severity="medium",
        title="copies or neighbours",
        evidence=(
            f"{len(families.unclear)} pairs of images share noise as copies do{of_split}, but "
            "differ in anatomy, or their similarity falls along a series: it cannot be told "
            "whether they are copies or neighbouring slices that overlap. They were not counted as "
            "copies."
        ),
        advice="Look at the images named; keep a series in one split (data.protocol=grouped).",
        counts={"pairs": len(families.unclear), "pairs in two splits": crossing},
        examples=examples.example_id[families.unclear.ravel()[:SHOWN]].tolist(),
    )


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
    gap = _not_covered(family, how)
    if gap:
        evidence = f"{evidence[:-1]}, as far as known: {gap}."
    if said:
        evidence = f"{'; '.join(said)}."
    elif len(parts) < 2:
        evidence = "The images are in one part: there is no split to leak."
    return Finding(
        key=f"leakage by {how}",
        severity="high" if said else "open" if gap or len(parts) < 2 else "none",
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
    gap = "" if copied else _not_covered(family, how)
    return Finding(
        key=f"random split, by {how}",
        severity="high" if share > 0.05 else "low" if copied else "open" if gap else "none",
        title=f"a random split, by {how}",
        evidence=(
            f"Of {where}, a random {_RANDOM_SPLIT:.0%} ({number} images, seed 0) would have copies "
            f"among the rest in {copied} cases ({share:.0%})" + (f"; {gap}." if gap else ".")
        ),
        advice="Draw validation by family (data.protocol=family) or group." if copied else "",
        counts={"held out": number, "with a copy": copied},
    )


def _not_covered(family: np.ndarray, how: str) -> str:
    """Returns which copies a search by "name" or "pixels" cannot know of, "" if it knows of all."""
    unnamed = int((family == "").sum())
    if how == "pixels":
        return f"not searched: {NOT_SEARCHED}"
    return f"{unnamed} images have no name of a family" if unnamed else ""
