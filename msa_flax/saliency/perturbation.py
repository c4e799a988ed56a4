"""Maps from evaluating the network again for every channel, without gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from msa_flax.saliency.gradcam import weighted_sum, widened
from msa_flax.saliency.interface import FeaturesFn, HeadFn, Target, signs

SMALLEST_LOGIT = 1e-6  # drops are relative to a logit of at least this size
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

    A channel that is the same everywhere has max A = min A: here H_c = 0, a black image. No other
    deviation. **All weights are above 0** and only their ratios depend on the target: with features
    after a ReLU, the maps of both targets are positive wherever a channel is active, the final ReLU
    changes nothing, and an all-zero map means that all features are 0, not that nothing speaks for
    the target. 8-bit images become floats, which are not rounded: ``features_fn`` must take those.

    Cost: b c passes through the whole network, in chunks of ``at_once`` images; memory is that of
    one pass for the b images and one for a chunk.

    Args:
        features_fn: images to feature maps [b, h, w, c].
        head_fn: feature maps to logits [b].
        images: [b, y, x] or [b, y, x, colours], of any number type.
        target: the class to explain, or an array [b] of +1 (fracture) and -1 (normal).
        at_once: perturbed images a pass, at least 1.
        relu: whether the final ReLU is applied.

    Returns:
        float32 [b, h, w], not negative with ReLU.

    Raises:
        ValueError: the target is an unknown name, or shapes or ``at_once`` are not as described.
    """
    images = jnp.asarray(images)
    if images.ndim not in (3, 4):
        raise ValueError(f"images: expected [b, y, x] or [b, y, x, colours], got {images.shape}")
    features = widened(_features(features_fn, images))
    maps = _unit_range(features.transpose(0, 3, 1, 2))
    dtype = images.dtype if jnp.issubdtype(images.dtype, jnp.floating) else maps.dtype

    def seen_through(image: Int[Array, " n"], channel: Int[Array, " n"]) -> Float[Array, " n"]:
        size = len(image), *images.shape[1:3]
        masks = _unit_range(jax.image.resize(maps[image, channel], size, "bilinear"))
        masks = masks.reshape(*size, *[1] * (images.ndim - 3))
        return _logits(head_fn, _features(features_fn, (images[image] * masks).astype(dtype)))

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

    Deviations from the paper, whose scores are those of the class found, and above 0. It divides by
    s y: below 0, that would turn drops into rises, so the size of y is used. A logit between
    ``SMALLEST_LOGIT`` and its negative counts as of that size, as one of 0 has no relative drops;
    the denominator is the same for all channels, and scales a map as a whole.

    Without ReLU, the maps of the two targets differ in their sign alone. A global average pool and
    a linear layer with kernel k give w_c = s k_c mean_ij(F_ijc) / |y|.

    Cost: b c passes through the head alone, in chunks of ``at_once`` feature maps; memory is that
    of one pass for a chunk, beside the b feature maps.

    Args:
        features_fn: images to feature maps [b, h, w, c].
        head_fn: feature maps to logits [b].
        images: whatever ``features_fn`` takes, b images.
        target: the class to explain, or an array [b] of +1 (fracture) and -1 (normal).
        at_once: perturbed feature maps a pass, at least 1.
        relu: whether the final ReLU is applied.

    Returns:
        float32 [b, h, w], not negative with ReLU. All zero means that nothing speaks for the
        target: without no channel that is active anywhere the score would drop.

    Raises:
        ValueError: the target is an unknown name, or shapes or ``at_once`` are not as described.
    """
    features = _features(features_fn, images)
    logits = _logits(head_fn, features)

    def ablated(image: Int[Array, " n"], channel: Int[Array, " n"]) -> Float[Array, " n"]:
        kept = jnp.arange(features.shape[3])[None] != channel[:, None]
        return _logits(head_fn, jnp.where(kept[:, None, None], features[image], 0))

    drops = logits[:, None] - _logits_of_channels(ablated, features, at_once)
    scale = signs(target, logits) / jnp.maximum(jnp.abs(logits), SMALLEST_LOGIT)
    weights = scale[:, None] * drops
    return weighted_sum(weights[:, None, None], widened(features), relu=relu)


def _logits_of_channels(
    perturbed: PerturbedFn, features: Float[Array, "b h w c"], at_once: int
) -> Float[Array, "b c"]:
    """Returns the logits of each image with each channel's perturbation, ``at_once`` a pass."""
    if at_once < 1:
        raise ValueError(f"at_once: expected 1 or more, got {at_once}")
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


def _features(features_fn: FeaturesFn, images: Any) -> Float[Array, "b h w c"]:
    features = features_fn(images)
    if features.ndim != 4:
        raise ValueError(f"features: expected [b, h, w, c], got {features.shape}")
    return features


def _logits(head_fn: HeadFn, features: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    logits = head_fn(features)
    if logits.shape != features.shape[:1]:
        raise ValueError(
            f"head_fn: expected one logit an image, {features.shape[:1]}; got {logits.shape}"
        )
    return widened(logits)
