"""What a data set is made of: groups, classes, sizes, files that cannot be read."""

import collections
from collections.abc import Sequence

import numpy as np

from msa_flax.auditing.findings import SHOWN, Finding, Images


def unreadable(bad_files: Sequence[tuple[str, str]], total: int) -> Finding:
    """Files that cannot be used: how many, and how many for which reason."""
    if not bad_files:
        return Finding(
            key="unreadable",
            severity="none",
            title="unreadable files",
            evidence=f"All {total} files are readable.",
            counts={"unreadable": 0, "files": total},
        )
    reasons = collections.Counter(reason for _, reason in bad_files).most_common()
    said = "; ".join(f"{reason}: {number}" for reason, number in reasons[:5])
    more = f"; {len(reasons) - 5} other reasons" if len(reasons) > 5 else ""
    return Finding(
        key="unreadable",
        severity="medium",
        title="unreadable files",
        evidence=f"{len(bad_files)} of {total} files cannot be used: {said}{more}.",
        advice="Repair or remove them; training refuses them unless data.on_bad_file=skip.",
        counts={"unreadable": len(bad_files), "files": total},
        examples=[name for name, _ in bad_files[:SHOWN]],
    )


def group_findings(images: Images) -> list[Finding]:
    """Series or patients: whether they are known, cross splits, have both classes."""
    known = images.group != ""
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
    groups = sorted(set(images.group[known].tolist()))
    tally = {
        group: np.bincount(images.label[images.group == group], minlength=len(images.classes))
        for group in groups
    }
    listed = ", ".join(
        f"{group} ({' + '.join(str(number) for number in numbers)})"
        for group, numbers in list(tally.items())[:8]
    )
    more = f" and {len(groups) - 8} more" if len(groups) > 8 else ""
    unknown = int((~known).sum())
    single = [group for group, numbers in tally.items() if (numbers > 0).sum() == 1]
    return [
        Finding(
            key="groups",
            severity="low" if len(groups) >= 10 and not unknown else "medium",
            title="groups (series, patients)",
            evidence=(
                f"{len(groups)} groups, with images per class ({' + '.join(images.classes)}): "
                f"{listed}{more}." + (f" {unknown} images have none." if unknown else "")
            ),
            advice="" if len(groups) >= 10 else "So few cannot say how results vary by patient.",
            counts={"groups": len(groups), "images without a group": unknown},
        ),
        Finding(
            key="one-class groups",
            severity="medium" if single else "none",
            title="groups of a single class",
            evidence=(
                f"One class only: {len(single)} of {len(groups)} groups, {_few(single)}."
                if single
                else "Every group holds images of more than one class."
            ),
            advice="What tells the group tells the class; report such a group apart."
            if single
            else "",
            counts={"groups of one class": len(single)},
            examples=single[:SHOWN],
        ),
        _groups_in_splits(images),
    ]


def _groups_in_splits(images: Images) -> Finding:
    inside = {
        split: set(images.group[images.split == split].tolist()) - {""} for split in images.splits
    }
    counts = {f"groups in {split}": len(found) for split, found in inside.items()}
    times = collections.Counter(group for found in inside.values() for group in found)
    shared = sorted(group for group, number in times.items() if number > 1)
    few = [split for split in images.splits[1:] if len(inside[split]) == 1]
    said = []
    if shared:
        said.append(
            f"In more than one split: {len(shared)} of {len(times)} groups, {_few(shared)}."
        )
    said += [f"All {split} images are of one group, {min(inside[split])}." for split in few]
    if len(inside) < 2:
        said = ["The images are in one part."]
    return Finding(
        key="groups across splits",
        severity="high" if (shared or few) and len(inside) > 1 else "none",
        title="groups and splits",
        evidence=" ".join(said) or "No group is in two splits.",
        advice="Split by group: data.protocol=grouped or kfold." if shared or few else "",
        counts=counts | {"groups in two splits": len(shared)},
    )


def balance(images: Images) -> Finding:
    """How many images each class has, overall and in each split."""
    names = list(images.classes)

    def tally(rows: np.ndarray) -> list[int]:
        return np.bincount(images.label[rows], minlength=len(names)).tolist()

    everything = tally(np.ones(len(images.label), np.bool_))
    parts = {split: tally(images.split == split) for split in images.splits}
    said = ", ".join(f"{name} {number}" for name, number in zip(names, everything, strict=True))
    by_part = "; ".join(f"{split} {' + '.join(map(str, n))}" for split, n in parts.items())
    missing = [split for split, numbers in parts.items() if 0 in numbers]
    ratio = max(everything) / max(min(everything), 1)
    return Finding(
        key="balance",
        severity="high" if missing else "low" if ratio > 3 else "none",
        title="class balance",
        evidence=f"{said}." + (f" By split: {by_part}." if parts else ""),
        advice=(
            f"A class is missing in {', '.join(missing)}."
            if missing
            else "Consider optim.class_weights=balanced, and do not read accuracy alone."
            if ratio > 3
            else ""
        ),
        counts={"all": everything, **parts},
    )


def sizes(images: Images, height: np.ndarray, width: np.ndarray, source: np.ndarray) -> Finding:
    """Whether files differ in size, and whether the size tells originals from copies.

    Args:
        images: n images.
        height: pixels [n].
        width: pixels [n].
        source: each image's family, int [n].
    """
    kinds = collections.Counter(zip(height.tolist(), width.tolist(), strict=True)).most_common()
    said = ", ".join(f"{w:.0f} x {h:.0f}: {number}" for (h, w), number in kinds[:4])
    more = f" and {len(kinds) - 4} more sizes" if len(kinds) > 4 else ""
    area = height * width
    alone = 0
    _, member, number = np.unique(source, return_inverse=True, return_counts=True)
    for family in np.flatnonzero(number > 1):
        inside = area[member == family]
        alone += int((inside == inside.max()).sum() == 1 and (inside != inside.max()).any())
    told = alone > 0.5 * (number > 1).sum() > 0
    return Finding(
        key="sizes",
        severity="medium" if told else "low" if len(kinds) > 1 else "none",
        title="image sizes",
        evidence=f"Width x height: {said}{more}."
        + (
            f" In {alone} families one image is larger: size tells original from copy."
            if told
            else ""
        ),
        advice="Resize everything before anything else looks at it." if len(kinds) > 1 else "",
        counts={"sizes": len(kinds), "families with one largest image": alone},
        examples=images.example_id[np.argsort(-area, kind="stable")[:2]].tolist(),
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
