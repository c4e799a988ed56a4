"""Classifiers: a backbone, optional attention, and a head that ends in one logit.

The logit is that of the positive class (fracture); the sigmoid lives in the loss and in prediction.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from msa_flax.models.layers import kernel_init


class Head(nn.Module):
    """Global average pooling and dense layers.

    Attributes:
        kind: "logit": one dense unit (paper 1). "softmax2": two units and a softmax (paper 2
            Eq. 11-13); the softmax probability of fracture is the sigmoid of the difference of the
            two, which is what is returned. "dense256": 256 units with ReLU, then one (paper 2
            Eq. 14-15).
        dropout: rate before the last dense layer.
    """

    kind: str = "logit"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"], *, train: bool) -> Float[Array, " b"]:
        """Returns one logit an image, computed in float32 whatever the type of the features."""
        x = jnp.mean(features, axis=(1, 2), dtype=jnp.float32)
        if self.kind == "dense256":
            x = nn.relu(nn.Dense(256, kernel_init=kernel_init, name="dense")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        if self.kind == "softmax2":
            scores = nn.Dense(2, kernel_init=kernel_init, name="scores")(x)
            return scores[:, 1] - scores[:, 0]
        return nn.Dense(1, kernel_init=kernel_init, name="logit")(x)[:, 0]


class Classifier(nn.Module):
    """``head(features(images))``: the one interface that training, evaluation and saliency use.

    Attributes:
        backbone: module [b, h, w, 3] -> [b, fh, fw, c].
        attention: module [b, fh, fw, c] -> the same shape, or None.
        classifier: module [b, fh, fw, c] -> [b].
    """

    backbone: nn.Module
    attention: nn.Module | None
    classifier: nn.Module

    def features(
        self, images: Float[Array, "b h w 3"], *, train: bool = False
    ) -> Float[Array, "b fh fw c"]:
        """Returns the backbone's last feature map, before the attention."""
        return self.backbone(images, train=train)

    def head(
        self, features: Float[Array, "b fh fw c"], *, train: bool = False
    ) -> Float[Array, " b"]:
        """Returns the logit from a feature map: attention, pooling, dense layers."""
        if self.attention is not None:
            features = self.attention(features)
        return self.classifier(features, train=train)

    def __call__(
        self,
        images: Float[Array, "b h w 3"],
        *,
        train: bool = False,
    ) -> Float[Array, " b"]:
        """Returns one logit an image."""
        return self.head(self.features(images, train=train), train=train)


class ImageNetClassifier(nn.Module):
    """A backbone with Keras's 1,000-class top: shows that converted weights do what they did.

    Attributes:
        backbone: module [b, h, w, 3] -> [b, fh, fw, c].
    """

    backbone: nn.Module

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b 1000"]:
        """Returns the class logits, before the softmax."""
        features = self.backbone(images, train=False)
        return nn.Dense(1000, kernel_init=kernel_init, name="predictions")(features.mean((1, 2)))
