"""Maps that a saliency method has to beat: chance, the middle of the image, the attention.

The random map and the centre prior know nothing of the network. A method whose maps lie no better
on fractures than theirs shows no fracture. Attention maps come out of the network's forward pass
and are no statement about its logit; as maps in their own right they can be held against those.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, UInt32

from msa_flax.saliency.interface import FeaturesFn, HeadFn, Target, signs

AttentionFn = Callable[[Float[Array, "b h w c"]], Mapping[int, Float[Array, "b h w"]]]
Method = Callable[[FeaturesFn, HeadFn, Any, Target], Float32[Array, "b h w"]]


def random_map(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target, *, seed: int = 0
) -> Float32[Array, "b h w"]:
    """Returns maps of chance: independent uniform values, one for each cell of the feature map.

    At the resolution of the features a resized random map is as coarse as that of Grad-CAM. It is a
    function of the image's grey values and of the seed: the same in any batch, the same for both
    classes, and another one for another image. Copies of an image have one map.

    Args:
        features_fn: images to feature maps [b, h, w, c]; only their shape is found, nothing
            computed.
        head_fn: not used.
        images: grey values, uint8 or float, [b, ...].
        target: makes no difference.
        seed: of the values.

    Returns:
        float32 [b, h, w] in 0 <= value < 1; 0 has no meaning of its own.

    Raises:
        ValueError: an unknown target, or features not shaped as described.
    """
    x = jnp.asarray(images, jnp.float32)
    features = jax.eval_shape(features_fn, x)
    if len(features.shape) != 4:
        raise ValueError(f"features: expected [b, h, w, c], got {features.shape}")
    signs(target, jnp.zeros(len(x)))  # refuses what other methods refuse

    def draw(number: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(seed), number)
        return jax.random.uniform(key, features.shape[1:3], jnp.float32)

    return jax.vmap(draw)(_hashes(x))


def centre_prior(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target, *, sigma: float = 0.25
) -> Float32[Array, "b h w"]:
    """Returns the same Gaussian at the centre of every image: an observer who never looks.

        M_ij = exp(-(u_i^2 + v_j^2) / (2 sigma^2))

    u and v are the pixel centre's distances from the image's centre, as shares of the sides. Maps
    of where people look are held against such a prior (Judd et al. 2009), since what matters tends
    to be in the middle; so it does here, where a neck is centred in its scan. The width is a choice
    of this project, made without a look at any fracture.

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
    shape = jnp.shape(images)
    if len(shape) not in (3, 4):
        raise ValueError(f"images: expected [b, h, w] or [b, h, w, c], got {shape}")
    if not sigma > 0:
        raise ValueError(f"sigma: expected a share of the side above 0, got {sigma}")
    signs(target, jnp.zeros(shape[0]))  # refuses what other methods refuse
    u, v = ((jnp.arange(side, dtype=jnp.float32) + 0.5) / side - 0.5 for side in shape[1:3])
    one = jnp.exp(-(u[:, None] ** 2 + v[None] ** 2) / (2 * sigma**2))
    return jnp.broadcast_to(one[None], shape[:3])


def attention_maps(attention: Mapping[int, Any]) -> dict[str, Float32[Array, "b h w"]]:
    """Returns attention maps by name: ``attention_<k>`` for each kernel size and their mean.

    The mean, ``attention_mean``, is what the block weighs a pixel's features with, divided by the
    number of scales (paper 1 Eq. 5 and 6: the output is sum_k M_k F), so that it stays in 0..1.

    Args:
        attention: kernel size to maps [b, h, w], as ``Explanations.attention`` has them.

    Returns:
        In the order of the kernel sizes, the mean last; nothing for a network without attention.
        Values are in 0..1, the same for both classes; 0 is a pixel that is left out.
    """
    maps = {f"attention_{k}": jnp.asarray(attention[k], jnp.float32) for k in sorted(attention)}
    return maps | ({"attention_mean": jnp.stack([*maps.values()]).mean(axis=0)} if maps else {})


def attention_method(attention_fn: AttentionFn, name: str = "attention_mean") -> Method:
    """Returns a method, with the interface of all others, whose maps are a network's attention.

    Args:
        attention_fn: feature maps [b, h, w, c] to {kernel size: maps [b, h, w]}.
        name: a key of what :func:`attention_maps` returns.

    Raises:
        ValueError: (the method) the network has no such map, or the target is unknown.
    """

    def attention_map(
        features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target
    ) -> Float32[Array, "b h w"]:
        """Returns the attention maps of a batch of images, whatever the target."""
        maps = attention_maps(attention_fn(features_fn(images)))
        if name not in maps:
            raise ValueError(
                f"attention map: expected one of {', '.join(maps) or 'none (no attention)'}; "
                f"got {name!r}"
            )
        signs(target, jnp.zeros(len(maps[name])))  # refuses what other methods refuse
        return maps[name]

    return attention_map


def _hashes(x: Float32[Array, "b *rest"]) -> UInt32[Array, " b"]:
    """Returns a number an image that no other image is likely to have.

    The bits of every value are mixed (a bijection, the finaliser of MurmurHash3), multiplied by an
    odd number of the value's place, and added modulo 2^32: two images that differ in one value
    never have one hash, any other two by a chance of about 2^-32. Integer sums are exact in any
    order, so a hash depends on neither batch nor device.
    """
    bits = jax.lax.bitcast_convert_type(x.reshape(len(x), -1), jnp.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    places = jax.random.bits(jax.random.key(0), bits.shape[1:], jnp.uint32) | jnp.uint32(1)
    return (bits * places[None]).sum(axis=1, dtype=jnp.uint32)
