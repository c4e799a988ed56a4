"""Scores of methods beside those of references on the same images, with intervals."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from msa_flax.saliency.render import SaliencyError

if TYPE_CHECKING:
    from msa_flax.saliency.verdicts import Verdict

FEWEST = 10  # groups, or images: below it a spread says little
_TAIL = 0.025


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What is measured.

    Attributes:
        name: what is written in tables.
        better: +1 where more is better, -1 where less is.
        decides: whether verdicts rest on it.
        settings: how it was measured, in words.
    """

    name: str
    better: int
    decides: bool = False
    settings: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A method's mean score minus that of a reference on the same images.

    Attributes:
        reference: its name.
        reference_score: the reference's mean; not to be taken for the method's.
        value: method minus reference.
        low: lower end of the 95 % interval; NaN where there is none.
        high: its upper end.
        error: standard error; NaN where there is no interval.
        units: how many groups, or images, it comes from.
        over: "groups" or "images".
        reason: why there is no interval, or why it is over images.
    """

    reference: str
    reference_score: float
    value: float
    low: float = np.nan
    high: float = np.nan
    error: float = np.nan
    units: int
    over: str
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One method by one measure.

    Attributes:
        method: its name.
        measure: what was measured.
        n: images on which the method and all references have a score.
        images: all images.
        score: mean over the n images; NaN where n is 0.
        differences: to each reference other than itself; none where n is 0.
        verdict: on the method; None until :func:`msa_flax.saliency.verdicts.judge` gives it.
    """

    method: str
    measure: Measure
    n: int
    images: int
    score: float
    differences: tuple[Difference, ...]
    verdict: "Verdict | None" = None


def compare(
    measure: Measure,
    scores: Mapping[str, np.ndarray],
    *,
    references: Sequence[str],
    groups: np.ndarray | None = None,
) -> list[Result]:
    """Compares every method with the references, image by image.

    Args:
        measure: what the scores are of.
        scores: method -> float [n], NaN where undefined; references among them.
        references: names of maps that know nothing of the network.
        groups: patient or series of each image, [n]; "" is unknown, and None all unknown.

    Raises:
        SaliencyError: a reference is missing, or numbers of scores or groups differ.
    """
    check_references(references, scores)
    counts = {len(values) for values in (*scores.values(), *([] if groups is None else [groups]))}
    if len(counts) > 1:
        raise SaliencyError(f"scores and groups: expected one an image, got {sorted(counts)}")
    found = []
    for name, values in scores.items():
        others = [reference for reference in references if reference != name]
        common = np.isfinite([values, *(scores[other] for other in others)]).all(axis=0)
        n = int(common.sum())
        chosen = groups if groups is None else np.asarray(groups)[common]
        differences = [
            _difference(other, values[common], scores[other][common], chosen)
            for other in others
            if n
        ]
        found.append(
            Result(
                method=name,
                measure=measure,
                n=n,
                images=len(values),
                score=float(values[common].mean()) if n else np.nan,
                differences=tuple(differences),
            )
        )
    return found


def check_references(references: Sequence[str], names: Collection[str]) -> None:
    """Checks that there are references, and that they are among the names.

    Raises:
        SaliencyError: they are not.
    """
    missing = [name for name in references if name not in names]
    if missing or not references:
        raise SaliencyError(
            f"references: expected some of {', '.join(names)}; got {', '.join(missing) or 'none'}"
        )


def standard_error(values: np.ndarray, groups: np.ndarray) -> float:
    """Returns the standard error of a mean whose images come in groups.

        sqrt(g / (g - 1) sum over groups of (sum over its images of (value - mean))^2) / n

    It is what a bootstrap of g whole groups comes to with endless draws, for as long as the number
    of images varies little, times sqrt(g / (g - 1)), since a bootstrap's variance divides by g; for
    images as groups it is the usual s / sqrt(n). It has no seed, and no order of images.

    Args:
        values: float [n].
        groups: of each image, [n], two or more different ones.
    """
    _, group = np.unique(groups, return_inverse=True)
    sums = np.bincount(group, values - values.mean())
    return float(np.sqrt(len(sums) / (len(sums) - 1) * (sums @ sums)) / len(values))


def _difference(
    reference: str, values: np.ndarray, others: np.ndarray, groups: np.ndarray | None
) -> Difference:
    """Returns the difference of one or more images, with a t interval where there can be one."""
    from scipy.special import stdtrit

    over, reason = "images", "groups are unknown"
    if groups is not None and not np.isin(groups, [""]).any():
        known = len(np.unique(groups))
        over = "groups" if known >= FEWEST else "images"
        if over == "images":
            reason = f"{known} group{'s' * (known != 1)}; an interval over them needs {FEWEST}"
        else:
            reason = ""
    units = len(np.unique(groups)) if over == "groups" and groups is not None else len(values)
    paired = values - others
    found = Difference(
        reference=reference,
        reference_score=float(others.mean()),
        value=float(paired.mean()),
        units=units,
        over=over,
        reason=reason,
    )
    if units < FEWEST:
        reason = f"{units} image{'s' * (units != 1)}; an interval needs {FEWEST}"
        return dataclasses.replace(found, reason=reason)
    if np.ptp(paired) <= 1e-12 * max(1.0, float(np.abs(values).max())):  # rounding apart
        return dataclasses.replace(found, reason="the difference is the same in every image")
    groups = np.arange(units) if over == "images" or groups is None else groups
    error = standard_error(paired, groups)
    half = float(stdtrit(units - 1, 1 - _TAIL)) * error
    return dataclasses.replace(found, low=found.value - half, high=found.value + half, error=error)
