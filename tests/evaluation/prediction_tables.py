"""Tables of predictions for tests, from labels and logits."""

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
