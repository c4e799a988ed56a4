"""Paper 1's stack, timed on request: Keras 2.15 on TensorFlow 2.15, in its own environment.

Training is ``train_on_batch``, prediction a call of the model compiled by ``tf.function``.
"""

from importlib.metadata import version

import tensorflow as tf
import worker
from keras_network import build


def main() -> None:
    """Answers requests until its input ends."""
    options = worker.options()
    if options.bf16:
        raise SystemExit("this environment is TensorFlow for the CPU, timed in float32 only")
    model = build(
        options.size,
        backbone=worker.backbone(options.network),
        kernel_sizes=(3, 5, 7) if options.network == worker.PAPER1 else (),
    )

    def train(batch: int, count: int) -> worker.Turn:
        images = tf.constant(worker.ready_images(batch, options.size))
        labels = tf.constant(worker.labels(batch)[:, None])
        return lambda: worker.timed(lambda: model.train_on_batch(images, labels), count)

    def infer(batch: int, count: int) -> worker.Turn:
        images = tf.constant(worker.ready_images(batch, options.size))
        predict = tf.function(lambda x: model(x, training=False))
        return lambda: worker.timed(lambda: predict(images).numpy(), count)

    worker.serve(
        {"train": train, "infer": infer},
        versions={"Keras": version("keras"), "TensorFlow": tf.__version__},
        parameters=model.count_params(),
    )


main()
