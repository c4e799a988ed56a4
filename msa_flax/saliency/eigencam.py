"""Maps from the first principal component of the features, or of features times slopes."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from msa_flax.saliency.gradcam import features_and_slopes, widened
from msa_flax.saliency.interface import FeaturesFn, HeadFn, Target, signs

# Sums over the highest precision: an accelerator's default would change the direction.
PRECISION = jax.lax.Precision.HIGHEST


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

    With the features of one image as a matrix X [h w, c], a row a position:

        X = U S V^T                                (Muhammad and Yeasin 2020, arXiv:2008.00299)
        L = ReLU(X v), v the first column of V

    **It does not depend on the class**: neither the head nor the target is used, the maps of
    "fracture" and of "normal" are the same. A control rather than an explanation of a decision.

    Centring: by default the mean over the positions is subtracted from each channel first, as in a
    principal component analysis and in the package ``grad-cam``; the paper does not say so, and
    ``centred=False`` leaves the features as they are. A centred map sums to 0 before ReLU.

    Sign: a singular vector has none of its own. It is chosen so that the map, before ReLU, does
    not correlate negatively with the sum of X over the channels: sum_ij L_ij sum_c X_ijc >= 0, so
    it is high where features are. If that sum is 0 to rounding, the sign means nothing.

    Deviation: the ReLU, which the paper does not have; ``relu=False`` gives what it defines.

    Args:
        features_fn: images to feature maps [b, h, w, c].
        head_fn: not called.
        images: whatever ``features_fn`` takes, b images.
        target: checked, and not used.
        centred: whether the mean over the positions is subtracted.
        relu: whether what is negative is set to 0.

    Returns:
        float32 [b, h, w], not negative with ReLU. All zero if the features are 0, or, centred, the
        same everywhere, as with h w = 1. Two equally large components leave the direction open.

    Raises:
        ValueError: the target is an unknown name, or the shapes are not as described.
    """
    features = features_fn(images)
    if features.ndim != 4:
        raise ValueError(f"features: expected [b, h, w, c], got {features.shape}")
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
    """Returns the maps of Eigen-CAM computed from features times slopes; they depend on the class.

    As :func:`eigencam` with X = g F, where g = d(s y)/dF is the slope of the target's score (s is
    +1 for "fracture" and -1 for "normal"). There is no paper: the package ``grad-cam`` has it.

    Sign: sum_c X_ijc is the HiResCAM map without ReLU, so a map does not correlate negatively with
    the evidence for the target. Before ReLU the maps of the two classes differ in their sign alone.
    Centred maps are relative: above 0 is what speaks for the target more than the mean place.

    Args:
        features_fn: images to feature maps [b, h, w, c].
        head_fn: feature maps to logits [b].
        images: whatever ``features_fn`` takes, b images.
        target: the class to explain, or an array [b] of +1 (fracture) and -1 (normal).
        centred: whether the mean over the positions is subtracted.
        relu: whether what is negative is set to 0.

    Returns:
        float32 [b, h, w], not negative with ReLU. All zero if all slopes or features are 0, or,
        centred, their product is the same everywhere, as with h w = 1.

    Raises:
        ValueError: the target is an unknown name, or the shapes are not as described.
    """
    features, slopes = features_and_slopes(features_fn, head_fn, images, target)
    return _principal_map(features * slopes, centred, relu)


def _principal_map(
    values: Float[Array, "b h w c"], centred: bool, relu: bool
) -> Float32[Array, "b h w"]:
    batch, height, width, channels = values.shape
    rows, scale = _scaled_rows(widened(values).reshape(batch, height * width, channels), centred)
    found = _turned(_projection(rows), rows) * scale[:, :, 0]
    found = jax.nn.relu(found) if relu else found
    return found.reshape(batch, height, width).astype(jnp.float32)


def _scaled_rows(
    rows: Float[Array, "b p c"], centred: bool
) -> tuple[Float[Array, "b p c"], Float[Array, "b 1 1"]]:
    """Returns rows whose largest value is 1, and by what they must be multiplied.

    Their squares neither overflow nor vanish. What centring leaves of constants is rounding: 0.
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
