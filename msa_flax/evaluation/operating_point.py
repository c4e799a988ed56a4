"""The operating point: a threshold chosen on one split so that it holds on images not yet seen."""

import dataclasses

import numpy as np

from msa_flax.evaluation.metrics import CLASSES
from msa_flax.evaluation.predictions import PredictionsError

CONFIDENCE = 0.95  # of the guarantee


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """A threshold with what it guarantees; see :func:`threshold_for_sensitivity`.

    Attributes:
        threshold: call an image a fracture at and above this probability.
        sensitivity: what was asked for.
        confidence: of the guarantee.
        counted: "images" that are fractures, or "groups" with a fracture where groups are known.
        n: how many of them the choice was made on.
        missed: at most so many of them lie below the threshold.
        guaranteed: with the confidence, new ones are found at this rate or a higher one.
        expected: a new one is found with this probability at least, the choice included.
    """

    threshold: float
    sensitivity: float
    confidence: float
    counted: str
    n: int
    missed: int
    guaranteed: float
    expected: float

    def is_of(self, scores: np.ndarray) -> bool:
        """Whether the threshold is one that fractures of these probabilities give.

        Of images it is the first after those that may be missed; of groups, which are not known
        here, any.
        """
        if self.counted == "images":
            scores = np.sort(scores)[self.missed :][: int(self.n == len(scores))]
        # Nine digits stand in a table of predictions, and so may have been read.
        return bool(np.isclose(scores, self.threshold, rtol=1e-6, atol=0).any())


def threshold_for_sensitivity(
    labels: np.ndarray,
    probabilities: np.ndarray,
    sensitivity: float,
    *,
    group: np.ndarray | None = None,
    positive: str = CLASSES[1],
) -> OperatingPoint:
    """Returns the highest threshold that has the wanted sensitivity with a confidence of 0.95.

    The threshold is s(k), the k-th lowest of the probabilities s(1) <= ... <= s(m) of the m
    fractures. Theorem (Wilks 1941): if these and a new fracture's probability S are independent and
    alike, the sensitivity P(S >= s(k)), given s(k), has the distribution Beta(m - k + 1, k) if no
    two are equal, and is stochastically larger if some are. So P(sensitivity >= wanted) >=
    confidence if the (1 - confidence) quantile of that distribution is at least the wanted one;
    that quantile is Clopper and Pearson's one-sided lower bound for m - k + 1 successes in m
    trials. The largest such k depends on m and not on the probabilities, so choosing it costs
    nothing. On average over choices a new fracture is found with probability (m - k + 1) / (m + 1)
    or more, which is split conformal prediction (Vovk, Gammerman and Shafer 2005).

    Slices of one patient are not independent. With ``group`` each group that holds a fracture
    counts once, with its lowest: what is guaranteed then is the chance that all fractures of a new
    group are found, and groups are what must be independent and alike.

    Args:
        labels: int [n], 1 fracture, 0 normal, of a split on which nothing was trained.
        probabilities: float [n] in 0..1; taken in float32, the precision of predictions.csv.
        sensitivity: the wanted one, above 0 and below 1.
        group: str [n], the group of each image, known for every fracture.
        positive: name of the class with label 1, for the messages.

    Raises:
        PredictionsError: there are too few fractures for any threshold (says how many it takes),
            or an argument is not as expected.
    """
    if not 0 < sensitivity < 1:
        raise PredictionsError(
            f"sensitivity: expected a number between 0 and 1, got {sensitivity:g}"
        )
    from scipy import stats

    fracture = np.asarray(labels).astype(bool)
    scores = np.asarray(probabilities, np.float32)[fracture]
    if group is not None:
        scores = _lowest_of_each(np.asarray(group)[fracture], scores, positive)
    counted, m = "images" if group is None else "groups", len(scores)
    k = np.arange(1, m + 1)
    bounds = stats.beta.ppf(1 - CONFIDENCE, m - k + 1, k)  # falling in k
    allowed = int(np.sum(bounds >= sensitivity))
    if not allowed:
        needed = int(np.ceil(np.log1p(-CONFIDENCE) / np.log(sensitivity)))
        most = f", which allow at most {np.floor(1000 * bounds[0]) / 1000:g}" if m else ""
        raise PredictionsError(
            f"a sensitivity of {sensitivity:g} with confidence {CONFIDENCE:g} takes at least "
            f"{needed} {counted} with {positive!r}, got {m}{most}; use more images or ask for less"
        )
    return OperatingPoint(
        threshold=float(np.sort(scores)[allowed - 1]),
        sensitivity=sensitivity,
        confidence=CONFIDENCE,
        counted=counted,
        n=m,
        missed=allowed - 1,
        guaranteed=float(bounds[allowed - 1]),
        expected=(m - allowed + 1) / (m + 1),
    )


def _lowest_of_each(group: np.ndarray, scores: np.ndarray, positive: str) -> np.ndarray:
    names, index = np.unique(group, return_inverse=True)
    if "" in names:
        raise PredictionsError(
            f"group: expected a known group for every image of {positive!r}, or for none; got some "
            "of each"
        )
    lowest = np.full(len(names), np.inf, np.float32)
    np.minimum.at(lowest, index, scores)
    return lowest
