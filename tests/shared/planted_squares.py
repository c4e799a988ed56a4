"""Images with one bright square each, a model that adds up what is bright, and their maps."""

import numpy as np

from msa_flax.saliency.trials.examine import assess
from msa_flax.saliency.trials.removal import Settings

BATCH, SIZE, COUNT = 32, 12, 24
QUICK = Settings(steps=4, fractions=(0.3,), samples=24, batch_size=BATCH)


def planted(count, seed):
    """Smooth images with a bright square anywhere; the square; the centre; nothing."""
    rng = np.random.default_rng([3, seed])
    images = np.kron(rng.integers(60, 100, (count, 3, 3)), np.ones((1, 4, 4)))
    truth = np.zeros(images.shape)
    for image, mask, (y, x) in zip(
        images, truth, rng.integers(0, SIZE - 3, (count, 2)), strict=True
    ):
        image[y : y + 3, x : x + 3] = 220
        mask[y : y + 3, x : x + 3] = 1
    away = np.hypot(*(np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2))
    return images.astype(np.uint8), {
        "truth": truth,
        "random_map": rng.random(images.shape),
        "centre_prior": np.tile(np.exp(-((away / 4) ** 2)), (count, 1, 1)),
        "other random": rng.random(images.shape),
    }


def bright(pictures):
    assert pictures.shape == (BATCH, SIZE, SIZE)
    return np.maximum(np.asarray(pictures, np.float64) - 130, 0).sum(axis=(1, 2)) / 100 - 3


IMAGES, MAPS = planted(COUNT, 0)
SIGNS = np.ones(COUNT)
GROUPS = np.array([f"patient {i // 2}" for i in range(COUNT)])
MASKS = (MAPS["truth"] * 255).astype(np.uint8)


def results():
    """Returns what all measures say of all maps, with verdicts."""
    return assess(MAPS, IMAGES, bright, signs=SIGNS, groups=GROUPS, masks=MASKS, settings=QUICK)
