"""Class-activation maps from features and gradients: Grad-CAM and its relatives, Eigen-CAM.

The Grad-CAM family is one sum over the channels of the feature maps F,

    L_ij = ReLU(sum_c w_ijc F_ijc).

Its members differ only in the weights w, which they take from the slopes g = d(s y)/dF: y is the
logit of fracture, head_fn(F), and s is +1 for "fracture" and -1 for "normal". Eigen-CAM projects
the features, or features times slopes, on their first principal component. Maps are raw: neither
normalised nor resized. Numbers below 32 bits are widened before anything is summed.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from msa_flax.saliency import checks
from msa_flax.saliency.interface import FeaturesFn, HeadFn, Target, gradients, signs, widened

Values = Float[Array, "b h w c"]

# The products of Eigen-CAM: an accelerator's default precision would change the direction.
PRECISION = jax.lax.Precision.HIGHEST


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
    features, slopes = _features_and_slopes(features_fn, head_fn, images, target)
    return weighted_sum(_mean_slopes(features, slopes), features, relu=relu)


def gradcam_plus_plus(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target, *, relu: bool = True
) -> Float32[Array, "b h w"]:
    """Returns the Grad-CAM++ maps: only slopes that raise the score count, each with a factor.

        a_ijc = g_ijc^2 / (2 g_ijc^2 + S_c g_ijc^3),  S_c = sum_ij F_ijc
                                                   (Chattopadhay et al. 2018, Eq. 19)
        w_c   = sum_ij a_ijc ReLU(g_ijc)
        L_ij  = ReLU(sum_c w_c F_ijc)

    Where g is above 0 this is a = 1/(2 + S_c g), and elsewhere a has no effect. It is computed in
    this form, without the small constant that other implementations add to the denominator: that
    constant decides where slopes are small (1e-3 and less, usual for a mean over many positions).

    Deviations from the paper. The paper explains exp(s y): the factor exp(s y) of every w_c is left
    out, because it scales a map as a whole and overflows. The paper takes features after a ReLU:
    for features that can be negative, S_c is cut off at 0, because the denominator could vanish or
    change its sign.

    Arguments, errors and shapes are those of :func:`gradcam`. All weights are 0 or above: with
    features after a ReLU the final ReLU changes nothing, and an all-zero map means that raising an
    active channel would not raise the score.
    """
    features, slopes = _features_and_slopes(features_fn, head_fn, images, target)
    return weighted_sum(_plus_plus_weights(features, slopes), features, relu=relu)


def hirescam(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target, *, relu: bool = True
) -> Float32[Array, "b h w"]:
    """Returns the HiResCAM maps: each value counts with its own slope; nothing is averaged.

        L_ij = ReLU(sum_c g_ijc F_ijc)             (Draelos and Carin 2020, arXiv:2011.08891)

    For a head that is linear in F, the map without ReLU sums to the score minus the bias: it shows
    what the network has used, and where. After a global average pool and a linear layer it equals
    the Grad-CAM map; after spatial attention it does not.

    Deviation: the paper defines the map without ReLU; ``relu=False`` gives that one.

    Arguments, errors and shapes are those of :func:`gradcam`. All zero with ReLU means that no
    place speaks for the target.
    """
    features, slopes = _features_and_slopes(features_fn, head_fn, images, target)
    return weighted_sum(slopes, features, relu=relu)


def xgradcam(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target, *, relu: bool = True
) -> Float32[Array, "b h w"]:
    """Returns the XGrad-CAM maps: a channel's slopes are averaged where the channel is active.

        w_c  = sum_ij g_ijc F_ijc / S_c,  S_c = sum_ij F_ijc
                                                   (Fu et al. 2020, arXiv:2008.02312)
        L_ij = ReLU(sum_c w_c F_ijc)

    Without ReLU a map has the same sum as the HiResCAM map (the paper's conservation). It equals
    the Grad-CAM map where a channel has the same slope everywhere, as after a global average pool.

    Deviation: a channel gets weight 0 if its sum is 0 or lost to rounding beside its values (|S_c|
    at most the type's epsilon times sum_ij |F_ijc|), as it is for a dead channel. The paper takes
    features after a ReLU; for features that can be negative, sums near 0 make large weights.

    Arguments, errors and shapes are those of :func:`gradcam`. All zero with ReLU means that nothing
    speaks for the target.
    """
    features, slopes = _features_and_slopes(features_fn, head_fn, images, target)
    return weighted_sum(_active_slopes(features, slopes), features, relu=relu)


def layercam(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target, *, relu: bool = True
) -> Float32[Array, "b h w"]:
    """Returns the LayerCAM maps: each value counts with its own slope, if that raises the score.

        w_ijc = ReLU(g_ijc)                        (Jiang et al. 2021, 10.1109/TIP.2021.3089943)
        L_ij  = ReLU(sum_c w_ijc F_ijc)

    Where no slope is negative it equals the HiResCAM map. No deviation from the paper.

    Arguments, errors and shapes are those of :func:`gradcam`. With features after a ReLU the final
    ReLU changes nothing, and an all-zero map means that raising an active value would not raise the
    score.
    """
    features, slopes = _features_and_slopes(features_fn, head_fn, images, target)
    return weighted_sum(_rising_slopes(features, slopes), features, relu=relu)


def eigencam(
    features_fn: FeaturesFn,
    head_fn: HeadFn,
    images: Any,
    target: Target,
    *,
    centred: bool = True,
    relu: bool = True,
) -> Float32[Array, "b h w"]:
    """Returns the Eigen-CAM maps: where the features vary most, whatever the class.

    With the features of one image as a matrix X [h w, c], one row per position:

        X = U S V^T                                (Muhammad and Yeasin 2020, arXiv:2008.00299)
        L = ReLU(X v), v the first column of V

    **It does not depend on the class.** Neither the head nor the target is used; the maps of
    "fracture" and of "normal" are the same. It is a control rather than an explanation.

    Centring: by default the mean over the positions is subtracted from each channel first, as in a
    principal component analysis and in the package ``grad-cam``. The paper does not say so;
    ``centred=False`` leaves the features as they are. A centred map sums to 0 before ReLU.

    Sign: a singular vector has no sign of its own. It is chosen so that the map, before ReLU, does
    not correlate negatively with the sum of X over the channels: sum_ij L_ij sum_c X_ijc >= 0, so
    the map is high where features are. If that sum is 0 up to rounding, the sign means nothing.

    Deviation: the ReLU, which the paper does not have; ``relu=False`` gives what it defines.

    Args:
        features_fn: images to feature maps [b, h, w, c].
        head_fn: not called.
        images: whatever ``features_fn`` takes, b images.
        target: checked, and not used.
        centred: whether the mean over the positions is subtracted.
        relu: whether what is negative is set to 0.

    Returns:
        float32 [b, h, w], not negative with ReLU. All zero if the features are 0 or, when centred,
        the same everywhere, as with h w = 1. With two equally large components the direction is
        arbitrary.

    Raises:
        ValueError: the target is an unknown name, or the shapes are not as described.
    """
    features = checks.features(features_fn(images))
    signs(target, features[:, 0, 0, 0])  # for its errors
    return _principal_map(features, centred, relu)


def eigen_gradcam(
    features_fn: FeaturesFn,
    head_fn: HeadFn,
    images: Any,
    target: Target,
    *,
    centred: bool = True,
    relu: bool = True,
) -> Float32[Array, "b h w"]:
    """Returns the Eigen-Grad-CAM maps: Eigen-CAM of features times slopes, which has a class.

    As :func:`eigencam` with X = g F, where g = d(s y)/dF is the slope of the target's score. There
    is no paper: the package ``grad-cam`` has it.

    Sign: sum_c X_ijc is the HiResCAM map without ReLU, so a map does not correlate negatively with
    the evidence for the target. Before ReLU the maps of the two classes differ only in their sign.
    Centred maps are relative: above 0 is what speaks for the target more than the average place.

    Arguments, errors and shapes are those of :func:`eigencam`, but ``head_fn`` and ``target`` are
    used. All zero if all slopes or features are 0 or, when centred, their product is the same
    everywhere.
    """
    features, slopes = _features_and_slopes(features_fn, head_fn, images, target)
    return _principal_map(features * slopes, centred, relu)


def weighted_sum(
    weights: Float[Array, "b _ _ c"], features: Values, *, relu: bool
) -> Float32[Array, "b h w"]:
    """Returns the map of weights for each channel, [b, 1, 1, c], or each value, [b, h, w, c]."""
    # A product and a sum, not a matrix product: those lose digits on accelerators by default.
    values = (weights * features).sum(axis=3)
    return (jax.nn.relu(values) if relu else values).astype(jnp.float32)


def _features_and_slopes(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target
) -> tuple[Values, Values]:
    """Returns the features and the slopes of the target's score, both of 32 bits or more."""
    features = features_fn(images)
    return widened(features), widened(gradients(head_fn, features, target))


def _mean_slopes(features: Values, slopes: Values) -> Float[Array, "b 1 1 c"]:
    return slopes.mean(axis=(1, 2), keepdims=True)


def _plus_plus_weights(features: Values, slopes: Values) -> Float[Array, "b 1 1 c"]:
    rising, sums = jax.nn.relu(slopes), features.sum(axis=(1, 2), keepdims=True)
    return (rising / (2 + jax.nn.relu(sums) * rising)).sum(axis=(1, 2), keepdims=True)


def _active_slopes(features: Values, slopes: Values) -> Float[Array, "b 1 1 c"]:
    sums = features.sum(axis=(1, 2), keepdims=True)
    limits = jnp.finfo(features.dtype)
    noise = limits.eps * jnp.abs(features).sum(axis=(1, 2), keepdims=True)
    known = jnp.abs(sums) > jnp.maximum(noise, limits.tiny)
    products = (slopes * features).sum(axis=(1, 2), keepdims=True)
    return jnp.where(known, products / jnp.where(known, sums, 1), 0)


def _rising_slopes(features: Values, slopes: Values) -> Values:
    return jax.nn.relu(slopes)


def _principal_map(values: Values, centred: bool, relu: bool) -> Float32[Array, "b h w"]:
    batch, height, width, channels = values.shape
    rows, scale = _scaled_rows(widened(values).reshape(batch, height * width, channels), centred)
    found = _turned(_projection(rows), rows) * scale[:, :, 0]
    found = jax.nn.relu(found) if relu else found
    return found.reshape(batch, height, width).astype(jnp.float32)


def _scaled_rows(
    rows: Float[Array, "b p c"], centred: bool
) -> tuple[Float[Array, "b p c"], Float[Array, "b 1 1"]]:
    """Returns rows scaled so that the largest value is 1, and the factor that undoes it.

    Their squares neither overflow nor vanish. Rows that centring leaves at rounding become 0.
    """
    limits = jnp.finfo(rows.dtype)
    floor = jnp.full((len(rows), 1, 1), limits.tiny, rows.dtype)
    if centred:
        floor = jnp.maximum(floor, 8 * limits.eps * jnp.abs(rows).max((1, 2), keepdims=True))
        rows = rows - rows.mean(axis=1, keepdims=True)
    largest = jnp.abs(rows).max(axis=(1, 2), keepdims=True)
    scale = jnp.where(largest > floor, largest, 0)
    return jnp.where(scale > 0, rows / jnp.where(scale > 0, scale, 1), 0), scale


def _projection(rows: Float[Array, "b p c"]) -> Float[Array, "b p"]:
    """Returns X v up to its sign, from the smaller of X X^T and X^T X: both have its length."""
    if rows.shape[1] <= rows.shape[2]:
        products = jnp.einsum("bpc,bqc->bpq", rows, rows, precision=PRECISION)
        squares, vectors = jnp.linalg.eigh(products)  # ascending; X v is S times the column of U
        return vectors[:, :, -1] * jnp.sqrt(jnp.maximum(squares[:, -1:], 0))
    products = jnp.einsum("bpc,bpd->bcd", rows, rows, precision=PRECISION)
    direction = jnp.linalg.eigh(products)[1][:, None, :, -1]
    return (rows * direction).sum(axis=2)


def _turned(projection: Float[Array, "b p"], rows: Float[Array, "b p c"]) -> Float[Array, "b p"]:
    """Returns the projection with the sign that agrees with the sum over the channels."""
    agreement = (projection * rows.sum(axis=2)).sum(axis=1, keepdims=True)
    return jnp.where(agreement < 0, -projection, projection)
