"""Tables of predictions for tests, from labels and logits."""

import dataclasses

import numpy as np

from msa_flax.evaluation.predictions import Predictions, sigmoid


def predictions_of(labels, logits, group="", *, split="test", **columns):
    """Returns the table of images with these labels and logits; other columns replace defaults."""
    n, logits = len(labels), np.asarray(logits, np.float32)
    defaults = {
        "example_id": np.array([f"{i:04d}.png" for i in range(n)]),
        "split": np.full(n, split),
        "fold": np.full(n, ""),
        "group": np.broadcast_to(group, n),
        "family": np.full(n, ""),
        "label": np.asarray(labels),
        "logit": logits,
        "probability": sigmoid(logits),
    }
    return Predictions(**(defaults | columns))


def random_predictions(split, n=80, *, seed=0, groups=20, logits=None, labels=None):
    """Returns images in pairs of a group, logits three times too large for their noise.

    ``groups`` is their number, 0 where they are unknown, None for a group per image.
    """
    rng = np.random.default_rng(seed)
    if labels is None:
        labels = np.arange(n) % 2
    if logits is None:
        logits = 3 * rng.normal(labels - 0.5, 1)
    n = len(logits)
    numbers = np.arange(n) if groups is None else np.arange(n) // 2 % max(groups, 1)
    return predictions_of(
        labels,
        logits,
        "" if groups == 0 else np.char.mod("g%d", numbers),
        split=split,
        example_id=np.char.mod(f"{split} %03d.png", rng.permutation(n)),
    )


def mostly_right(n=120, *, groups=12, seed=0, label=None, spread=1.5, ids=None, ties=False):
    """Returns images of both classes in turn, most of them right at a threshold of 0.5.

    ``groups`` are of equal size, 0 for unknown ones; ``label`` is that of all images, or of each.
    The larger ``spread``, the more errors there are. ``ids`` are names of some images by their row;
    with ``ties`` probabilities have two digits.
    """
    labels = np.arange(n) % 2 if label is None else np.full(n, label)
    logits = np.random.default_rng(seed).normal(0, spread, n) + (2 * labels - 1)
    names = [(ids or {}).get(i, f"img {i:04d}.png") for i in range(n)]
    group = np.array([f"G{i * groups // n:02d}" if groups else "" for i in range(n)])
    table = predictions_of(labels, logits, group, example_id=np.array(names))
    rounded = np.round(table.probability, 2).astype(np.float32)
    return dataclasses.replace(table, probability=rounded) if ties else table
