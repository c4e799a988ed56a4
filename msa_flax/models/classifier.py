"""The classifier: a backbone, optional attention, and a head that ends in one logit.

The logit is that of the positive class, fracture. The sigmoid is part of the loss and of what
predicts.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from msa_flax.models.layers import glorot_uniform


class Head(nn.Module):
    """Global average pooling and dense layers.

    Attributes:
        kind: which dense layers.
            "logit": one unit (paper 1).
            "softmax2": two units and a softmax (paper 2, Eq. 11-13). The softmax probability of
            fracture is the sigmoid of the difference of the two units; that difference is returned.
            "dense256": 256 units with a ReLU, then one unit (paper 2, Eq. 14-15).
        dropout: rate of the dropout before the last dense layer.
    """

    kind: str = "logit"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"], *, train: bool) -> Float[Array, " b"]:
        """Returns one logit per image, computed in float32 whatever the type of the features."""
        x = jnp.mean(features, axis=(1, 2), dtype=jnp.float32)
        if self.kind == "dense256":
            x = nn.relu(nn.Dense(256, kernel_init=glorot_uniform, name="dense")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        if self.kind == "softmax2":
            scores = nn.Dense(2, kernel_init=glorot_uniform, name="scores")(x)
            return scores[:, 1] - scores[:, 0]
        return nn.Dense(1, kernel_init=glorot_uniform, name="logit")(x)[:, 0]


class Classifier(nn.Module):
    """Computes ``head(features(images))``: the interface of training, evaluation and saliency.

    Attributes:
        backbone: module from images to a feature map [b, fh, fw, c]. Images have three channels,
            or one that stands for three equal ones.
        attention: module from a feature map to one of the same shape, or None.
        classifier: module from a feature map to logits [b].
        at_once: images that prediction on a CPU is fastest with at a time.
    """

    backbone: nn.Module
    attention: nn.Module | None
    classifier: nn.Module
    at_once: int = 4

    def features(
        self, images: Float[Array, "b h w colours"], *, train: bool = False
    ) -> Float[Array, "b fh fw c"]:
        """Returns the backbone's last feature map, before the attention."""
        return self.backbone(images, train=train)

    def head(
        self, features: Float[Array, "b fh fw c"], *, train: bool = False
    ) -> Float[Array, " b"]:
        """Returns one logit per feature map: attention, pooling, dense layers."""
        if self.attention is not None:
            features = self.attention(features)
        return self.classifier(features, train=train)

    def describe(
        self, images: Float[Array, "b h w colours"], *, train: bool = False
    ) -> tuple[Float[Array, " b"], Float[Array, "b c"]]:
        """Returns one logit per image, and the mean of each of the backbone's feature maps."""
        features = self.features(images, train=train)
        pooled = jnp.mean(features, axis=(1, 2), dtype=jnp.float32)
        return self.head(features, train=train), pooled

    def __call__(
        self, images: Float[Array, "b h w colours"], *, train: bool = False
    ) -> Float[Array, " b"]:
        """Returns one logit per image."""
        return self.head(self.features(images, train=train), train=train)
