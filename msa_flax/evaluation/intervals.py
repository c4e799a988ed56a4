"""95 % intervals: of proportions, of the AUC, and of any metric whose images come in groups.

An interval that cannot be given is NaN with the reason; it is never 0 and never of no width.
"""

import dataclasses
import math

import numpy as np

from msa_flax.evaluation.metrics import ONE_CLASS, placements

DRAWS, SEED = 2000, 0
FEWEST = 10  # groups: below it the spread of draws says little about the spread of groups
TAIL = 0.025  # on each side of a 95 % interval
_UNDEFINED = 0.05  # share of the draws that may leave a metric undefined
ONLY_WITH_GROUPS = "without groups there is one for proportions and the AUC only"
METHODS = {
    "wilson": "Wilson's interval, taking images as independent",
    "delong": "DeLong's interval on the logit scale, taking images as independent",
    "clustered bootstrap": f"from {DRAWS:,} draws of whole groups",
    "clopper-pearson of groups": "Clopper and Pearson's interval, each group as one trial",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Ends, the method (a key of :data:`METHODS`) or "none", and the reason where there is none."""

    low: float = np.nan
    high: float = np.nan
    method: str = "none"
    reason: str = ""


def wilson(count: int, total: int) -> Interval:
    """Returns Wilson's (1927) score interval of a proportion of independent trials.

    Its coverage is 95 % on average over proportions. Near 0 and 1 it can be less: 91 % for 50
    trials and a proportion of 0.99 (experiments/interval_coverage.md).

    Args:
        count: successes.
        total: trials, 1 or more.
    """
    return _proportion(count, total, "wilson", "wilson")


def clopper_pearson(count: int, total: int) -> Interval:
    """Returns Clopper and Pearson's (1934) interval: at least 95 % coverage for every proportion.

    Args:
        count: successes.
        total: trials, 1 or more.
    """
    return _proportion(count, total, "exact", "clopper-pearson")


def all_or_none(value: float, groups: int) -> Interval:
    """Returns an interval of a proportion that is 0 or 1 in every one of the groups.

    Resampling such groups shows no variation. But with an expected share p of right images, all
    images of a group are right with a probability of p at most; so a lower bound of that
    probability, of which every group is one trial, is one of p. Group size is taken as unrelated
    to the share.

    Args:
        value: 0 or 1.
        groups: how many groups.
    """
    found = clopper_pearson(groups if value else 0, groups)
    return dataclasses.replace(found, method="clopper-pearson of groups")


def delong_variance(above: np.ndarray, below: np.ndarray) -> float:
    """Returns DeLong, DeLong and Clarke-Pearson's (1988) variance of an AUC of independent images.

    With m fractures and n normal images it is var(V10) / m + var(V01) / n. Of the differences of
    two runs' placements it is the variance of the difference of their AUCs, covariances included.

    Args:
        above: V10 of the fractures, float [m], of :func:`msa_flax.evaluation.metrics.placements`;
            m is 2 or more.
        below: V01 of the normal images, float [n]; n is 2 or more.
    """
    return float(np.var(above, ddof=1) / len(above) + np.var(below, ddof=1) / len(below))


def delong_interval(labels: np.ndarray, scores: np.ndarray) -> Interval:
    """Returns DeLong's interval of the AUC of independent images, on the logit scale.

    On that scale it is symmetrical, and it stays between 0 and 1 (Pepe 2003, section 5.2.4).

    Args:
        labels: bool [n].
        scores: float [n].
    """
    if reason := too_few_for_delong(labels):
        return Interval(reason=reason)
    above, below = placements(labels, scores)
    value, error = float(np.mean(above)), float(np.sqrt(delong_variance(above, below)))
    if value in (0, 1) or error < np.finfo(np.float32).eps:
        return Interval(reason=f"DeLong's variance is 0 where the AUC of the images is {value:g}")
    from scipy import special

    half = float(special.ndtri(1 - TAIL)) * error / (value * (1 - value))
    middle = float(special.logit(value))
    low, high = (float(special.expit(middle + shift)) for shift in (-half, half))
    return Interval(low=low, high=high, method="delong")


def too_few_for_delong(labels: np.ndarray) -> str:
    """Returns why DeLong's variance cannot be computed of images with these labels, or ""."""
    fractures = int(np.sum(np.asarray(labels, bool)))
    fewer = min(fractures, len(labels) - fractures)
    if not fewer:
        return ONE_CLASS
    return "DeLong's variance needs two images of each class" if fewer < 2 else ""


def draw_groups(groups: int) -> np.ndarray:
    """Returns how often each group is in each of 2,000 draws with replacement: int [draws, groups].

    The draws depend on the number of groups alone.
    """
    shares = np.full(groups, 1 / groups)
    return np.random.default_rng(SEED).multinomial(groups, shares, size=DRAWS)


def clustered(
    value: float,
    draws: np.ndarray,
    groups: int,
    *,
    ends: tuple[float, float] = (-np.inf, np.inf),
    biased: bool = False,
) -> Interval:
    """Returns the interval of a metric whose images come in groups, from draws of whole groups.

    The metric is moved to a scale without ends (the logit of its place between two ends, the log of
    its distance from one) and the interval is symmetrical there: the standard error times the
    quantile of Student's t with groups - 1 degrees of freedom. The error is the larger of two: the
    standard deviation of the draws on that scale, and that of the draws as they are moved there by
    the delta method; both times sqrt(groups / (groups - 1)), because a bootstrap variance divides
    by the number of groups, not by one less. The first is right near the ends, where draws are
    skewed, the second where one group makes all the difference. Plain percentiles are too narrow:
    see experiments/interval_coverage.md.

    Args:
        value: the metric of the images themselves, finite.
        draws: float [draws], NaN where the metric is undefined.
        groups: the number of groups that the metric depends on.
        ends: the smallest and the largest value that the metric can have.
        biased: whether noise raises the metric, because it is made of differences without their
            signs. Such a metric may well be at an end, so it stays on its own scale and the
            interval is cut at the ends. The lower end is lower by (sqrt(2) + 1) (mean of the draws
            - value): noise of standard deviation s has the mean absolute value 0.8 s, and
            0.8 s sqrt(2) in a draw, so that of a bias of 0.8 s the draws show 0.8 s (sqrt(2) - 1).
            Where there is more than noise, the true bias is smaller.
    """
    if groups < FEWEST:
        return Interval(reason=too_few(groups))
    defined = draws[np.isfinite(draws)]
    missing = len(draws) - len(defined)
    if missing > _UNDEFINED * len(draws):
        return Interval(reason=f"it is undefined in {missing:,} of {len(draws):,} draws of groups")
    if np.ptp(defined) <= 1e-12 * max(1.0, abs(value)):  # rounding apart
        return Interval(reason="it is the same in every draw of groups")
    span = (-np.inf, np.inf) if biased else ends
    if value in span:
        return Interval(reason="it is at the end of its range, where draws of groups say little")
    from scipy import stats

    scale, near = _Scale(*span), _inside(np.append(defined, value), *span)
    error = max(
        np.std(scale.there(np.clip(defined, *near)), ddof=1),
        np.std(defined, ddof=1) * scale.slope(value),
    )
    half = stats.t.ppf(1 - TAIL, groups - 1) * error * np.sqrt(groups / (groups - 1))
    middle = scale.there(np.array(value))
    low, high = float(scale.back(middle - half)), float(scale.back(middle + half))
    low -= biased * (math.sqrt(2) + 1) * max(0.0, float(defined.mean()) - value)
    return Interval(low=max(low, ends[0]), high=min(high, ends[1]), method="clustered bootstrap")


def too_few(groups: int) -> str:
    """Says that the groups are too few."""
    return f"{groups} group{'s' * (groups != 1)}; a clustered interval needs {FEWEST}"


def _proportion(count: int, total: int, kind: str, method: str) -> Interval:
    from scipy import stats

    found = stats.binomtest(count, total).proportion_ci(1 - 2 * TAIL, method=kind)
    return Interval(low=float(found.low), high=float(found.high), method=method)


@dataclasses.dataclass(frozen=True, slots=True)
class _Scale:
    """A scale without ends, for what lies between two, above one, or anywhere."""

    low: float
    high: float

    def there(self, x: np.ndarray) -> np.ndarray:
        if np.isinf(self.low):
            return x
        return np.log(x - self.low) - (0 if np.isinf(self.high) else np.log(self.high - x))

    def back(self, y: float) -> float:
        from scipy.special import expit

        if np.isinf(self.low):
            return y
        if np.isinf(self.high):
            return self.low + np.exp(y)
        return self.low + (self.high - self.low) * expit(y)

    def slope(self, x: float) -> float:
        if np.isinf(self.low):
            return 1.0
        return 1 / (x - self.low) + (0 if np.isinf(self.high) else 1 / (self.high - x))


def _inside(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Returns where a draw on an end counts: half as far from it as the nearest other draw."""
    inner = values[(values > low) & (values < high)]
    return (inner.min() + low) / 2, (inner.max() + high) / 2
