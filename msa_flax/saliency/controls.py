"""Controls: maps that a method has to beat, and the attention maps that stand beside them.

The random map and the centre prior know nothing of the network. A method whose maps are no better
than these explains nothing. Attention maps come out of the network's forward pass and say nothing
about its logit; they are measured like maps of a method.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt32

from msa_flax.saliency import checks
from msa_flax.saliency.interface import FeaturesFn, HeadFn, Target, signs


def random_map(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target, *, seed: int = 0
) -> Float32[Array, "b h w"]:
    """Returns maps of chance: independent uniform values, one for each cell of the feature map.

    At the resolution of the features, a resized random map is as coarse as a Grad-CAM map. It
    depends only on the image's grey values and on the seed: it is the same in any batch, the same
    for both classes, and different for every image. Copies of an image have the same map.

    Args:
        features_fn: images to feature maps [b, h, w, c]; only their shape is used, and nothing is
            computed.
        head_fn: not used.
        images: grey values, uint8 or float, [b, ...].
        target: makes no difference.
        seed: of the values.

    Returns:
        float32 [b, h, w] in 0 <= value < 1; 0 has no special meaning.

    Raises:
        ValueError: an unknown target, or features not shaped as described.
    """
    x = jnp.asarray(images, jnp.float32)
    cells = checks.features(jax.eval_shape(features_fn, x)).shape[1:3]
    signs(target, jnp.zeros(len(x)))  # refuses what other methods refuse

    def draw(number: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(seed), number)
        return jax.random.uniform(key, cells, jnp.float32)

    return jax.vmap(draw)(_hashes(x))


def centre_prior(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target, *, sigma: float = 0.25
) -> Float32[Array, "b h w"]:
    """Returns the same Gaussian at the centre of every image: an observer who never looks.

        M_ij = exp(-(u_i^2 + v_j^2) / (2 sigma^2))

    u and v are the pixel centre's distances from the image's centre, as shares of the sides. Maps
    of where people look are compared with such a prior (Judd et al. 2009), because what matters
    tends to be in the middle. That holds here too: a neck is centred in its scan. The width is a
    choice of this project, made without looking at any fracture.

    Args:
        features_fn: not used.
        head_fn: not used.
        images: [b, h, w] or [b, h, w, c]; only the shape matters.
        target: makes no difference.
        sigma: deviation of the Gaussian as a share of the image's side, above 0.

    Returns:
        float32 [b, h, w] above 0, up to 1 at the centre.

    Raises:
        ValueError: a sigma that is not above 0, an unknown target, or images not shaped as
            described.
    """
    if not sigma > 0:
        raise ValueError(f"sigma: expected a share of the side above 0, got {sigma}")
    shape = checks.images(images).shape
    signs(target, jnp.zeros(shape[0]))  # refuses what other methods refuse
    u, v = ((jnp.arange(side, dtype=jnp.float32) + 0.5) / side - 0.5 for side in shape[1:3])
    one = jnp.exp(-(u[:, None] ** 2 + v[None] ** 2) / (2 * sigma**2))
    return jnp.broadcast_to(one[None], shape[:3])


def attention_maps(attention: Mapping[int, Any]) -> dict[str, Float32[Array, "b h w"]]:
    """Returns attention maps by name: ``attention_<k>`` for each kernel size and their mean.

    The mean, ``attention_mean``, is the factor by which the block weighs a pixel's features,
    divided by the number of scales (paper 1 Eq. 5 and 6: the output is sum_k M_k F), so that it
    stays in 0..1.

    Args:
        attention: kernel size to maps [b, h, w], as in ``Explanations.attention``.

    Returns:
        Maps in the order of the kernel sizes, the mean last; nothing for a network without
        attention. Values are in 0..1, the same for both classes; a pixel with 0 is left out.
    """
    maps = {f"attention_{k}": jnp.asarray(attention[k], jnp.float32) for k in sorted(attention)}
    return maps | ({"attention_mean": jnp.stack([*maps.values()]).mean(axis=0)} if maps else {})


def _hashes(x: Float32[Array, "b *rest"]) -> UInt32[Array, " b"]:
    """Returns one number per image that no other image is likely to have.

    The bits of every value are mixed (a bijection, the finaliser of MurmurHash3), multiplied by an
    odd number that belongs to the value's place, and added modulo 2^32. Two images that differ in
    one value never share a hash; any other two do so with a chance of about 2^-32. Integer sums are
    exact in any order, so a hash depends on neither batch nor device.
    """
    bits = jax.lax.bitcast_convert_type(x.reshape(len(x), -1), jnp.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    places = jax.random.bits(jax.random.key(0), bits.shape[1:], jnp.uint32) | jnp.uint32(1)
    return (bits * places[None]).sum(axis=1, dtype=jnp.uint32)
