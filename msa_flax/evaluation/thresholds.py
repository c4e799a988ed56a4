"""Thresholds chosen on one split so that they hold on images not yet seen."""

import dataclasses

import numpy as np

from msa_flax.evaluation.predictions import PredictionsError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A threshold with what it guarantees; see :func:`threshold_for_sensitivity`.

    Attributes:
        threshold: call an image a fracture at and above this probability.
        fractures: how many the choice was made on; with groups, how many groups hold one.
        missed: at most so many of them lie below the threshold.
        guaranteed: with the confidence, new fractures are found at this rate or a higher one.
        expected: a new fracture is found with this probability at least, the choice included.
        confidence: of the guarantee.
    """

    threshold: float
    fractures: int
    missed: int
    guaranteed: float
    expected: float
    confidence: float


def threshold_for_sensitivity(
    labels: np.ndarray,
    probabilities: np.ndarray,
    wanted: float,
    *,
    group: np.ndarray | None = None,
    confidence: float = 0.95,
) -> Choice:
    """Returns the highest threshold that has the wanted sensitivity with the wanted confidence.

    The threshold is s(k), the k-th lowest of the probabilities s(1) <= ... <= s(m) of the m
    fractures. Theorem (Wilks 1941): if these and a new fracture's probability S are independent and
    alike, the sensitivity P(S >= s(k)), given s(k), has the distribution Beta(m - k + 1, k) if no
    two are equal, and is stochastically larger if some are. So P(sensitivity >= wanted) >=
    confidence if the (1 - confidence) quantile of that distribution is at least ``wanted``; that
    quantile is Clopper and Pearson's one-sided lower bound for m - k + 1 successes in m trials.
    The largest such k depends on m and not on the probabilities, so choosing it costs nothing.
    On average over choices a new fracture is found with probability (m - k + 1) / (m + 1) or more,
    which is split conformal prediction (Vovk, Gammerman and Shafer 2005).

    Slices of one patient are not independent. With ``group`` each group that holds a fracture
    counts once, with its lowest: what is guaranteed then is the chance that all fractures of a new
    group are found, and groups are what must be independent and alike.

    Args:
        labels: int [n], 1 fracture, 0 normal, of a split on which nothing was trained.
        probabilities: float [n] in 0..1; taken in float32, the precision of predictions.csv.
        wanted: sensitivity, above 0 and below 1.
        group: str [n], the group of each image, known for every fracture.
        confidence: above 0 and below 1.

    Raises:
        PredictionsError: there are too few fractures for any threshold (says how many it takes),
            or an argument is not as expected.
    """
    for name, value in (("wanted", wanted), ("confidence", confidence)):
        if not 0 < value < 1:
            raise PredictionsError(f"{name}: expected a number between 0 and 1, got {value:g}")
    from scipy import stats

    found = np.asarray(labels).astype(bool)
    scores = np.asarray(probabilities, np.float32)[found]
    if group is not None:
        names, index = np.unique(np.asarray(group)[found], return_inverse=True)
        if "" in names:
            raise PredictionsError("group: expected a group for every fracture, got some without")
        lowest = np.full(len(names), np.inf, np.float32)
        np.minimum.at(lowest, index, scores)
        scores = lowest
    m = len(scores)
    k = np.arange(1, m + 1)
    bounds = stats.beta.ppf(1 - confidence, m - k + 1, k)  # falling in k
    allowed = int(np.sum(bounds >= wanted))
    if not allowed:
        needed = int(np.ceil(np.log1p(-confidence) / np.log(wanted)))
        what = "fractures" if group is None else "groups with a fracture"
        raise PredictionsError(
            f"a sensitivity of {wanted:g} with confidence {confidence:g} takes at least {needed} "
            f"{what}, got {m}; evaluate more of them or ask for less"
        )
    return Choice(
        threshold=float(np.sort(scores)[allowed - 1]),
        fractures=m,
        missed=allowed - 1,
        guaranteed=float(bounds[allowed - 1]),
        expected=(m - allowed + 1) / (m + 1),
        confidence=confidence,
    )
