"""Infidelity and sensitivity: what a map predicts of small changes, and how it changes with them.

Both are of Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations".
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from msa_flax.saliency.removal import (
    Fill,
    ScoreFn,
    check,
    each,
    evaluate,
    filled,
    generator,
)
from msa_flax.saliency.render import SaliencyError, upsample

Perturbation = Literal["patch", "noise"]

PATCH = 1 / 8  # side of a removed square, share of the image's side
DEVIATION = 25.5  # grey levels: a tenth of the range
RADIUS = 5.1  # grey levels: 2 % of the range
SAMPLES = 32


def infidelity(
    score_fn: ScoreFn,
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    signs: np.ndarray,
    perturbation: Perturbation = "patch",
    patch: float = PATCH,
    fill: Fill = "blur",
    deviation: float = DEVIATION,
    samples: int = SAMPLES,
    relative: bool = True,
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, np.ndarray]:
    """Returns each map's infidelity (Yeh et al. 2019, Definition 2.1): the lower, the better.

    With a perturbation I that takes the logit of the explained class from y to y_I, and a map M:

        INFD = mean over I of (b sum(I M) - (y - y_I))^2,   b = 1

    The two perturbations suit two kinds of map. "patch" fills in a square; I is 1 inside it and 0
    elsewhere, so that M is taken as contributions (what Grad-CAM or integrated gradients claim to
    be): their sum is the fall of the logit. "noise" subtracts Gaussian noise, which is I, so that M
    is taken as a gradient, in logits a grey level. Neither says much about maps of the other kind.

    Most maps have no scale. So by default b is the best one that is not negative, and INFD is given
    as a share of the mean of (y - y_I)^2: 0 for a map that predicts every fall, 1 for one that does
    no better than an all-zero map. (Yeh et al. also allow a negative b, which would call a map that
    says the opposite of the truth faithful.)

    Costs samples + 1 calls of the model an image, for all maps together.

    Args:
        score_fn: as in :func:`msa_flax.saliency.faithfulness.deletion`.
        images: uint8 or float [n, s, s], 0..255.
        maps: name -> [n, h, w] of any resolution, resized to the images.
        signs: +1 where maps explain "fracture", -1 where "normal", [n].
        perturbation: "patch" or "noise".
        patch: side of the square, share of the image's side; it lies wholly in the image.
        fill: what the square is filled with.
        deviation: of the noise, grey levels.
        samples: perturbations an image, the same for all maps.
        relative: whether INFD is a share, as described; otherwise b = 1, and maps need a scale.
        seed: of the perturbations.
        batch_size: images a call.

    Returns:
        name -> float64 [n]; relative ones are NaN where no perturbation changes the logit.

    Raises:
        SaliencyError: shapes, signs or values are not as described.
    """
    for values in maps.values():
        check(images, values, signs)
    if perturbation not in ("patch", "noise"):
        raise SaliencyError(f"perturbation: expected patch or noise, got {perturbation!r}")

    def weights(image: np.ndarray) -> np.ndarray:
        rng = generator(image, seed)
        if perturbation == "noise":
            return deviation * rng.standard_normal((samples, *image.shape))
        return _squares(len(image), max(1, round(patch * len(image))), samples, rng)

    def pictures() -> Iterator[np.ndarray]:
        for image in images:
            yield image
            instead = filled(image, fill)
            for weight in weights(image):
                yield (
                    image - weight
                    if perturbation == "noise"
                    else np.where(weight > 0, instead, image)
                )

    logits = evaluate(score_fn, pictures(), batch_size).reshape(len(images), samples + 1)
    falls = (logits[:, :1] - logits[:, 1:]) * np.asarray(signs)[:, None]
    found: dict[str, list[float]] = {name: [] for name in maps}
    for i, image in enumerate(images):
        drawn = weights(image)
        for name, values in maps.items():
            expected = np.tensordot(drawn, upsample(values[i], len(image)).astype(np.float64), 2)
            found[name].append(_mean_square(expected, falls[i], relative))
    return {name: np.array(values) for name, values in found.items()}


def sensitivity_max(
    explain_fn: Callable[[np.ndarray], Any],
    images: np.ndarray,
    *,
    radius: float = RADIUS,
    samples: int = 10,
    seed: int = 0,
    batch_size: int = 32,
) -> np.ndarray:
    """Returns how far a map moves when the image hardly does (Yeh et al. 2019, Definition 3.1).

    The largest |M(x + e) - M(x)| / |M(x)| over perturbations e drawn uniformly from a cube, every
    pixel changing by at most the radius; | | is the Euclidean norm. A lower bound of the supremum,
    growing with the number of samples. That a map is stable says nothing about its truth: one that
    is always the same has 0. Costs samples + 1 explanations an image.

    Args:
        explain_fn: float32 [batch_size, s, s], grey levels -> maps [batch_size, h, w]; always
            called with that many images. Pixels may lie outside 0..255 by the radius.
        images: uint8 or float [n, s, s], 0..255.
        radius: of the cube, grey levels.
        samples: perturbations an image.
        seed: of the perturbations.
        batch_size: images a call.

    Returns:
        float64 [n]; NaN where the map of the image itself is all zero.
    """

    def pictures() -> Iterator[np.ndarray]:
        for image in images:
            yield image
            rng = generator(image, seed)
            for _ in range(samples):
                yield image + rng.uniform(-radius, radius, image.shape)

    found = np.full(len(images), np.nan)
    for i, saliency in enumerate(each(explain_fn, pictures(), batch_size)):
        image, sample = divmod(i, samples + 1)
        if sample == 0:
            original, moved = saliency.astype(np.float64), 0.0
            norm = float(np.linalg.norm(original))
        moved = max(moved, float(np.linalg.norm(saliency - original)))
        if norm > 0:
            found[image] = moved / norm
    return found


def _squares(size: int, side: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns squares in random places, 1 inside: float64 [count, size, size]."""
    drawn = np.zeros((count, size, size))
    for square, (row, column) in zip(
        drawn, rng.integers(0, size - side + 1, (count, 2)), strict=True
    ):
        square[row : row + side, column : column + side] = 1
    return drawn


def _mean_square(expected: np.ndarray, falls: np.ndarray, relative: bool) -> float:
    if not relative:
        return float(np.mean((expected - falls) ** 2))
    total = float(falls @ falls)
    if total == 0:
        return np.nan
    square = float(expected @ expected)
    best = max(0.0, float(expected @ falls) / square) if square > 0 else 0.0
    return float(np.sum((best * expected - falls) ** 2)) / total
