"""Maps from covering parts of the image: occlusion. It needs no gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from msa_flax.saliency.interface import FeaturesFn, HeadFn, Target, signs

SIDE_PATCHES = 7  # a patch covers one cell of the usual networks' last map, 7 x 7


def occlusion(
    features_fn: FeaturesFn,
    head_fn: HeadFn,
    images: Any,
    target: Target,
    *,
    patch: int | None = None,
    stride: int | None = None,
    fill: float = 0.0,
    at_once: int = 32,
) -> Float32[Array, "b h w"]:
    """Returns occlusion maps: how much the score falls where a patch of the image is covered.

    With the score S (the logit, or minus the logit for "normal"), the image x, and x_p the image
    whose pixels in patch p have the value ``fill``, pixel i has the mean over the patches on it:

        M_i = mean_{p on i} (S(x) - S(x_p))

    Zeiler and Fergus 2014 (Section 4.2, Figure 7) slide a grey square over the image and show
    S(x_p), the probability, at its place. Drops and their mean over patches that overlap are what
    Captum computes. Patches begin every ``stride`` pixels from the top left; the last of a row or
    of a column is cut off at the border, so that every pixel is covered.

    Args:
        features_fn: images to feature maps; takes floats.
        head_fn: feature maps to logits [b].
        images: grey values 0..255, uint8 or float, [b, h, w] or [b, h, w, c]; a patch covers all
            channels.
        target: the class to explain, or an array [b] of +1 (fracture) and -1 (normal).
        patch: side of a patch in pixels, at most the image's; by default a seventh of its shorter
            side, rounded down.
        stride: pixels from patch to patch, at most ``patch``; by default half of it, rounded down.
        fill: grey value of a patch, 0 black.
        at_once: covered images that one pass through the network holds; not less than b, the
            passes of one patch.

    Returns:
        float32 [b, h, w], signed: above 0 what is covered speaks for the target, below 0 against
        it. 0 is also where the image has the value ``fill`` already.

    Raises:
        ValueError: a patch or a stride that does not fit, ``at_once`` below 1, an unknown target,
            or images or logits not shaped as described.
    """
    x = _floats(images)
    height, width = x.shape[1:3]
    size = max(min(height, width) // SIDE_PATCHES, 1) if patch is None else patch
    step = max(size // 2, 1) if stride is None else stride
    _check(size, step, at_once, height, width)
    rows, columns = _bands(height, size, step), _bands(width, size, step)
    logits = head_fn(features_fn(x))
    if logits.shape != x.shape[:1]:
        raise ValueError(f"head_fn: expected one logit an image, {x.shape[:1]}; got {logits.shape}")

    toward = signs(target, logits)

    def drop(place: tuple[Array, Array]) -> Array:
        covered = (place[0][:, None] & place[1][None]).reshape(
            1, height, width, *[1] * (x.ndim - 3)
        )
        return logits - head_fn(features_fn(jnp.where(covered, jnp.asarray(fill, x.dtype), x)))

    # Every row of patches with every column of patches.
    places = np.repeat(rows, len(columns), axis=0), np.tile(columns, (len(rows), 1))
    # Over patches by vmap, so that the functions see b images whatever is held at once.
    drops = jax.lax.map(drop, places, batch_size=max(at_once // len(x), 1))
    return _mean_over_patches(toward[None] * drops, rows, columns).astype(jnp.float32)


def _bands(length: int, size: int, step: int) -> np.ndarray:
    """Returns bool [n, length]: the pixels of each patch along one side, cut off at its end."""
    begins = np.arange(-(-(length - size) // step) + 1)[:, None] * step
    pixels = np.arange(length)[None]
    return (pixels >= begins) & (pixels < begins + size)


def _mean_over_patches(drops: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """Returns [b, h, w] from [patches, b]: each pixel's mean over the patches that cover it."""
    grid = drops.reshape(len(rows), len(columns), -1)
    # A patch is a band of rows and one of columns, so that a pixel's mean is one of means. In full
    # precision: accelerators would round the factors of a matrix product.
    down, across = (jnp.asarray(band / band.sum(axis=0), grid.dtype) for band in (rows, columns))
    return jnp.einsum("pqb,pi,qj->bij", grid, down, across, precision="highest")


def _floats(images: Any) -> Array:
    x = jnp.asarray(images)
    if x.ndim not in (3, 4):
        raise ValueError(f"images: expected [b, h, w] or [b, h, w, c], got {x.shape}")
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def _check(size: int, step: int, at_once: int, height: int, width: int) -> None:
    if not 1 <= size <= min(height, width):
        raise ValueError(
            f"patch: expected 1 to {min(height, width)} pixels for images of {height} x {width}, "
            f"got {size}"
        )
    if not 1 <= step <= size:
        raise ValueError(
            f"stride: expected 1 to {size} pixels, no more than the patch, so that every pixel is "
            f"covered; got {step}"
        )
    if at_once < 1:
        raise ValueError(f"at_once: expected 1 or more, got {at_once}")
