"""The networks that Keras does not have, as a Keras 2.15 user writes them from the same tables.

Which choices the papers leave open, and how they are made: ``msa_flax/models/googlenet.py`` and
``lenet_alexnet.py``.
"""

import tensorflow as tf
from inceptions import INCEPTIONS
from tensorflow import keras


class Subsample(keras.layers.Layer):
    """The sum of 2 x 2 pixels, times a gain, plus a bias (LeCun et al. 1998)."""

    def build(self, shape: tuple) -> None:
        """Makes gain and bias."""
        quarter = keras.initializers.Constant(0.25)
        self.gain = self.add_weight("gain", (shape[-1],), initializer=quarter)
        self.bias = self.add_weight("bias", (shape[-1],), initializer="zeros")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the map at half its size."""
        return 4 * tf.nn.avg_pool2d(x, 2, 2, "VALID") * self.gain + self.bias


def conv(x: "keras.KerasTensor", channels: int, size: int, **more: object) -> "keras.KerasTensor":
    """Returns convolution and ReLU, with ``same`` padding unless told otherwise."""
    more = {"padding": "same", "activation": "relu"} | more
    return keras.layers.Conv2D(channels, size, **more)(x)


def normalised(x: "keras.KerasTensor", k: float, alpha: float) -> "keras.KerasTensor":
    """Returns local response normalisation over five channels."""
    return keras.layers.Lambda(lambda x: tf.nn.local_response_normalization(x, 2, k, alpha, 0.75))(
        x
    )


def googlenet(images: "keras.KerasTensor") -> "keras.KerasTensor":
    """Returns the last feature map."""
    pool = keras.layers.MaxPooling2D
    x = normalised(pool(3, 2, "same")(conv(images, 64, 7, strides=2)), 1.0, 1e-4 / 5)
    x = normalised(conv(conv(x, 64, 1), 192, 3), 1.0, 1e-4 / 5)
    for stage in INCEPTIONS:
        x = pool(3, 2, "same")(x)
        for direct, reduce_3, conv_3, reduce_5, conv_5, projected in stage:
            branches = [
                conv(x, direct, 1),
                conv(conv(x, reduce_3, 1), conv_3, 3),
                conv(conv(x, reduce_5, 1), conv_5, 5),
                conv(pool(3, 1, "same")(x), projected, 1),
            ]
            x = keras.layers.Concatenate()(branches)
    return x


def lenet_alexnet(images: "keras.KerasTensor") -> "keras.KerasTensor":
    """Returns the last feature maps of both networks, side by side."""
    pool = keras.layers.MaxPooling2D
    x = keras.layers.ZeroPadding2D(((1, 2), (1, 2)))(images)
    x = pool(3, 2)(normalised(conv(x, 96, 11, strides=4, padding="valid"), 2.0, 1e-4))
    x = pool(3, 2)(normalised(conv(x, 256, 5), 2.0, 1e-4))
    deep = pool(3, 2)(conv(conv(conv(x, 384, 3), 384, 3), 256, 3))
    side = 28 + 4 * deep.shape[1]
    grey = keras.layers.Lambda(lambda x: tf.reduce_mean(x, -1, keepdims=True))(images)
    y = keras.layers.Lambda(lambda x: tf.image.resize(x, (side, side), antialias=True))(grey)
    squash = keras.layers.Lambda(lambda x: 1.7159 * tf.tanh(x * (2 / 3)))
    for channels, subsampled in ((6, True), (16, True), (120, False)):
        y = squash(conv(y, channels, 5, padding="valid", activation=None))
        y = squash(Subsample()(y)) if subsampled else y
    return keras.layers.Concatenate()([deep, y])
