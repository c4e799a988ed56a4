"""Training batches: shuffled by (seed, epoch), always full, each example counted once per epoch."""

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from msa_flax.data.augment import augment_batch
from msa_flax.data.stored import fetch


def hide_gpu() -> None:
    """Keeps TensorFlow off the GPU, whose memory it would otherwise take away from JAX."""
    with contextlib.suppress(RuntimeError):  # TensorFlow is in use already: the caller's decision
        tf.config.set_visible_devices([], "GPU")


hide_gpu()


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Returns the number of steps that show every one of n examples once: ceil(n / batch_size)."""
    return -(-n // batch_size)


def train_dispatches(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    steps_per_dispatch: int,
    seed: int,
    epoch: int,
    start_step: int = 0,
    augment: bool = False,
    rows: np.ndarray | None = None,
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Yields the batches of one epoch, K = steps_per_dispatch of them stacked at a time.

    The order is a pure function of (seed, epoch). The last batch of an epoch is filled up with the
    first images of that epoch's order, at weight 0: BatchNorm sees a full batch of real images,
    while loss and metrics, weighted, count every example exactly once. The last dispatch is filled
    up with steps of weight 0, to be skipped.

    Augmented images are a pure function of (image, seed, epoch, row), see
    :func:`msa_flax.data.augment.augment_batch`: they depend neither on the order nor on the step at
    which an epoch is continued, and an image that fills up the last batch looks as before.

    Args:
        images: uint8 [n or more, s, s], or anything else with one row per image, such as feature
            maps float16 [n, fh, fw, c]; not copied.
        labels: [n], 0 or 1.
        batch_size: images per step, b.
        steps_per_dispatch: K >= 1.
        seed: the run's seed, >= 0.
        epoch: >= 0.
        start_step: steps of this epoch that have been made before.
        augment: whether images are rotated, flipped and scaled (``config.data.augment``).
        rows: of ``images``, those of the n examples, int [n]; None: they are all. Images of a file
            are read from there batch by batch.

    Yields:
        ``{"image": uint8 [K, b, s, s], "label": float32 [K, b], "weight": float32 [K, b],
        "index": int32 [K, b]}`` and how many of the K steps are to be made, 1..K.
    """
    index, weight, steps = _plan(
        len(labels), batch_size, steps_per_dispatch, seed=seed, epoch=epoch, start_step=start_step
    )
    labels = np.asarray(labels, np.float32)
    rows = np.arange(len(images)) if rows is None else rows

    def gather(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        picked = fetch(images, rows[chosen])
        if augment:
            picked = augment_batch(picked, chosen, seed=seed, epoch=epoch)
        return picked, labels[chosen]

    def batches(chosen: tf.Tensor, weights: tf.Tensor) -> dict[str, tf.Tensor]:
        # A NumPy function, because a tensor of all the images would be a second copy of them.
        image, label = tf.numpy_function(
            gather, [chosen], (images.dtype, tf.float32), stateful=False
        )
        return {"image": image, "label": label, "weight": weights, "index": chosen}

    # There is nothing to tune, and TensorFlow's tuner can make an iterator that has reached its end
    # wait for up to a minute, until the tuner notices that it is no longer needed.
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_tensor_slices((index, weight)).map(batches).prefetch(2)
    dataset = dataset.with_options(options)
    for done, batch in enumerate(dataset.as_numpy_iterator()):
        yield batch, min(steps_per_dispatch, steps - done * steps_per_dispatch)


def _plan(
    n: int, batch_size: int, steps_per_dispatch: int, *, seed: int, epoch: int, start_step: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns indices and weights, both [dispatches, K, b], and the number of real steps."""
    order = np.random.default_rng([seed, epoch]).permutation(n).astype(np.int32)
    shape = (steps_per_epoch(n, batch_size), batch_size)
    index = np.resize(order, shape)  # repeats the order from its beginning, as often as needed
    weight = (np.arange(index.size) < n).astype(np.float32).reshape(shape)
    index, weight = index[start_step:], weight[start_step:]
    steps = len(index)
    missing = -steps % steps_per_dispatch
    index = np.concatenate([index, np.repeat(index[:1], missing, axis=0)])
    weight = np.concatenate([weight, np.zeros((missing, batch_size), np.float32)])
    dispatches = (-1, steps_per_dispatch, batch_size)
    return index.reshape(dispatches), weight.reshape(dispatches), steps
