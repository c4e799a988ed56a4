"""What is known of a difference between two runs on the same images: tests and intervals.

Two models that see the same images are wrong on many of the same ones, so the difference of two
metrics is known better than either, and two intervals that overlap say little about it.
"""

import numpy as np

from msa_flax.evaluation.intervals import TAIL, Interval, delong_variance, too_few_for_delong
from msa_flax.evaluation.metrics import placements


def delong_test(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[Interval, float]:
    """Returns the interval of the difference of two AUCs of independent images, and its p value.

    DeLong, DeLong and Clarke-Pearson (1988): the difference is asymptotically normal, and its
    variance follows from the differences of the placements of every image. NaN and the reason where
    that variance is 0.

    Args:
        labels: bool [n].
        first: scores of the first run, float [n].
        second: scores of the other run, float [n].
    """
    from scipy import stats

    if reason := too_few_for_delong(labels):
        return Interval(reason=reason), np.nan
    one, two = placements(labels, first), placements(labels, second)
    value = float(np.mean(two[0]) - np.mean(one[0]))
    error = float(np.sqrt(delong_variance(two[0] - one[0], two[1] - one[1])))
    if error < np.finfo(np.float32).eps:
        return Interval(reason="DeLong's variance of the difference is 0"), np.nan
    half = float(stats.norm.isf(TAIL)) * error
    found = Interval(low=max(value - half, -1.0), high=min(value + half, 1.0), method="delong")
    return found, float(2 * stats.norm.sf(abs(value) / error))


def agresti_min(only_first: int, only_second: int, images: int) -> Interval:
    """Returns Agresti and Min's (2005) interval of the difference of two matched proportions.

    It is Wald's with half an image added to each of the four kinds, and taken of the second
    proportion minus the first; images are independent.

    Args:
        only_first: images that only the first run calls rightly.
        only_second: images that only the second run calls rightly.
        images: all images, 1 or more.
    """
    from scipy import stats

    total, either = images + 2, only_first + only_second + 1
    value = (only_second - only_first) / total
    half = float(stats.norm.isf(TAIL)) * np.sqrt(either / total - value**2) / np.sqrt(total)
    low, high = max(value - half, -1.0), min(value + half, 1.0)
    return Interval(low=float(low), high=float(high), method="agresti-min")


def sign_flip_test(totals: np.ndarray) -> float:
    """Returns the exact two-sided p value of a sum of differences, were their signs by chance.

    Where two runs are equally good, they could have changed places in any group, and each group's
    difference could as well have the other sign. p is the share of all 2^groups choices of signs
    whose sum is as far from 0 as the given one, or farther: Fisher's randomisation test of paired
    differences (1935, section 21). Where every group is one image it is McNemar's (1947) exact
    test. It holds for any number of groups, but below 6 with a difference p is never below 0.05.

    Args:
        totals: of each group, images that only the second run calls rightly less those that only
            the first does, int [groups].
    """
    sizes = np.abs(np.asarray(totals, np.intp))
    reached, distance = int(sizes.sum()), abs(int(np.sum(totals)))
    chances = np.zeros(reached + 1)  # that the positive ones sum up to 0, 1, ...
    chances[0] = 1
    for size in sizes[sizes > 0].tolist():
        chances[size:] = (chances[size:] + chances[:-size]) / 2
        chances[:size] /= 2
    return min(1.0, 2 * float(chances[(reached + distance) // 2 :].sum()))


def holm(p: np.ndarray) -> np.ndarray:
    """Returns p values adjusted for their number by Holm's (1979) step-down method.

    The k-th smallest of m is multiplied by m - k + 1, is at least the one before it and at most 1.
    Rejecting what stays below 0.05 makes one false rejection or more with a chance of 5 % at most,
    however the tests depend on each other.

    Args:
        p: float [m]; NaN stays NaN, and counts as one of the m tests.
    """
    order = np.argsort(p)  # NaN comes last
    steps = np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted
