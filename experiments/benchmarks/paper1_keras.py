"""Paper 1's experiment as a Keras 2.15 user writes it: the same job as experiments/paper1_msa.py.

    python paper1_keras.py --root DIR --weights FILE.h5 [--epochs 15] [--seed 0]

runs in the Keras environment; whole.py beside it does that. DIR/{train,val}/{fracture,normal}/*.png
is kept in memory as grey uint8 pixels, val/ is the test set, and a fifth of train/ is held out for
validation, class by class. Ends with one line of JSON.
"""

import argparse
import json
import pathlib
import time

import numpy as np
import tensorflow as tf
from keras_network import build
from tensorflow import keras

CLASSES = ("normal", "fracture")
Data = tuple[np.ndarray, np.ndarray]


def load(root: pathlib.Path, size: int) -> Data:
    """Returns uint8 images [n, s, s, 1] and labels [n] of ROOT/{normal,fracture}/*.png."""
    images, labels = [], []
    for label, name in enumerate(CLASSES):
        for path in sorted((root / name).glob("*.png")):
            image = tf.io.decode_png(tf.io.read_file(str(path)), channels=1)
            images.append(tf.cast(tf.round(tf.image.resize(image, (size, size))), tf.uint8).numpy())
            labels.append(label)
    return np.stack(images), np.array(labels, np.float32)


def split(images: np.ndarray, labels: np.ndarray, *, fraction: float, seed: int) -> list[Data]:
    """Returns what is trained on, and ``fraction`` of each class for validation."""
    rng, held = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label in range(len(CLASSES)):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held[rows[: round(fraction * len(rows))]] = True
    return [(images[chosen], labels[chosen]) for chosen in (~held, held)]


def dataset(images: np.ndarray, labels: np.ndarray, seed: int | None = None) -> tf.data.Dataset:
    """Returns batches of what the network takes; shuffled where there is a seed."""

    def scale(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.image.grayscale_to_rgb(tf.cast(image, tf.float32) / 255), label[:, None]

    found = tf.data.Dataset.from_tensor_slices((images, labels))
    if seed is not None:
        found = found.shuffle(len(images), seed=seed)
    return found.batch(16).map(scale, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def main() -> None:
    """Trains, then evaluates validation and test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--weights", required=True, help="a Keras file of MobileNet without top")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.perf_counter()
    keras.utils.set_random_seed(options.seed)
    test = load(options.root / "val", options.size)
    training, validation = split(
        *load(options.root / "train", options.size), fraction=0.2, seed=options.seed
    )
    # Thresholds on the logit: probability 0.5 is logit 0.
    metrics = (
        keras.metrics.BinaryAccuracy("accuracy", threshold=0.0),
        keras.metrics.AUC(name="auc", from_logits=True),
    )
    model = build(options.size, options.weights, metrics)
    ready = time.perf_counter()
    model.fit(
        dataset(*training, seed=options.seed),
        epochs=options.epochs,
        validation_data=dataset(*validation),
        verbose=2,
    )
    trained = time.perf_counter()
    scores = {
        name: model.evaluate(dataset(*data), verbose=0, return_dict=True)
        for name, data in (("validation", validation), ("test", test))
    }
    seconds = {"train": trained - ready, "all": time.perf_counter() - began}
    print(json.dumps({"seconds": seconds, **scores}))


if __name__ == "__main__":
    main()
