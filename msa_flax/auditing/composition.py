"""What a data set is made of: groups, classes, sizes, files that cannot be read."""

import collections

import numpy as np

from msa_flax.auditing.findings import SHOWN, Finding, listed
from msa_flax.data.examples import Examples
from msa_flax.data.sources import divided

_ENOUGH_GROUPS = 10  # fewer cannot say how results vary by patient
_IMBALANCE = 3  # ratio of the commonest to the rarest class from which accuracy alone misleads


def unreadable(examples: Examples) -> Finding:
    """Counts the files that cannot be used, and how many for which reason."""
    bad_files, total = examples.bad_files, len(examples) + len(examples.bad_files)
    evidence = f"All {total} files are readable."
    if bad_files:
        reasons = collections.Counter(reason for _, reason in bad_files).most_common()
        said = "; ".join(f"{reason}: {number}" for reason, number in reasons[:5])
        more = f"; {len(reasons) - 5} other reasons" if len(reasons) > 5 else ""
        evidence = f"{len(bad_files)} of {total} files cannot be used: {said}{more}. "
        evidence += "All are in audit.json."
    advice = "Repair or remove them; training refuses them unless data.on_bad_file=skip."
    return Finding(
        key="unreadable",
        severity="medium" if bad_files else "none",
        title="unreadable files",
        evidence=evidence,
        advice=advice if bad_files else "",
        counts={"unreadable": len(bad_files), "files": total},
        examples=[name for name, _ in bad_files[:SHOWN]],
    )


def group_findings(examples: Examples) -> list[Finding]:
    """Asks of series or patients whether they are known, cross parts and have both classes."""
    known = examples.group != ""
    if not known.any():
        return [
            Finding(
                key="groups",
                severity="medium",
                title="groups (series, patients)",
                evidence="No group is known: nobody can tell whether a patient is in two splits.",
                advice="Name them: a folder a patient inside the class, or data.group_pattern.",
                counts={"groups": 0, "images without a group": len(known)},
            )
        ]
    names = sorted(set(examples.group[known].tolist()))
    tally = {name: _by_class(examples, examples.group == name) for name in names}
    sizes = [f"{name} ({' + '.join(map(str, numbers))})" for name, numbers in tally.items()]
    unknown, enough = int((~known).sum()), len(names) >= _ENOUGH_GROUPS
    single = [name for name, numbers in tally.items() if np.count_nonzero(numbers) == 1]
    return [
        Finding(
            key="groups",
            severity="low" if enough and not unknown else "medium",
            title="groups (series, patients)",
            evidence=(
                f"{len(names)} groups, with images per class ({' + '.join(examples.classes)}): "
                f"{listed(sizes)}." + (f" {unknown} images have none." if unknown else "")
            ),
            advice="" if enough else "So few cannot say how results vary by patient.",
            counts={"groups": len(names), "images without a group": unknown},
        ),
        Finding(
            key="one-class groups",
            severity="medium" if single else "open" if unknown else "none",
            title="groups of a single class",
            evidence=(
                f"One class only: {len(single)} of {len(names)} groups, {listed(single)}."
                if single
                else "Every known group holds images of more than one class."
            ),
            advice="What tells the group tells the class; report such a group apart."
            if single
            else "",
            counts={"groups of one class": len(single)},
            examples=single[:SHOWN],
        ),
        _groups_in_parts(examples),
    ]


def _by_class(examples: Examples, rows: np.ndarray) -> list[int]:
    """Returns the number of images of each class among the chosen ones."""
    return np.bincount(examples.label[rows], minlength=len(examples.classes)).tolist()


def _groups_in_parts(examples: Examples) -> Finding:
    parts = examples.parts
    inside = {part: set(examples.group[examples.part == part].tolist()) - {""} for part in parts}
    used = examples.part != ""
    shared = sorted(divided(examples.group[used], examples.part[used]))
    alone = [part for part in parts[1:] if len(inside[part]) == 1]
    number, said = len(set().union(*inside.values())), []
    if shared:
        said.append(f"In more than one split: {len(shared)} of {number} groups, {listed(shared)}.")
    said += [f"All {part} images are of one group, {min(inside[part])}." for part in alone]
    if len(parts) < 2:
        said = ["The images are in one part."]
    unknown = int((examples.group == "").sum())
    if unknown and len(parts) > 1:
        said.append(
            f"{unknown} images have no group; whether theirs is in two splits is not known."
        )
    is_open = unknown > 0 or len(parts) < 2
    counts = {f"groups in {part}": len(found) for part, found in inside.items()}
    return Finding(
        key="groups across splits",
        severity="high" if shared or alone else "open" if is_open else "none",
        title="groups and splits",
        evidence=" ".join(said) or "No group is in two splits.",
        advice="Split by group: data.protocol=grouped or kfold." if shared or alone else "",
        counts=counts | {"groups in two splits": len(shared)},
    )


def balance(examples: Examples) -> Finding:
    """Counts the images of each class, overall and in each part."""
    numbers = _by_class(examples, np.ones(len(examples), np.bool_))
    parts = {part: _by_class(examples, examples.part == part) for part in examples.parts}
    said = ", ".join(f"{name} {n}" for name, n in zip(examples.classes, numbers, strict=True))
    by_part = "; ".join(f"{part} {' + '.join(map(str, n))}" for part, n in parts.items())
    missing = [part for part, found in parts.items() if 0 in found]
    severity, advice = "none", ""
    if missing:
        severity, advice = "high", f"A class is missing in {', '.join(missing)}."
    elif max(numbers) > _IMBALANCE * max(min(numbers), 1):
        severity = "low"
        advice = "Consider optim.class_weights=balanced, and do not read accuracy alone."
    return Finding(
        key="balance",
        severity=severity,
        title="class balance",
        evidence=f"{said}." + (f" By split: {by_part}." if parts else ""),
        advice=advice,
        counts={"all": numbers, **parts},
    )


def sizes(examples: Examples, source: np.ndarray) -> Finding:
    """Asks whether files differ in size, and whether originals can be told from copies by size.

    Args:
        examples: n images.
        source: each image's family, int [n].
    """
    pairs = zip(examples.height.tolist(), examples.width.tolist(), strict=True)
    kinds = collections.Counter(pairs).most_common()
    said = [f"{width} x {height}: {number}" for (height, width), number in kinds]
    area = examples.height * examples.width
    alone = 0
    _, member, number = np.unique(source, return_inverse=True, return_counts=True)
    for family in np.flatnonzero(number > 1):
        inside = area[member == family]
        alone += int((inside == inside.max()).sum() == 1 and (inside != inside.max()).any())
    is_telling = alone > 0.5 * (number > 1).sum() > 0
    evidence = f"Width x height: {listed(said, 'sizes', limit=4)}."
    if is_telling:
        evidence += f" In {alone} families one image is larger: size tells original from copy."
    return Finding(
        key="sizes",
        severity="medium" if is_telling else "low" if len(kinds) > 1 else "none",
        title="image sizes",
        evidence=evidence,
        advice="Resize everything before anything else looks at it." if len(kinds) > 1 else "",
        counts={"sizes": len(kinds), "families with one largest image": alone},
        examples=examples.example_id[np.argsort(-area, kind="stable")[:2]].tolist(),
    )
