"""Maps from asking the network again, without gradients: Score-CAM, Ablation-CAM and occlusion.

The first two change one channel of the features at a time, occlusion covers parts of the image.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from msa_flax.saliency import checks
from msa_flax.saliency.cam import weighted_sum
from msa_flax.saliency.interface import FeaturesFn, HeadFn, Target, signs, widened

SMALLEST_LOGIT = 1e-6  # drops are relative to a logit of at least this size
SIDE_PATCHES = 7  # a patch covers one cell of the usual networks' last map, 7 x 7
# (numbers of images [n], numbers of channels [n]) -> logits [n]
PerturbedFn = Callable[[Int[Array, " n"], Int[Array, " n"]], Float[Array, " n"]]


def score_cam(
    features_fn: FeaturesFn,
    head_fn: HeadFn,
    images: Any,
    target: Target,
    *,
    at_once: int = 32,
    relu: bool = True,
) -> Float32[Array, "b h w"]:
    """Returns the Score-CAM maps: a channel counts by the score of the image seen through it.

    With an image I (0 is black), its feature maps F, the logit y(I) and s = +1 for "fracture" and
    -1 for "normal":

        H_c  = u(up(F_c)),  u(A) = (A - min A) / (max A - min A)
        w_c  = exp(s y(I H_c)) / sum_d exp(s y(I H_d))
        L_ij = ReLU(sum_c w_c F_ijc)               (Wang et al. 2020, Definitions 3 and 4,
                                                    and the softmax of Algorithm 1)

    up is bilinear interpolation to the image's size, pixel centres aligned. The paper's w_c has
    the score of a baseline image subtracted, which cancels in the softmax.

    A channel that is the same everywhere has max A = min A: here H_c = 0, a black image. There is
    no other deviation. **All weights are above 0** and only their ratios depend on the target: with
    features after a ReLU, the maps of both targets are positive wherever a channel is active, the
    final ReLU changes nothing, and an all-zero map means that all features are 0, not that nothing
    speaks for the target. 8-bit images become floats that are not rounded: ``features_fn`` must
    take those.

    Cost: b c passes through the whole network, in chunks of ``at_once`` images. Memory is that of
    one pass for the b images and one for a chunk.

    Args:
        features_fn: images to feature maps [b, h, w, c].
        head_fn: feature maps to logits [b].
        images: [b, h, w] or [b, h, w, c], of any number type.
        target: the class to explain, or an array [b] of +1 (fracture) and -1 (normal).
        at_once: perturbed images per pass, at least 1.
        relu: whether the final ReLU is applied.

    Returns:
        float32 [b, h, w], not negative with ReLU.

    Raises:
        ValueError: the target is an unknown name, or shapes or ``at_once`` are not as described.
    """
    images = checks.images(images)
    features = widened(checks.features(features_fn(images)))
    maps = _unit_range(features.transpose(0, 3, 1, 2))
    dtype = images.dtype if jnp.issubdtype(images.dtype, jnp.floating) else maps.dtype

    def seen_through(image: Int[Array, " n"], channel: Int[Array, " n"]) -> Float[Array, " n"]:
        size = len(image), *images.shape[1:3]
        masks = _unit_range(jax.image.resize(maps[image, channel], size, "bilinear"))
        masks = masks.reshape(*size, *[1] * (images.ndim - 3))
        return _logits(head_fn, features_fn((images[image] * masks).astype(dtype)))

    logits = _logits_of_channels(seen_through, features, at_once)
    scores = signs(target, logits[:, 0])[:, None] * logits
    weights = jax.nn.softmax(scores, axis=1)
    return weighted_sum(weights[:, None, None], features, relu=relu)


def ablation_cam(
    features_fn: FeaturesFn,
    head_fn: HeadFn,
    images: Any,
    target: Target,
    *,
    at_once: int = 128,
    relu: bool = True,
) -> Float32[Array, "b h w"]:
    """Returns the Ablation-CAM maps: a channel counts by how far the score drops without it.

    With feature maps F, the logit y, y_c the logit of F with channel c set to 0, and s = +1 for
    "fracture" and -1 for "normal":

        w_c  = (s y - s y_c) / |y|                 (Desai and Ramaswamy 2020, WACV)
        L_ij = ReLU(sum_c w_c F_ijc)

    Deviations from the paper, whose scores are those of the predicted class and above 0. The paper
    divides by s y; below 0 that would turn drops into rises, so the size of y is used here. A logit
    between ``SMALLEST_LOGIT`` and its negative counts as being of that size, because a logit of 0
    has no relative drops. The denominator is the same for all channels and scales a map as a whole.

    Without ReLU, the maps of the two targets differ only in their sign. A global average pool and
    a linear layer with kernel k give w_c = s k_c mean_ij(F_ijc) / |y|.

    Cost: b c passes through the head alone, in chunks of ``at_once`` feature maps. Memory is that
    of one pass for a chunk, beside the b feature maps.

    Args:
        features_fn: images to feature maps [b, h, w, c].
        head_fn: feature maps to logits [b].
        images: whatever ``features_fn`` takes, b images.
        target: the class to explain, or an array [b] of +1 (fracture) and -1 (normal).
        at_once: perturbed feature maps per pass, at least 1.
        relu: whether the final ReLU is applied.

    Returns:
        float32 [b, h, w], not negative with ReLU. Zero everywhere means that removing any active
        channel would not lower the score.

    Raises:
        ValueError: the target is an unknown name, or shapes or ``at_once`` are not as described.
    """
    features = checks.features(features_fn(images))
    logits = _logits(head_fn, features)

    def ablated(image: Int[Array, " n"], channel: Int[Array, " n"]) -> Float[Array, " n"]:
        kept = jnp.arange(features.shape[3])[None] != channel[:, None]
        return _logits(head_fn, jnp.where(kept[:, None, None], features[image], 0))

    drops = logits[:, None] - _logits_of_channels(ablated, features, at_once)
    scale = signs(target, logits) / jnp.maximum(jnp.abs(logits), SMALLEST_LOGIT)
    weights = scale[:, None] * drops
    return weighted_sum(weights[:, None, None], widened(features), relu=relu)


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
    S(x_p), the probability, at its place. Captum computes what is computed here: drops, and their
    mean over patches that overlap. Patches begin every ``stride`` pixels from the top left; the
    last one of a row or column is cut off at the border, so that every pixel is covered.

    Args:
        features_fn: images to feature maps; takes floats.
        head_fn: feature maps to logits [b].
        images: grey values 0..255, uint8 or float, [b, h, w] or [b, h, w, c]; a patch covers all
            channels.
        target: the class to explain, or an array [b] of +1 (fracture) and -1 (normal).
        patch: side of a patch in pixels, at most the image's; by default a seventh of its shorter
            side, rounded down.
        stride: pixels from patch to patch, at most ``patch``; by default half of it, rounded down.
        fill: grey value of a patch, 0 is black.
        at_once: covered images that one pass through the network holds; never fewer than b, the
            images of one patch.

    Returns:
        float32 [b, h, w], signed: above 0 what is covered speaks for the target, below 0 against
        it. It is also 0 where the image has the value ``fill`` already.

    Raises:
        ValueError: a patch or a stride that does not fit, ``at_once`` below 1, an unknown target,
            or images or logits not shaped as described.
    """
    x = checks.floats(images)
    height, width = x.shape[1:3]
    size = max(min(height, width) // SIDE_PATCHES, 1) if patch is None else patch
    step = max(size // 2, 1) if stride is None else stride
    _check_patches(size, step, height, width)
    _check_at_once(at_once)
    rows, columns = _bands(height, size, step), _bands(width, size, step)
    logits = checks.logits(head_fn(features_fn(x)), x)
    toward = signs(target, logits)

    def drop(place: tuple[Array, Array]) -> Array:
        covered = (place[0][:, None] & place[1][None]).reshape(
            1, height, width, *[1] * (x.ndim - 3)
        )
        return logits - head_fn(features_fn(jnp.where(covered, jnp.asarray(fill, x.dtype), x)))

    # Every row of patches with every column of patches.
    places = np.repeat(rows, len(columns), axis=0), np.tile(columns, (len(rows), 1))
    # vmap over patches, so that the functions see b images whatever a pass holds.
    drops = jax.lax.map(drop, places, batch_size=max(at_once // len(x), 1))
    return _mean_over_patches(toward[None] * drops, rows, columns).astype(jnp.float32)


def _logits(head_fn: HeadFn, features: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    return widened(checks.logits(head_fn(features), features))


def _logits_of_channels(
    perturbed: PerturbedFn, features: Float[Array, "b h w c"], at_once: int
) -> Float[Array, "b c"]:
    """Returns the logits of each image with each channel perturbed, ``at_once`` per pass."""
    _check_at_once(at_once)
    batch, channels = features.shape[0], features.shape[3]
    count = batch * channels
    width = min(at_once, count)
    chunks = -(-count // width)
    number = jnp.arange(chunks * width).reshape(chunks, width) % count  # fills up the last chunk
    logits = jax.lax.map(lambda i: perturbed(i // channels, i % channels), number)
    return logits.reshape(-1)[:count].reshape(batch, channels)


def _unit_range(maps: Float[Array, "*n h w"]) -> Float[Array, "*n h w"]:
    """Scales each map to 0..1; one that is the same everywhere becomes 0."""
    low, high = maps.min(axis=(-2, -1), keepdims=True), maps.max(axis=(-2, -1), keepdims=True)
    varied = high - low > jnp.finfo(maps.dtype).tiny
    return jnp.where(varied, (maps - low) / jnp.where(varied, high - low, 1), 0)


def _bands(length: int, size: int, step: int) -> np.ndarray:
    """Returns bool [n, length]: the pixels of each patch along one side, cut off at its end."""
    begins = np.arange(-(-(length - size) // step) + 1)[:, None] * step
    pixels = np.arange(length)[None]
    return (pixels >= begins) & (pixels < begins + size)


def _mean_over_patches(drops: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """Returns [b, h, w] from [patches, b]: each pixel's mean over the patches that cover it."""
    grid = drops.reshape(len(rows), len(columns), -1)
    # A patch is a band of rows times a band of columns, so a pixel's mean is a mean of means. In
    # full precision: accelerators would round the factors of a matrix product.
    down, across = (jnp.asarray(band / band.sum(axis=0), grid.dtype) for band in (rows, columns))
    return jnp.einsum("pqb,pi,qj->bij", grid, down, across, precision="highest")


def _check_at_once(at_once: int) -> None:
    if at_once < 1:
        raise ValueError(f"at_once: expected 1 or more, got {at_once}")


def _check_patches(size: int, step: int, height: int, width: int) -> None:
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
