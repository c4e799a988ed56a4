"""The networks as a Keras 2.15 user writes them: a backbone, paper 1's attention, one logit."""

import keras_tables
import tensorflow as tf
from tensorflow import keras

APPLICATIONS = {
    "mobilenet_v1": keras.applications.MobileNet,
    "mobilenet_v2": keras.applications.MobileNetV2,
    "resnet50": keras.applications.ResNet50,
    "efficientnet_b0": keras.applications.EfficientNetB0,
    "convnext_tiny": keras.applications.ConvNeXtTiny,
}
TABLES = {"googlenet": keras_tables.googlenet, "lenet_alexnet": keras_tables.lenet_alexnet}


def attention(features: "keras.KerasTensor", kernel_size: int) -> "keras.KerasTensor":
    """Returns the features weighted by one spatial attention map (paper 1, Table 2)."""
    average = keras.layers.Lambda(lambda x: tf.reduce_mean(x, -1, keepdims=True))(features)
    maximum = keras.layers.Lambda(lambda x: tf.reduce_max(x, -1, keepdims=True))(features)
    descriptor = keras.layers.Concatenate()([average, maximum])
    weights = keras.layers.Conv2D(1, kernel_size, padding="same", activation="sigmoid")(descriptor)
    return keras.layers.Multiply()([features, weights])


def build(
    size: int,
    weights: str | None = None,
    metrics: tuple = (),
    *,
    backbone: str = "mobilenet_v1",
    kernel_sizes: tuple[int, ...] = (3, 5, 7),
) -> "keras.Model":
    """Returns the compiled network, which ends in one logit; by default paper 1's (Table 3).

    Args:
        size: side of the images in pixels.
        weights: a Keras file of the backbone without top, or None for initial values.
        metrics: as ``compile`` takes them.
        backbone: a key of ``APPLICATIONS`` or of ``TABLES``.
        kernel_sizes: of the attention; none for a network without it.
    """
    if backbone in TABLES:
        images = keras.Input((size, size, 3))
        out = TABLES[backbone](images)
    else:
        make = APPLICATIONS[backbone]
        base = make(weights=weights, include_top=False, input_shape=(size, size, 3))
        images, out = base.input, base.output
    if kernel_sizes:
        out = keras.layers.Add()([attention(out, k) for k in kernel_sizes])
    out = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(out))
    model = keras.Model(images, out)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=list(metrics))
    return model
