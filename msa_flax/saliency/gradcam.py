"""Maps from features and their gradients: Grad-CAM and its kin.

All of them are one sum over the channels of the feature maps F,

    L_ij = ReLU(sum_c w_ijc F_ijc),

and differ in the weights w alone, which they take from the slopes g = d(s y)/dF: y is the logit of
fracture, head_fn(F), and s is +1 for "fracture" and -1 for "normal". Maps are raw, neither
normalised nor resized. Numbers below 32 bits are widened before anything is summed.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from msa_flax.saliency.interface import FeaturesFn, HeadFn, Target, gradients

Values = Float[Array, "b h w c"]


def gradcam(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target, *, relu: bool = True
) -> Float32[Array, "b h w"]:
    """Returns the Grad-CAM maps of a batch of images, raw: neither normalised nor resized.

    With the feature maps F = features_fn(images), the logit y = head_fn(F) and the score
    s y, where s is +1 for "fracture" and -1 for "normal" (one logit speaks for both classes):

        w_c  = 1/(h w) sum_ij d(s y)/dF_ijc        (Selvaraju et al. 2017, Eq. 1)
        L_ij = ReLU(sum_c w_c F_ijc)               (Selvaraju et al. 2017, Eq. 2)

    Paper 1 §3.2.3 applies it to the last convolutional layer of the backbone. A global average
    pool followed by a linear layer with kernel k gives ReLU(CAM)/(h w), with
    CAM_ij = sum_c k_c F_ijc.

    Args:
        features_fn: images to feature maps [b, h, w, c].
        head_fn: feature maps to logits [b].
        images: whatever ``features_fn`` takes, b images.
        target: the class to explain, or an array [b] of +1 (fracture) and -1 (normal).
        relu: whether Eq. 2's ReLU is applied; without it, what speaks against the target is
            negative.

    Returns:
        float32 [b, h, w], not negative with ReLU. All zero means that nothing speaks for the
        target.

    Raises:
        ValueError: the target is an unknown name, or the shapes are not as described.
    """
    features, slopes = features_and_slopes(features_fn, head_fn, images, target)
    return weighted_sum(_mean_slopes(features, slopes), features, relu=relu)


def gradcam_plus_plus(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target, *, relu: bool = True
) -> Float32[Array, "b h w"]:
    """Returns the Grad-CAM++ maps: slopes that raise the score count, by a factor of their own.

        a_ijc = g_ijc^2 / (2 g_ijc^2 + S_c g_ijc^3),  S_c = sum_ij F_ijc
                                                   (Chattopadhay et al. 2018, Eq. 19)
        w_c   = sum_ij a_ijc ReLU(g_ijc)
        L_ij  = ReLU(sum_c w_c F_ijc)

    Where g is above 0 this is a = 1/(2 + S_c g), and elsewhere a has no effect; so it is computed,
    without the small constant that other implementations add to the denominator, which decides
    where slopes are small (1e-3 and less: usual for a mean over many positions).

    Deviations from the paper. It explains exp(s y): the factor exp(s y) of every w_c is left out,
    as it scales a map as a whole and overflows. It takes features after a ReLU: for those that can
    be negative, S_c is cut off at 0, as the denominator could vanish or change its sign.

    Arguments, errors and shapes are those of :func:`gradcam`. All weights are 0 or above: with
    features after a ReLU, the final ReLU changes nothing, and an all-zero map means that no rise of
    an active channel would raise the score.
    """
    features, slopes = features_and_slopes(features_fn, head_fn, images, target)
    return weighted_sum(_plus_plus_weights(features, slopes), features, relu=relu)


def hirescam(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target, *, relu: bool = True
) -> Float32[Array, "b h w"]:
    """Returns the HiResCAM maps: each value counts with its own slope, none is averaged.

        L_ij = ReLU(sum_c g_ijc F_ijc)             (Draelos and Carin 2020, arXiv:2011.08891)

    Of a head that is linear in F the map without ReLU sums to the score less the bias: it shows
    what the network has used, and where. After a global average pool and a linear layer it is the
    Grad-CAM map; after spatial attention it is not.

    Deviation: the paper defines the map without ReLU; ``relu=False`` gives that one.

    Arguments, errors and shapes are those of :func:`gradcam`. All zero with ReLU: no place speaks
    for the target.
    """
    features, slopes = features_and_slopes(features_fn, head_fn, images, target)
    return weighted_sum(_own_slopes(features, slopes), features, relu=relu)


def xgradcam(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target, *, relu: bool = True
) -> Float32[Array, "b h w"]:
    """Returns the XGrad-CAM maps: a channel's slopes are averaged where the channel is active.

        w_c  = sum_ij g_ijc F_ijc / S_c,  S_c = sum_ij F_ijc
                                                   (Fu et al. 2020, arXiv:2008.02312)
        L_ij = ReLU(sum_c w_c F_ijc)

    Without ReLU a map has the sum of the HiResCAM map (the paper's conservation); it is the
    Grad-CAM map where a channel's slopes are the same everywhere, as after a global average pool.

    Deviation: a channel whose sum is 0, or lost to rounding beside its values (|S_c| at most the
    type's epsilon times sum_ij |F_ijc|), has weight 0. So has a dead one. Features that can be
    negative come near that, and such channels then have large weights: the paper takes features
    after a ReLU.

    Arguments, errors and shapes are those of :func:`gradcam`. All zero with ReLU: nothing speaks
    for the target.
    """
    features, slopes = features_and_slopes(features_fn, head_fn, images, target)
    return weighted_sum(_active_slopes(features, slopes), features, relu=relu)


def layercam(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target, *, relu: bool = True
) -> Float32[Array, "b h w"]:
    """Returns the LayerCAM maps: each value counts with its own slope, if that raises the score.

        w_ijc = ReLU(g_ijc)                        (Jiang et al. 2021, 10.1109/TIP.2021.3089943)
        L_ij  = ReLU(sum_c w_ijc F_ijc)

    Where no slope is negative it is the HiResCAM map. No deviation.

    Arguments, errors and shapes are those of :func:`gradcam`. With features after a ReLU, the
    final ReLU changes nothing, and an all-zero map means that no rise of an active value would
    raise the score.
    """
    features, slopes = features_and_slopes(features_fn, head_fn, images, target)
    return weighted_sum(_rising_slopes(features, slopes), features, relu=relu)


def features_and_slopes(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target
) -> tuple[Values, Values]:
    """Returns the features and the slopes of the target's score, both of 32 bits or more.

    Raises:
        ValueError: the target is an unknown name, or the shapes are not as described.
    """
    features = features_fn(images)
    _, slopes = gradients(head_fn, features, target)
    return widened(features), widened(slopes)


def weighted_sum(
    weights: Float[Array, "b _ _ c"], features: Values, *, relu: bool
) -> Float32[Array, "b h w"]:
    """Returns the map of weights for each channel, [b, 1, 1, c], or each value, [b, h, w, c]."""
    # A product and a sum, not a matrix product: those lose digits on accelerators by default.
    values = (weights * features).sum(axis=3)
    return (jax.nn.relu(values) if relu else values).astype(jnp.float32)


def widened(values: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Returns values of fewer than 32 bits as float32, others as they are."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _mean_slopes(features: Values, slopes: Values) -> Float[Array, "b 1 1 c"]:
    return slopes.mean(axis=(1, 2), keepdims=True)


def _plus_plus_weights(features: Values, slopes: Values) -> Float[Array, "b 1 1 c"]:
    rising, sums = jax.nn.relu(slopes), features.sum(axis=(1, 2), keepdims=True)
    return (rising / (2 + jax.nn.relu(sums) * rising)).sum(axis=(1, 2), keepdims=True)


def _own_slopes(features: Values, slopes: Values) -> Values:
    return slopes


def _active_slopes(features: Values, slopes: Values) -> Float[Array, "b 1 1 c"]:
    sums = features.sum(axis=(1, 2), keepdims=True)
    limits = jnp.finfo(features.dtype)
    noise = limits.eps * jnp.abs(features).sum(axis=(1, 2), keepdims=True)
    known = jnp.abs(sums) > jnp.maximum(noise, limits.tiny)
    products = (slopes * features).sum(axis=(1, 2), keepdims=True)
    return jnp.where(known, products / jnp.where(known, sums, 1), 0)


def _rising_slopes(features: Values, slopes: Values) -> Values:
    return jax.nn.relu(slopes)
