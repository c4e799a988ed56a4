"""Infidelity, sensitivity and ROAD's imputation against captum and pytorch-grad-cam."""

import numpy as np
import pytest
import torch_packages

from msa_flax.saliency.trials import pixels, stability
from msa_flax.saliency.trials.removal import Settings
from msa_flax.saliency.trials.stability import RADIUS, infidelity, sensitivity_max

torch = pytest.importorskip("torch")
metrics = pytest.importorskip("captum.metrics")

SIZE, COUNT, SAMPLES = 10, 3, 16
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, SIZE, SIZE)).astype(np.float32)
WEIGHTS = (RNG.normal(size=(SIZE, SIZE)) / 500).astype(np.float32)
ONES = np.ones(COUNT)
WEIGHTS_OF = {np.ndarray: WEIGHTS, torch.Tensor: torch.tensor(WEIGHTS)}


def contributions(pictures):
    """Each pixel's, for arrays of either library."""
    return pictures * (pictures - 90) * WEIGHTS_OF[type(pictures)][None] / 100


def model(pictures):
    return contributions(pictures).sum(axis=(1, 2))


MAPS = contributions(IMAGES) + 0.3 * RNG.normal(size=(COUNT, SIZE, SIZE)).astype(np.float32)


def drawn():
    """The squares that our infidelity draws of each image."""
    return np.stack(
        [
            stability._squares(SIZE, 3, SAMPLES, pixels.own_rng(image, 0)).astype(np.float32)
            for image in IMAGES
        ]
    )


def captums():
    squares = torch.tensor(drawn().reshape(-1, SIZE, SIZE))
    found = metrics.infidelity(
        model,
        lambda x: (squares, x * (1 - squares)),  # what is removed becomes black
        torch.tensor(IMAGES),
        torch.tensor(MAPS),
        n_perturb_samples=SAMPLES,
        normalize=True,
    )
    return found.numpy()


def assert_captum_agrees():
    settings = Settings(fill="black", samples=SAMPLES, batch_size=4)
    got = infidelity(model, IMAGES, {"map": MAPS}, signs=ONES, settings=settings)["map"]
    squares = drawn()
    removed = (IMAGES[:, None] * (1 - squares)).reshape(-1, SIZE, SIZE)
    falls = model(IMAGES)[:, None] - model(removed).reshape(COUNT, SAMPLES)
    expected = captums() / np.mean(falls.astype(np.float64) ** 2, axis=1)
    assert (expected < 0.9).all()  # near 1, the best scale may be below 0, which ours never is
    # captum computes in float32: logits of about 10 from 100 terms, and squares of differences.
    np.testing.assert_allclose(got, expected, rtol=2e-3)


@pytest.fixture(autouse=True)
def squares_of_three_pixels(monkeypatch):
    monkeypatch.setattr(stability, "PATCH", 0.3)


def test_infidelity_is_captums():
    assert_captum_agrees()


def test_removing_to_another_grey_fails_the_comparison(monkeypatch):
    monkeypatch.setattr(pixels, "filled", lambda image, fill: np.full_like(image, 40))
    with pytest.raises(AssertionError):
        assert_captum_agrees()


def test_sensitivity_is_captums():
    noise = np.stack(
        [
            [rng.uniform(-RADIUS, RADIUS, (SIZE, SIZE)) for _ in range(SAMPLES)]
            for rng in (pixels.own_rng(image, 0) for image in IMAGES)
        ]
    ).astype(np.float32)

    def explain(pictures):  # which captum gives, and wants back, as a tuple at first
        if isinstance(pictures, tuple):
            return (contributions(pictures[0]),)
        return contributions(pictures)

    theirs = metrics.sensitivity_max(
        explain,
        torch.tensor(IMAGES),
        lambda x: x + torch.tensor(noise.reshape(-1, SIZE, SIZE)),
        n_perturb_samples=SAMPLES,
    ).numpy()
    got = sensitivity_max(contributions, IMAGES, samples=SAMPLES, batch_size=4)
    # Both explain in float32; the differences of maps lose two of its seven digits.
    np.testing.assert_allclose(got, theirs, rtol=1e-4)


HOLES = {
    "scattered": RNG.random((32, 32)) < 0.5,
    "block": np.pad(np.ones((18, 20), bool), ((7, 7), (0, 12))),  # reaches the image's edge
    "nearly all": RNG.random((32, 32)) < 0.95,
}


def assert_imputations_agree(removed):
    image = np.cumsum(RNG.normal(size=(32, 32)), axis=1) * 10 + 100
    road = torch_packages.grad_cam("pytorch_grad_cam.metrics.road")
    solve = road.NoisyLinearImputer(noise=0)
    kept = torch.tensor((~removed).astype(np.float32))
    theirs = solve(torch.tensor(image[None].astype(np.float32)), kept).numpy()[0]
    got = pixels.impute(image, removed, noise=0.0, rng=np.random.default_rng(0))
    # Theirs is exact; ours may miss 0.3 grey levels, a tenth of the noise that is then added.
    np.testing.assert_allclose(got, theirs, atol=0.3)


# pytorch-grad-cam gives tensors to NumPy through an interface that NumPy 2 has renamed.
old_interface = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")


@old_interface
@pytest.mark.parametrize("hole", HOLES)
def test_imputation_is_pytorch_grad_cams(hole):
    assert_imputations_agree(HOLES[hole])


@old_interface
def test_other_weights_of_the_neighbours_fail_the_comparison(monkeypatch):
    monkeypatch.setattr(pixels, "_NEIGHBOURS", np.float32([[1, 1, 1], [1, 0, 1], [1, 1, 1]]) / 8)
    with pytest.raises(AssertionError):
        assert_imputations_agree(HOLES["scattered"])
