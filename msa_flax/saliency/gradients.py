"""Maps from the gradient with respect to the image: integrated gradients and SmoothGrad.

Both need no layer: the two halves of the network are put together again. Their maps have the
resolution of the images and a sign.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from msa_flax.saliency import checks
from msa_flax.saliency.interface import FeaturesFn, HeadFn, Target, gradients

GREY_VALUES = 255.0  # the range of an image, of which noise is a share


def integrated_gradients(
    features_fn: FeaturesFn,
    head_fn: HeadFn,
    images: Any,
    target: Target,
    *,
    baseline: Any = 0.0,
    steps: int = 32,
) -> Float32[Array, "b h w"]:
    """Returns integrated gradients: how the pixels' departures from black add up to the score.

    With the score S (the logit, or minus the logit for "normal"), the image x, the baseline x' and
    the nodes a_k and weights v_k of Gauss and Legendre's quadrature on 0..1:

        IG_i = (x_i - x'_i) int_0^1 dS(x' + a (x - x'))/dx_i da    (Sundararajan et al. 2017, Eq. 1)
             ~ (x_i - x'_i) sum_k v_k dS(x' + a_k (x - x'))/dx_i

    A map adds up to S(x) - S(x') (Proposition 1 there, completeness), up to the quadrature's error,
    which comes from the kinks of ReLUs; compare the two and take more steps where they differ. For
    a score that is linear in the image one step is exact, and the map is weight times departure.

    Args:
        features_fn: images to feature maps; takes floats.
        head_fn: feature maps to logits [b].
        images: grey values 0..255, uint8 or float, [b, h, w] or [b, h, w, c]; channels are summed.
        target: the class to explain, or an array [b] of +1 (fracture) and -1 (normal).
        baseline: grey value of the image in which nothing is seen, 0 for black, or an array that
            broadcasts to the images.
        steps: nodes of the quadrature, 1 or more. The network sees one at a time.

    Returns:
        float32 [b, h, w], signed: above 0 the pixel's departure speaks for the target, below 0
        against it. It is also 0 where a pixel equals the baseline, whatever the network sees there.

    Raises:
        ValueError: no step, a baseline of another shape, an unknown target, or images or logits not
            shaped as described.
    """
    if steps < 1:
        raise ValueError(f"steps: expected 1 or more, got {steps}")
    x = _with_channels(images)
    start = _with_channels(jnp.broadcast_to(jnp.asarray(baseline, x.dtype), jnp.shape(images)))
    head = _whole(features_fn, head_fn, jnp.ndim(images))
    places, weights = np.polynomial.legendre.leggauss(steps)  # on -1..1

    def add(total: Array, node: Array) -> tuple[Array, None]:
        return total + node[1] * gradients(head, start + node[0] * (x - start), target), None

    nodes = jnp.asarray(np.stack([(places + 1) / 2, weights / 2], axis=1), x.dtype)
    total, _ = jax.lax.scan(add, jnp.zeros_like(x), nodes)
    return ((x - start) * total).sum(axis=-1).astype(jnp.float32)


def smoothgrad(
    features_fn: FeaturesFn,
    head_fn: HeadFn,
    images: Any,
    target: Target,
    *,
    samples: int = 32,
    noise: float = 0.1,
    seed: int = 0,
    absolute: bool = False,
) -> Float32[Array, "b h w"]:
    """Returns SmoothGrad maps: the score's gradient, averaged over noisy copies of the image.

        M_i = 1/n sum_k dS(x + e_k)/dx_i, e_k normal with deviation ``noise`` * 255
                                                                (Smilkov et al. 2017, Section 3.1)

    There the deviation is a share of the image's own range of values. Here it is a share of all
    grey values, so that it is the same for all images. Noise is not clipped to 0..255. It depends
    only on the seed and on k: not on the image, its batch or the class.

    Args:
        features_fn: images to feature maps; takes floats.
        head_fn: feature maps to logits [b].
        images: grey values 0..255, uint8 or float, [b, h, w] or [b, h, w, c]; channels are summed.
        target: the class to explain, or an array [b] of +1 (fracture) and -1 (normal).
        samples: noisy copies, n, 1 or more. The network sees one at a time.
        noise: deviation as a share of 0..255; 0 gives the plain gradient.
        seed: of the noise.
        absolute: whether the size of the averaged gradient is returned without its sign, as the
            paper's figures show it (Section 3.3); then both classes have the same map.

    Returns:
        float32 [b, h, w], score per grey value, signed unless ``absolute``: above 0 a brighter
        pixel speaks for the target. 0 means that the pixel does not change the score, on average.

    Raises:
        ValueError: no sample, negative noise, an unknown target, or images or logits not shaped as
            described.
    """
    if samples < 1 or noise < 0:
        raise ValueError(
            f"samples, noise: expected 1 or more and 0 or more, got {samples} and {noise}"
        )
    x = _with_channels(images)
    head = _whole(features_fn, head_fn, jnp.ndim(images))

    def draw(sample: Array) -> Array:
        return jax.random.normal(
            jax.random.fold_in(jax.random.key(seed), sample), x.shape[1:], x.dtype
        )

    def add(total: Array, grain: Array) -> tuple[Array, None]:
        return total + gradients(head, x + noise * GREY_VALUES * grain[None], target), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(x), jax.vmap(draw)(jnp.arange(samples)))
    mean = (total / samples).sum(axis=-1).astype(jnp.float32)
    return jnp.abs(mean) if absolute else mean


def _with_channels(images: Any) -> Float[Array, "b h w c"]:
    """Returns the images as floats with a last axis of channels, one where they have none."""
    x = checks.floats(images)
    return x if x.ndim == 4 else x[..., None]


def _whole(
    features_fn: FeaturesFn, head_fn: HeadFn, ndim: int
) -> Callable[[Float[Array, "b h w c"]], Float[Array, " b"]]:
    """Returns the network from what :func:`_with_channels` gave to the logits."""

    def whole(x: Array) -> Array:
        return head_fn(features_fn(x[..., 0] if ndim == 3 else x))

    return whole
