"""Paper 1's network as a Keras 2.15 user writes it: MobileNet and multi-scale spatial attention."""

import tensorflow as tf
from tensorflow import keras


def attention(features: "keras.KerasTensor", kernel_size: int) -> "keras.KerasTensor":
    """Returns the features weighted by one spatial attention map (paper 1, Table 2)."""
    average = keras.layers.Lambda(lambda x: tf.reduce_mean(x, -1, keepdims=True))(features)
    maximum = keras.layers.Lambda(lambda x: tf.reduce_max(x, -1, keepdims=True))(features)
    descriptor = keras.layers.Concatenate()([average, maximum])
    weights = keras.layers.Conv2D(1, kernel_size, padding="same", activation="sigmoid")(descriptor)
    return keras.layers.Multiply()([features, weights])


def build(size: int, weights: str | None = None, metrics: tuple = ()) -> "keras.Model":
    """Returns the compiled network (paper 1, Table 3), which ends in one logit.

    Args:
        size: side of the images in pixels.
        weights: a Keras file of MobileNet without top, or None for initial values.
        metrics: as ``compile`` takes them.
    """
    shape = (size, size, 3)
    base = keras.applications.MobileNet(weights=weights, include_top=False, input_shape=shape)
    out = keras.layers.Add()([attention(base.output, k) for k in (3, 5, 7)])
    out = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(out))
    model = keras.Model(base.input, out)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=list(metrics))
    return model
