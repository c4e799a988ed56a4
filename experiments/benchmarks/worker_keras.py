"""Paper 1's stack, timed on request: MobileNet + MSA in Keras 2.15, one training step at a time.

Started by versus.py in an environment of its own; reads "go" and answers with milliseconds a step.
"""

import json
import os
import resource
import sys
import time
from importlib.metadata import version

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
from tensorflow import keras


def attention(features: "keras.KerasTensor", kernel_size: int) -> "keras.KerasTensor":
    """Paper 1's Table 2."""
    average = keras.layers.Lambda(lambda x: tf.reduce_mean(x, -1, keepdims=True))(features)
    maximum = keras.layers.Lambda(lambda x: tf.reduce_max(x, -1, keepdims=True))(features)
    descriptor = keras.layers.Concatenate()([average, maximum])
    weights = keras.layers.Conv2D(1, kernel_size, padding="same", activation="sigmoid")(descriptor)
    return keras.layers.Multiply()([features, weights])


def build(size: int) -> "keras.Model":
    """Paper 1's Table 3 on Keras's MobileNet."""
    base = keras.applications.MobileNet(
        weights=None, include_top=False, input_shape=(size, size, 3)
    )
    out = keras.layers.Add()([attention(base.output, k) for k in (3, 5, 7)])
    out = keras.layers.GlobalAveragePooling2D()(out)
    model = keras.Model(base.input, keras.layers.Dense(1, activation="sigmoid")(out))
    model.compile(optimizer="adam", loss="binary_crossentropy")
    return model


def main() -> None:
    """Answers requests until its input ends."""
    batch, size, steps = (int(value) for value in sys.argv[1:])
    model = build(size)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.random((batch, size, size, 3), np.float32))
    labels = tf.constant(rng.integers(0, 2, (batch, 1)).astype(np.float32))
    model.train_on_batch(images, labels)
    print(json.dumps({"ready": f"Keras {version('keras')}, TF {tf.__version__}"}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for _ in range(steps):
            model.train_on_batch(images, labels)
        taken = (time.perf_counter() - began) / steps * 1e3
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"ms": taken, "peak_gib": peak}), flush=True)


main()
