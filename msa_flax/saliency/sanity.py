"""Sanity checks: do maps depend on what the network has learned, and do methods agree?

Adebayo et al. 2018, "Sanity checks for saliency maps": a map that stays as it is when the weights,
or the labels that they were learned from, are random explains the image and not the network.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from msa_flax.saliency.removal import first, generator, pixel_order
from msa_flax.saliency.render import SaliencyError, upsample

Mode = Literal["cascading", "independent"]
Maps = Callable[[np.ndarray], np.ndarray]  # images to their maps [n, h, w]

TOP = 0.1  # share of the pixels whose overlap is counted


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Agreement:
    """How alike the maps of several methods are on the same images.

    Attributes:
        names: of the m methods.
        correlation: mean rank correlation over images, [m, m].
        overlap: mean share of the most salient pixels that two maps have in common, [m, m].
        top: that share of the image, which is also what two random maps have in common.
        images: on how many of them both maps vary, int [m, m]; means are NaN where there is none.
    """

    names: tuple[str, ...]
    correlation: np.ndarray
    overlap: np.ndarray
    top: float
    images: np.ndarray


def shuffled(variables: Any, seed: int) -> Any:
    """Returns variables in which the values of every array are in random order.

    Nothing that was learned is left, but every array keeps its distribution: variances stay
    positive, and activations of a usual size. (Initial values, the other choice of Adebayo et al.,
    are ``model.init``'s.)

    Args:
        variables: any tree of arrays.
        seed: of the order.
    """
    leaves, tree = jax.tree_util.tree_flatten(variables)
    rng = np.random.default_rng(seed)
    found = [rng.permutation(np.ravel(leaf)).reshape(np.shape(leaf)) for leaf in leaves]
    return jax.tree_util.tree_unflatten(tree, found)


def randomisations(
    variables: Any, fresh: Any, layers: Sequence[str], *, mode: Mode = "cascading"
) -> Iterator[tuple[str, Any]]:
    """Yields networks of which more and more, or one after the other, layers are random.

    Args:
        variables: of the trained network: collection -> module -> ... -> array.
        fresh: the same tree with random values: :func:`shuffled`, or those of another
            initialisation.
        layers: names of modules, "backbone/conv1" or "head", in the order in which they become
            random; from the output down to the input in the paper. Everything below a name belongs
            to it, in all collections: BatchNorm's averages too.
        mode: "cascading": a layer stays random when the next one becomes so; "independent": one at
            a time.

    Yields:
        the layer's name and the variables.

    Raises:
        SaliencyError: there is no such layer or mode.
    """
    if mode not in ("cascading", "independent"):
        raise SaliencyError(f"mode: expected cascading or independent, got {mode!r}")
    known = [_module(path) for path, _ in jax.tree_util.tree_leaves_with_path(variables)]
    for layer in layers:
        if not any(_belongs(module, [layer]) for module in known):
            raise SaliencyError(f"layers: expected the name of a module, got {layer!r}")
    for i, layer in enumerate(layers):
        chosen = layers[: i + 1] if mode == "cascading" else [layer]

        def mixed(path: Any, old: Any, new: Any, chosen: Sequence[str] = chosen) -> Any:
            return new if _belongs(_module(path), chosen) else old

        yield layer, jax.tree_util.tree_map_with_path(mixed, variables, fresh)


def rank_correlation(
    maps: np.ndarray, others: np.ndarray, *, size: int | None = None, absolute: bool = False
) -> np.ndarray:
    """Returns Spearman's rank correlation of two maps of each image, float64 [n], -1..1.

    Of a network and the same one with random weights, or of one trained on true labels and one
    trained on permuted labels: near 0 where maps depend on what was learned, 1 where they do not.

    Args:
        maps: [n, h, w].
        others: maps of the same images.
        size: the side to which both are resized first; needed if their resolutions differ.
        absolute: whether ranks are those of absolute values. The sign of signed maps may turn while
            their shape stays (Adebayo et al. report both).

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

    found = np.full(len(maps), np.nan)
    for i, pair in enumerate(zip(maps, others, strict=True)):
        resized = [values if size is None else upsample(values, size) for values in pair]
        ranks = [rankdata(np.abs(values) if absolute else values) for values in resized]
        # Of a map that is the same everywhere, resizing leaves what is due to rounding.
        if all(np.ptp(values) > 0 for values in (*pair, *ranks)):
            found[i] = np.corrcoef(*ranks)[0, 1]
    return found


def label_randomisation(
    explain: Maps,
    explain_permuted: Maps,
    images: np.ndarray,
    *,
    size: int | None = None,
    absolute: bool = False,
) -> np.ndarray:
    """Returns how alike the maps of a network and of one that learned permuted labels are, [n].

    The data randomisation test of Adebayo et al. 2018 (Section 4): two networks that differ in the
    labels of their training images alone, which for the second are a random permutation. It can
    only learn them by heart, and should be trained until it has; a map that is the same for both
    does not show what the labels taught. Random weights are another test (:func:`randomisations`).

        true, permuted = msa_flax.restore("runs/true"), msa_flax.restore("runs/permuted")
        label_randomisation(
            lambda x: true.explain(x).maps["gradcam"]["fracture"],
            lambda x: permuted.explain(x).maps["gradcam"]["fracture"],
            images,
        )

    Args:
        explain: images to maps [n, h, w] of the network with true labels.
        explain_permuted: idem, of the other network, by the same method and for the same class.
        images: of both, [n, ...]; those that neither was trained on.
        size: as in :func:`rank_correlation`.
        absolute: as in :func:`rank_correlation`.

    Returns:
        Spearman's rank correlation of each image, float64 in -1..1; NaN where one of the maps is
        the same everywhere. To be held against two networks with true labels and other seeds.

    Raises:
        SaliencyError: an explanation has not one map an image, or resolutions differ without size.
    """
    maps, others = (np.asarray(function(images)) for function in (explain, explain_permuted))
    if {len(maps), len(others)} != {len(images)}:
        raise SaliencyError(
            f"maps: expected one of each of {len(images)} images, got {len(maps)} and {len(others)}"
        )
    return rank_correlation(maps, others, size=size, absolute=absolute)


def top_overlap(
    maps: np.ndarray, others: np.ndarray, *, size: int, top: float = TOP, seed: int = 0
) -> np.ndarray:
    """Returns which share of their most salient pixels two maps have in common, float64 [n].

    ``top`` is what two random maps have in common.

    Args:
        maps: [n, h, w].
        others: maps of the same images, of any resolution.
        size: the side to which both are resized.
        top: share of the image that counts as most salient.
        seed: of the order of pixels that a map does not tell apart.

    Returns:
        NaN where one of the maps is the same everywhere.
    """
    found = np.full(len(maps), np.nan)
    for i, pair in enumerate(zip(maps, others, strict=True)):
        if all(np.ptp(values) > 0 for values in pair):
            one, two = (
                first(pixel_order(values, size, generator(values, seed)), top, size)
                for values in pair
            )
            found[i] = (one & two).sum() / one.sum()
    return found


def agreement(
    maps: Mapping[str, np.ndarray], *, size: int, top: float = TOP, seed: int = 0
) -> Agreement:
    """Compares every method with every other one on the same images.

    Methods that agree may share a fault; of two that do not, one at least is wrong.

    Args:
        maps: name -> [n, h, w] of any resolution.
        size: the side to which all are resized.
        top: share of the image that counts as most salient.
        seed: of the order of pixels that a map does not tell apart.

    Raises:
        SaliencyError: the numbers of maps differ.
    """
    names = tuple(maps)
    correlation, overlap = np.full((2, len(names), len(names)), np.nan)
    images = np.zeros((len(names), len(names)), np.int64)
    for i, one in enumerate(names):
        for j in range(i + 1):
            pair = maps[one], maps[names[j]]
            ranks = rank_correlation(*pair, size=size)
            images[i, j] = images[j, i] = np.isfinite(ranks).sum()
            if images[i, j]:
                correlation[i, j] = correlation[j, i] = np.nanmean(ranks)
                shared = np.nanmean(top_overlap(*pair, size=size, top=top, seed=seed))
                overlap[i, j] = overlap[j, i] = shared
    return Agreement(names=names, correlation=correlation, overlap=overlap, top=top, images=images)


def _module(path: Any) -> str:
    """Returns the module of a variable: its path without the collection and its own name."""
    return "/".join(str(getattr(key, "key", key)) for key in path[1:-1])


def _belongs(module: str, layers: Sequence[str]) -> bool:
    return any(f"{module}/".startswith(f"{layer}/") for layer in layers)
