"""Infidelity and sensitivity: what a map predicts of small changes, and how it changes with them.

Both are from Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations".
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from msa_flax.saliency.masks import upsample
from msa_flax.saliency.trials import pixels
from msa_flax.saliency.trials.removal import DEFAULT, Settings

PATCH = 1 / 8  # side of a removed square, share of the image's side
RADIUS = 5.1  # of perturbations, grey levels: 2 % of the range


def infidelity(
    score_fn: pixels.ScoreFn,
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    signs: np.ndarray,
    settings: Settings = DEFAULT,
) -> dict[str, np.ndarray]:
    """Returns each map's infidelity (Yeh et al. 2019, Definition 2.1): the lower, the better.

    A square of the image is filled in, which takes the logit of the explained class from y to y_I;
    I is 1 inside the square and 0 elsewhere. A map M is taken as contributions, which is what
    Grad-CAM or integrated gradients claim to be: their sum should be the fall of the logit.

        INFD = mean over I of (b sum(I M) - (y - y_I))^2 / mean over I of (y - y_I)^2

    Most maps have no scale, so b is the best factor that is not negative. INFD is 0 for a map that
    predicts every fall, and 1 for one that does no better than an all-zero map. (Yeh et al. also
    allow a negative b, which would call a map faithful that says the opposite of the truth.)

    Costs samples + 1 calls of the model per image, for all maps together.

    Args:
        score_fn: as in :func:`msa_flax.saliency.trials.removal.removal_curves`.
        images: uint8 or float [n, s, s], 0..255.
        maps: name -> [n, h, w] of any resolution, resized to the images.
        signs: +1 where maps explain "fracture", -1 where "normal", [n].
        settings: fill, samples (the same squares for all maps, each wholly in the image), seed and
            batch size.

    Returns:
        name -> float64 [n]; NaN where no square changes the logit.

    Raises:
        SaliencyError: shapes, signs or values are not as described.
    """
    for values in maps.values():
        pixels.check_maps(images, values, signs)

    def squares(image: np.ndarray) -> np.ndarray:
        side = max(1, round(PATCH * len(image)))
        return _squares(len(image), side, settings.samples, pixels.own_rng(image, settings.seed))

    def pictures() -> Iterator[np.ndarray]:
        for image in images:
            yield image
            instead = pixels.filled(image, settings.fill)
            for square in squares(image):
                yield np.where(square > 0, instead, image)

    logits = pixels.logits_of(score_fn, pictures(), settings.batch_size).reshape(len(images), -1)
    falls = (logits[:, :1] - logits[:, 1:]) * np.asarray(signs)[:, None]
    scores = {name: np.full(len(images), np.nan) for name in maps}
    for i, image in enumerate(images):
        drawn = squares(image)
        for name, values in maps.items():
            expected = np.tensordot(drawn, upsample(values[i], len(image)).astype(np.float64), 2)
            scores[name][i] = _missed_share(expected, falls[i])
    return scores


def sensitivity_max(
    explain_fn: Callable[[np.ndarray], Any],
    images: np.ndarray,
    *,
    samples: int = 10,
    seed: int = 0,
    batch_size: int = 32,
) -> np.ndarray:
    """Returns how far a map moves when the image hardly does (Yeh et al. 2019, Definition 3.1).

    It is the largest |M(x + e) - M(x)| / |M(x)| over perturbations e that change every pixel by at
    most ``RADIUS``, drawn uniformly; | | is the Euclidean norm. It is a lower bound of the
    supremum and grows with the number of samples. That a map is stable says nothing about its
    truth: one that is always the same has 0. Costs samples + 1 explanations per image.

    Args:
        explain_fn: images float32 [batch_size, s, s] -> maps [batch_size, h, w]; always called with
            that many images. Pixels may lie outside 0..255 by the radius.
        images: uint8 or float [n, s, s], 0..255.
        samples: perturbations per image.
        seed: of the perturbations.
        batch_size: images per call.

    Returns:
        float64 [n]; NaN where the map of the image itself is all zero.
    """

    def pictures() -> Iterator[np.ndarray]:
        for image in images:
            yield image
            rng = pixels.own_rng(image, seed)
            for _ in range(samples):
                yield image + rng.uniform(-RADIUS, RADIUS, image.shape)

    scores = np.full(len(images), np.nan)
    for i, saliency in enumerate(pixels.in_batches(explain_fn, pictures(), batch_size)):
        image, sample = divmod(i, samples + 1)
        if sample == 0:
            original, moved = saliency.astype(np.float64), 0.0
            norm = float(np.linalg.norm(original))
        moved = max(moved, float(np.linalg.norm(saliency - original)))
        if norm > 0:
            scores[image] = moved / norm
    return scores


def _squares(size: int, side: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns squares in random places, 1 inside: float64 [count, size, size]."""
    drawn = np.zeros((count, size, size))
    for square, (row, column) in zip(
        drawn, rng.integers(0, size - side + 1, (count, 2)), strict=True
    ):
        square[row : row + side, column : column + side] = 1
    return drawn


def _missed_share(expected: np.ndarray, falls: np.ndarray) -> float:
    """Returns which share of the falls' squares the expected ones miss, scaled at their best."""
    total = float(falls @ falls)
    if total == 0:
        return np.nan
    square = float(expected @ expected)
    best = max(0.0, float(expected @ falls) / square) if square > 0 else 0.0
    return float(np.sum((best * expected - falls) ** 2)) / total
