"""Paper 1's stack, timed on request: Keras 2.15 on TensorFlow 2.15, in its own environment.

Training is ``train_on_batch``, prediction a call of the model compiled by ``tf.function``.
"""

from importlib.metadata import version

import protocol
import tensorflow as tf
from keras_network import build


def main() -> None:
    """Answers requests until its input ends."""
    options = protocol.options()
    if options.bf16:
        raise SystemExit("this environment is TensorFlow for the CPU, timed in float32 only")
    model = build(options.size)

    def train(batch: int, count: int) -> protocol.Turn:
        images = tf.constant(protocol.ready_images(batch, options.size))
        labels = tf.constant(protocol.labels(batch)[:, None])
        return lambda: protocol.timed(lambda: model.train_on_batch(images, labels), count)

    def infer(batch: int, count: int) -> protocol.Turn:
        images = tf.constant(protocol.ready_images(batch, options.size))
        predict = tf.function(lambda x: model(x, training=False))
        return lambda: protocol.timed(lambda: predict(images).numpy(), count)

    protocol.serve(
        {"train": train, "infer": infer},
        versions={"Keras": version("keras"), "TensorFlow": tf.__version__},
        parameters=model.count_params(),
    )


main()
