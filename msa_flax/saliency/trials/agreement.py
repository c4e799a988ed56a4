"""Do maps depend on what the network has learned, and do methods agree?

Adebayo et al. 2018, "Sanity checks for saliency maps": a map that stays as it is when the weights,
or the labels that they were learned from, are random explains the image and not the network.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.masks import upsample
from msa_flax.saliency.trials import pixels

MapsFn = Callable[[np.ndarray], np.ndarray]  # images to their maps [n, h, w]

TOP = 0.1  # share of the pixels whose overlap is counted


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Agreement:
    """How alike the maps of several methods are on the same images.

    Attributes:
        names: of the m methods.
        correlation: mean rank correlation over the images on which both maps vary, [m, m]; NaN
            where there is no such image.
        overlap: mean share of the most salient pixels that two maps have in common, [m, m]. Of two
            random maps it is ``TOP``.
    """

    names: tuple[str, ...]
    correlation: np.ndarray
    overlap: np.ndarray


def rank_correlation(
    maps: np.ndarray, others: np.ndarray, *, size: int | None = None, absolute: bool = False
) -> np.ndarray:
    """Returns Spearman's rank correlation of two maps of each image, float64 [n], -1..1.

    Compared may be a network and the same one with random weights, or one trained on true labels
    and one on permuted labels: near 0 where maps depend on what was learned, 1 where they do not.

    Args:
        maps: [n, h, w].
        others: maps of the same images.
        size: the side to which both are resized first; needed if their resolutions differ.
        absolute: whether absolute values are ranked. The sign of signed maps may turn while their
            shape stays (Adebayo et al. report both).

    Returns:
        NaN where one of the maps is the same everywhere.

    Raises:
        SaliencyError: the numbers of maps, or resolutions without a ``size``, differ.
    """
    if len(maps) != len(others) or (size is None and maps.shape != others.shape):
        raise SaliencyError(
            f"maps: expected two maps of each image, and a size where resolutions differ; got "
            f"{maps.shape} and {others.shape}"
        )
    from scipy.stats import rankdata

    correlation = np.full(len(maps), np.nan)
    for i, pair in enumerate(zip(maps, others, strict=True)):
        resized = [values if size is None else upsample(values, size) for values in pair]
        ranks = [rankdata(np.abs(values) if absolute else values) for values in resized]
        # Resizing a map that is the same everywhere leaves rounding errors; they are no ranks.
        if all(np.ptp(values) > 0 for values in (*pair, *ranks)):
            correlation[i] = np.corrcoef(*ranks)[0, 1]
    return correlation


def label_randomisation(
    explain: MapsFn,
    explain_permuted: MapsFn,
    images: np.ndarray,
    *,
    size: int | None = None,
    absolute: bool = False,
) -> np.ndarray:
    """Returns how alike the maps of a network and of one that learned permuted labels are, [n].

    This is the data randomisation test of Adebayo et al. 2018 (Section 4). The two networks differ
    only in the labels of their training images, which are a random permutation for the second. That
    one can only learn them by heart, and should be trained until it has. A map that is the same for
    both does not show what the labels taught.

        true, permuted = msa_flax.restore("runs/true"), msa_flax.restore("runs/permuted")
        label_randomisation(
            lambda x: true.explain(x).maps["gradcam"]["fracture"],
            lambda x: permuted.explain(x).maps["gradcam"]["fracture"],
            images,
        )

    Args:
        explain: images to maps [n, h, w] of the network with true labels.
        explain_permuted: the same for the other network, with the same method and class.
        images: [n, ...], which neither network was trained on.
        size: as in :func:`rank_correlation`.
        absolute: as in :func:`rank_correlation`.

    Returns:
        Spearman's rank correlation for each image, float64 in -1..1; NaN where one of the maps is
        the same everywhere. Compare it with two networks with true labels and different seeds.

    Raises:
        SaliencyError: an explanation does not have one map per image, or resolutions differ without
            a size.
    """
    maps, others = (np.asarray(function(images)) for function in (explain, explain_permuted))
    if {len(maps), len(others)} != {len(images)}:
        raise SaliencyError(
            f"maps: expected one of each of {len(images)} images, got {len(maps)} and {len(others)}"
        )
    return rank_correlation(maps, others, size=size, absolute=absolute)


def top_overlap(maps: np.ndarray, others: np.ndarray, *, size: int) -> np.ndarray:
    """Returns which share of their most salient pixels two maps have in common, float64 [n].

    The most salient pixels are the first ``TOP`` of them. Two random maps have that share in
    common.

    Args:
        maps: [n, h, w].
        others: maps of the same images, of any resolution.
        size: the side to which both are resized.

    Returns:
        NaN where one of the maps is the same everywhere.
    """
    overlap = np.full(len(maps), np.nan)
    for i, pair in enumerate(zip(maps, others, strict=True)):
        if all(np.ptp(values) > 0 for values in pair):
            one, two = (
                pixels.most_salient(
                    pixels.order(values, size, pixels.own_rng(values, 0)), TOP, size
                )
                for values in pair
            )
            overlap[i] = (one & two).sum() / one.sum()
    return overlap


def agreement(maps: Mapping[str, np.ndarray], *, size: int) -> Agreement:
    """Compares every method with every other one on the same images.

    Methods that agree may share a fault; of two that disagree, at least one is wrong.

    Args:
        maps: name -> [n, h, w] of any resolution.
        size: the side to which all are resized.

    Raises:
        SaliencyError: the numbers of maps differ.
    """
    names = tuple(maps)
    correlation, overlap = np.full((2, len(names), len(names)), np.nan)
    for i, one in enumerate(names):
        for j in range(i + 1):
            pair = maps[one], maps[names[j]]
            ranks = rank_correlation(*pair, size=size)
            if np.isfinite(ranks).any():
                correlation[i, j] = correlation[j, i] = np.nanmean(ranks)
                overlap[i, j] = overlap[j, i] = np.nanmean(top_overlap(*pair, size=size))
    return Agreement(names=names, correlation=correlation, overlap=overlap)
