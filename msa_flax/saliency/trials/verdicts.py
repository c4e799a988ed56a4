"""Are a method's maps better than the controls on this model? Differences, and a verdict on each.

Controls are maps made without the network: a random one, a prior of the centre. Every method's
scores are compared with theirs on the same images. A gain is the mean over images of the method's
score minus a control's, in the direction that is better. A verdict rests on the logit in deletion,
insertion and ROAD, against every control; see :data:`RULE`.

For a "yes" all gains must be shown, so the largest of their p-values is the method's own, and no
measure is picked out (an intersection-union test, Berger 1982). For a "no" one is enough, so it is
the smallest times their number (Bonferroni). A gain that is not significant may still be there;
therefore "no" is tested against a margin. P-values are one-sided, of Student's t, and
Holm-adjusted over the methods that are judged together.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from msa_flax.evaluation.significance import holm
from msa_flax.saliency.interface import SaliencyError

FEWEST = 10  # groups, or images: below it a spread says little
MARGIN = 0.05  # of what there is to gain: less is not worth having
INSENSITIVE = 0.7  # of rank correlation: half of the ranks' variance is there without the weights
LEVEL = 0.025  # one-sided, so that a "yes" fits intervals of 95 %

RULE = (
    "Better than the references on this model? Yes: every gain in the logit, in deletion, "
    f"insertion and ROAD and over each reference, is above 0 (p below {LEVEL:g}, one-sided, "
    "adjusted for the number of methods). No: failing that, one of them is shown, idem, to be "
    f"below {MARGIN:.0%} of the mean change of the logit when the whole image is filled in. "
    "Otherwise it cannot be told. A method is called insensitive to the weights if its maps and "
    f"those of random weights have a rank correlation of {INSENSITIVE:g} or more. With fewer than "
    f"{FEWEST} groups, or unknown ones, all is said of these images, not of new patients."
)  # files have it: controls are called references there


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
class ControlDifference:
    """A method's mean score minus that of a control on the same images.

    Attributes:
        control: its name.
        control_score: the control's mean score.
        value: method minus control.
        low: lower end of the 95 % interval; NaN where there is none.
        high: its upper end.
        error: standard error; NaN where there is no interval.
        units: how many groups, or images, it comes from.
        over: "groups" or "images".
        reason: why there is no interval, or why it is over images.
    """

    control: str
    control_score: float
    value: float
    low: float = np.nan
    high: float = np.nan
    error: float = np.nan
    units: int
    over: str
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MethodVerdict:
    """Whether a method is better than the controls on this model, by :data:`RULE`.

    Attributes:
        answer: "yes", "no", "cannot be told", or for a control "reference".
        reason: in words.
        p_yes: Holm-adjusted, one-sided; NaN where there is none.
        p_no: the same for a "no".
    """

    answer: str
    reason: str
    p_yes: float = np.nan
    p_no: float = np.nan


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MethodScore:
    """One method by one measure.

    Attributes:
        method: its name.
        measure: what was measured.
        n: images on which the method and all controls have a score.
        images: all images.
        score: mean over the n images; NaN where n is 0.
        differences: to each control other than itself; none where n is 0.
        verdict: on the method; None until :func:`judge` gives it.
    """

    method: str
    measure: Measure
    n: int
    images: int
    score: float
    differences: tuple[ControlDifference, ...]
    verdict: MethodVerdict | None = None


def compare_with_controls(
    measure: Measure,
    scores: Mapping[str, np.ndarray],
    *,
    controls: Sequence[str],
    groups: np.ndarray | None = None,
) -> list[MethodScore]:
    """Returns every method's mean score and its differences to the controls, image by image.

    Args:
        measure: what the scores are of.
        scores: method -> float [n], NaN where undefined; controls among them.
        controls: names of maps that know nothing of the network.
        groups: patient or series of each image, [n]; "" is unknown, and None all unknown.

    Raises:
        SaliencyError: a control is missing, or numbers of scores or groups differ.
    """
    check_controls(controls, scores)
    counts = {len(values) for values in (*scores.values(), *([] if groups is None else [groups]))}
    if len(counts) > 1:
        raise SaliencyError(f"scores and groups: expected one per image, got {sorted(counts)}")
    results = []
    for name, values in scores.items():
        others = [control for control in controls if control != name]
        common = np.isfinite([values, *(scores[other] for other in others)]).all(axis=0)
        n = int(common.sum())
        chosen = groups if groups is None else np.asarray(groups)[common]
        differences = [
            _difference(other, values[common], scores[other][common], chosen)
            for other in others
            if n
        ]
        results.append(
            MethodScore(
                method=name,
                measure=measure,
                n=n,
                images=len(values),
                score=float(values[common].mean()) if n else np.nan,
                differences=tuple(differences),
            )
        )
    return results


def check_controls(controls: Sequence[str], names: Collection[str]) -> None:
    """Checks that there are controls, and that they are among the names.

    Raises:
        SaliencyError: they are not.
    """
    missing = [name for name in controls if name not in names]
    if missing or not controls:
        raise SaliencyError(
            f"controls: expected some of {', '.join(names)}; got {', '.join(missing) or 'none'}"
        )


def standard_error(values: np.ndarray, groups: np.ndarray) -> float:
    """Returns the standard error of a mean whose images come in groups.

        sqrt(g / (g - 1) sum over groups of (sum over its images of (value - mean))^2) / n

    As long as the number of images per group varies little, it is the limit of a bootstrap of g
    whole groups with endless draws, times sqrt(g / (g - 1)), since a bootstrap's variance divides
    by g. For images as groups it is the usual s / sqrt(n). It depends on no seed and no order.

    Args:
        values: float [n].
        groups: of each image, [n], two or more different ones.
    """
    _, group = np.unique(groups, return_inverse=True)
    sums = np.bincount(group, values - values.mean())
    return float(np.sqrt(len(sums) / (len(sums) - 1) * (sums @ sums)) / len(values))


def judge(
    scores: Mapping[Measure, Mapping[str, np.ndarray]],
    *,
    controls: Sequence[str],
    groups: np.ndarray | None = None,
    reach: float,
    weights_correlation: Mapping[str, float] | None = None,
) -> list[MethodScore]:
    """Returns every method's result by every measure, with its verdict by :data:`RULE`.

    Args:
        scores: of all methods that are judged together, by each measure; each as in
            :func:`compare_with_controls`.
        controls: as in :func:`compare_with_controls`; they are not judged.
        groups: as in :func:`compare_with_controls`.
        reach: the mean change of the logit when the whole image is filled in, 0 or above.
        weights_correlation: as in :func:`msa_flax.saliency.trials.examine.assess`.

    Returns:
        All measures of a method together.

    Raises:
        SaliencyError: as in :func:`compare_with_controls`.
    """
    results = [
        result
        for measure, by_method in scores.items()
        for result in compare_with_controls(measure, by_method, controls=controls, groups=groups)
    ]
    methods = list(dict.fromkeys(result.method for result in results))
    gains = {
        name: [
            (result.measure, difference)
            for result in results
            if result.method == name and result.measure.decides
            for difference in result.differences
        ]
        for name in methods
        if name not in controls
    }
    raw = np.array([_p_values(found, MARGIN * reach) for found in gains.values()]).reshape(-1, 2)
    adjusted = zip(holm(raw[:, 0]).tolist(), holm(raw[:, 1]).tolist(), strict=True)
    verdicts = {
        name: _verdict(found, p_yes, p_no, (weights_correlation or {}).get(name))
        for (name, found), (p_yes, p_no) in zip(gains.items(), adjusted, strict=True)
    }
    control = MethodVerdict(answer="reference", reason="it knows nothing of the network")
    ordered = sorted(results, key=lambda result: methods.index(result.method))
    return [dataclasses.replace(x, verdict=verdicts.get(x.method, control)) for x in ordered]


Gains = Sequence[tuple[Measure, ControlDifference]]


def _difference(
    control: str, values: np.ndarray, others: np.ndarray, groups: np.ndarray | None
) -> ControlDifference:
    """Returns the difference of one or more images, with a t interval where there can be one."""
    from scipy.special import stdtrit

    units, over, reason = np.arange(len(values)), "images", "groups are unknown"
    if groups is not None and not np.isin(groups, [""]).any():
        known = len(np.unique(groups))
        if known >= FEWEST:
            units, over, reason = groups, "groups", ""
        else:
            reason = f"{known} group{'s' * (known != 1)}; an interval over them needs {FEWEST}"
    paired, count = values - others, len(np.unique(units))
    difference = ControlDifference(
        control=control,
        control_score=float(others.mean()),
        value=float(paired.mean()),
        units=count,
        over=over,
        reason=reason,
    )
    if count < FEWEST:
        reason = f"{count} image{'s' * (count != 1)}; an interval needs {FEWEST}"
        return dataclasses.replace(difference, reason=reason)
    if np.ptp(paired) <= 1e-12 * max(1.0, float(np.abs(values).max())):  # rounding apart
        return dataclasses.replace(difference, reason="the difference is the same in every image")
    error = standard_error(paired, units)
    half = float(stdtrit(count - 1, 1 - LEVEL)) * error
    low, high = difference.value - half, difference.value + half
    return dataclasses.replace(difference, low=low, high=high, error=error)


def _p_values(gains: Gains, margin: float) -> tuple[float, float]:
    """Returns one-sided p-values of "some gain is not above 0" and of "all reach the margin"."""
    from scipy.special import stdtr

    if not gains or any(math.isnan(difference.error) for _, difference in gains):
        return np.nan, np.nan
    gain = np.array([measure.better * difference.value for measure, difference in gains])
    error = np.array([difference.error for _, difference in gains])
    freedom = np.array([difference.units - 1 for _, difference in gains])
    above = float(stdtr(freedom, -gain / error).max())
    below = float(stdtr(freedom, (gain - margin) / error).min())
    return above, min(1.0, below * len(gains))


def _verdict(gains: Gains, p_yes: float, p_no: float, correlation: float | None) -> MethodVerdict:
    answer = "yes" if p_yes < LEVEL else "no" if p_no < LEVEL else "cannot be told"
    if not gains:
        reasons = ["nothing was measured that decides"]
    elif missing := _not_shown(gains):
        reasons = [f"no gain is shown {missing}"]
    elif answer == "yes":
        reasons = ["every gain is shown"]
    else:
        reasons = ["every gain is shown by itself, but not adjusted for the number of methods"]
    reasons += sorted({difference.reason for _, difference in gains if difference.reason})
    if any(difference.over == "images" for _, difference in gains):
        reasons.append("of these images, not of new patients")
    if correlation is not None and correlation >= INSENSITIVE:
        reasons.append(f"insensitive to the model's weights (rank correlation {correlation:.2f})")
    return MethodVerdict(answer=answer, reason="; ".join(reasons), p_yes=p_yes, p_no=p_no)


def _not_shown(gains: Gains) -> str:
    """Returns over which control and in which measures no gain is shown, "" if there is none."""
    missing: dict[str, list[str]] = {}
    for measure, difference in gains:
        if not (difference.low > 0 if measure.better > 0 else difference.high < 0):
            name = measure.name.removesuffix(" (logit)")
            missing.setdefault(difference.control, []).append(name)
    return "; ".join(f"over {name} in {', '.join(names)}" for name, names in missing.items())
