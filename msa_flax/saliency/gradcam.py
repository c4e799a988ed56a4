"""Grad-CAM, and the one interface of everything that explains a single logit by a map."""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

FeaturesFn = Callable[[Any], Float[Array, "b h w c"]]  # of images [b, ...]
HeadFn = Callable[[Float[Array, "b h w c"]], Float[Array, " b"]]
Target = Literal["fracture", "normal"] | Array

SIGNS = {"fracture": 1.0, "normal": -1.0}


class SaliencyMethod(Protocol):
    """Explains images by maps; no hooks: the network is given in two halves."""

    def __call__(
        self, features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target
    ) -> Float32[Array, "b h w"]:
        """Returns maps [b, h, w] at the resolution of the features."""


def gradcam(
    features_fn: FeaturesFn, head_fn: HeadFn, images: Any, target: Target
) -> Float32[Array, "b h w"]:
    """Returns the Grad-CAM maps of a batch of images, raw: neither normalised nor resized.

    With the feature maps F = features_fn(images), the logit y = head_fn(F) and the score
    s y, where s is +1 for "fracture" and -1 for "normal" (one logit speaks for both classes):

        w_c  = 1/(h w) sum_ij d(s y)/dF_ijc        (Selvaraju et al. 2017, Eq. 1)
        L_ij = ReLU(sum_c w_c F_ijc)               (Selvaraju et al. 2017, Eq. 2)

    Paper 1 §3.2.3 applies it to the last convolutional layer of the backbone. The whole batch is
    differentiated at once; that gives each image its own gradient because no image influences
    another one's logit (BatchNorm in inference mode). A global average pool followed by a linear
    layer with kernel k gives ReLU(CAM)/(h w), with CAM_ij = sum_c k_c F_ijc.

    Args:
        features_fn: images to feature maps [b, h, w, c].
        head_fn: feature maps to logits [b].
        images: whatever ``features_fn`` takes, b images.
        target: the class to explain, or an array [b] of +1 (fracture) and -1 (normal).

    Returns:
        float32 [b, h, w], not negative. All zero means that nothing speaks for the target.

    Raises:
        ValueError: the target is an unknown name, or the shapes are not as described.
    """
    features = features_fn(images)
    logits, pull_back = jax.vjp(head_fn, features)
    if features.ndim != 4 or logits.shape != features.shape[:1]:
        raise ValueError(
            "gradcam: expected features [b, h, w, c] and logits [b], "
            f"got {features.shape} and {logits.shape}"
        )
    (gradients,) = pull_back(_signs(target, logits))
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    # A product and a sum, not a matrix product: those lose digits on accelerators by default.
    return jax.nn.relu((weights * features).sum(axis=-1)).astype(jnp.float32)


def _signs(target: Target, logits: Float[Array, " b"]) -> Float[Array, " b"]:
    if isinstance(target, str):
        if target not in SIGNS:
            raise ValueError(f"target: expected one of {', '.join(SIGNS)}; got {target!r}")
        return jnp.full_like(logits, SIGNS[target])
    signs = jnp.asarray(target, logits.dtype)
    if signs.shape != logits.shape:
        raise ValueError(f"target: expected one sign an image, {logits.shape}; got {signs.shape}")
    return signs
