"""Class-activation maps against the package ``grad-cam``, on a PyTorch twin of a small network.

Compared are raw maps, before the package's ReLU, and what its users see: scaled to 0..1 and resized
to the image. Where the package does something else on purpose, the test says so and allows for it.
"""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_packages

from msa_flax.saliency.cam import (
    eigen_gradcam,
    eigencam,
    gradcam,
    gradcam_plus_plus,
    hirescam,
    layercam,
    xgradcam,
)
from msa_flax.saliency.perturbation import ablation_cam, score_cam

cams = torch_packages.grad_cam()
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore")
SIZE, CHANNELS = 16, 6
SIGNS = {"fracture": 1, "normal": -1}
OURS = {
    "GradCAM": gradcam,
    "GradCAMPlusPlus": gradcam_plus_plus,
    "HiResCAM": hirescam,
    "XGradCAM": xgradcam,
    "LayerCAM": layercam,
    "EigenCAM": eigencam,
    "EigenGradCAM": eigen_gradcam,
    "ScoreCAM": score_cam,
    "AblationCAM": ablation_cam,
}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


FIRST, SECOND = normal(1, 3, 3, 1, 4), 0.3 * normal(2, 3, 3, 4, CHANNELS)
PLACE, LINEAR = normal(3, 3, 3, CHANNELS, 1), normal(4, CHANNELS)
BIAS = 2.3  # between the logits of these images: some are above 0, some below
IMAGES = np.abs(normal(0, 4, SIZE, SIZE))


def convolve(x, kernel, stride):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def features_fn(images):
    return jax.nn.relu(convolve(jax.nn.relu(convolve(images[..., None], FIRST, 2)), SECOND, 2))


def head_fn(features, strength=1.0):
    attention = jax.nn.sigmoid(convolve(features, PLACE, 1))
    return strength * ((attention * features).mean(axis=(1, 2)) @ LINEAR + BIAS)


class Twin(torch.nn.Module):
    """The same network."""

    def __init__(self, strength):
        super().__init__()
        conv, relu = torch.nn.Conv2d, torch.nn.ReLU
        self.features = torch.nn.Sequential(
            conv(1, 4, 3, 2, 1, bias=False), relu(), conv(4, CHANNELS, 3, 2, 1, bias=False), relu()
        )
        self.place = conv(CHANNELS, 1, 3, 1, 1, bias=False)
        self.linear = torch.nn.Linear(CHANNELS, 1)
        self.strength = strength
        kernels = (self.features[0], FIRST), (self.features[2], SECOND), (self.place, PLACE)
        for layer, kernel in kernels:
            layer.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        self.linear.weight.data = torch.from_numpy(LINEAR[None])
        self.linear.bias.data = torch.tensor([BIAS])

    def forward(self, images):
        features = self.features(images)
        attended = torch.sigmoid(self.place(features)) * features
        return self.strength * self.linear(attended.mean(dim=(2, 3)))


@functools.cache
def theirs(name, target, strength=1.0):
    """Returns the package's raw maps [b, h, w] and what it gives its users, [b, s, s]."""
    twin, raw = Twin(strength), []
    cam = getattr(cams, name)(model=twin, target_layers=[twin.features[3]])
    get_cam_image = cam.get_cam_image
    cam.get_cam_image = lambda *args: raw.append(get_cam_image(*args)) or raw[-1]
    shown = cam(
        input_tensor=torch.from_numpy(IMAGES[:, None]),
        targets=[lambda logits: SIGNS[target] * logits[0]] * len(IMAGES),
    )
    return np.asarray(raw[-1]), shown


@functools.cache
def ours(name, target, strength=1.0):
    head = functools.partial(head_fn, strength=strength)
    method = functools.partial(OURS[name], features_fn, head, relu=False)
    quick = {"xla_backend_optimization_level": 0}  # compiles faster, and runs once
    run = jax.jit(method, static_argnums=1, compiler_options=quick)
    return np.asarray(run(jnp.asarray(IMAGES), target))


def shown_as_theirs(maps, relu=True):
    """ReLU, each map over its maximum less its minimum, and OpenCV's bilinear resizing, twice."""

    def scaled(values):
        values = values - values.min()
        return values / (1e-7 + values.max())

    resized = [
        cv2.resize(scaled(values), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        for values in (np.maximum(maps, 0) if relu else maps)
    ]
    return np.stack([scaled(values) for values in resized])


def assert_alike(got, raw, shown):
    """To 1e-4 of each map's maximum: two libraries' float32, and the package's small constants."""
    largest = abs(raw).max(axis=(1, 2), keepdims=True)
    assert np.all(largest > 1e-6)
    np.testing.assert_allclose(got / largest, raw / largest, atol=1e-4)
    if shown is not None:
        np.testing.assert_allclose(shown_as_theirs(got), shown, atol=1e-4)


def logits():
    return np.asarray(head_fn(features_fn(IMAGES)))


@pytest.fixture
def same_interpolation(monkeypatch):
    """Score-CAM upsamples with the corners aligned; the paper's own code and we, pixel centres."""
    monkeypatch.setattr(
        torch.nn,
        "UpsamplingBilinear2d",
        functools.partial(torch.nn.Upsample, mode="bilinear", align_corners=False),
    )


both_targets = pytest.mark.parametrize("target", list(SIGNS))


def test_the_twin_is_the_same_network_with_logits_of_both_signs():
    with torch.no_grad():
        expected = Twin(1.0)(torch.from_numpy(IMAGES[:, None])).numpy()[:, 0]
    np.testing.assert_allclose(logits(), expected, atol=1e-5)  # float32 sums of up to 96 terms
    assert logits().min() < -0.05
    assert logits().max() > 0.05


@both_targets
@pytest.mark.parametrize("name", ["GradCAM", "HiResCAM", "XGradCAM", "LayerCAM"])
def test_maps_from_slopes_are_theirs(name, target):
    assert_alike(ours(name, target), *theirs(name, target))


@both_targets
def test_gradcam_plus_plus_is_theirs_where_slopes_are_not_small(target):
    """They add 1e-6 to a denominator of size 2 g^2: slopes above 1 make that no matter."""
    name, strength = "GradCAMPlusPlus", 100.0
    assert_alike(ours(name, target, strength), *theirs(name, target, strength))
    with pytest.raises(AssertionError):
        assert_alike(ours(name, target, 0.01), *theirs(name, target, 0.01))


@both_targets
@pytest.mark.parametrize("name", ["EigenCAM", "EigenGradCAM"])
def test_maps_from_a_principal_component_are_theirs_up_to_the_sign_of_each(name, target):
    """They leave the sign to the decomposition; so what they show is the map or its other half."""
    got, (raw, _) = ours(name, target), theirs(name, target)
    turn = np.sign((got * raw).sum(axis=(1, 2), keepdims=True))
    assert_alike(got, raw * turn, None)


@both_targets
def test_score_cam_is_theirs(target, same_interpolation):
    assert_alike(ours("ScoreCAM", target), *theirs("ScoreCAM", target))


@both_targets
def test_ablation_cam_is_theirs_where_the_score_is_positive_and_the_opposite_elsewhere(target):
    """They divide by the score, we by its size: below 0 their map shows what speaks against it.

    For a network with one logit their map is even the same for both targets.
    """
    features = np.asarray(features_fn(IMAGES))
    assert np.all(features.min(axis=(1, 2, 3)) == 0)  # else they set -1e7 instead of 0
    got, (raw, shown) = ours("AblationCAM", target), theirs("AblationCAM", target)
    side = np.sign(SIGNS[target] * logits())
    assert_alike(got, raw * side[:, None, None], None)
    np.testing.assert_allclose(shown_as_theirs(got)[side > 0], shown[side > 0], atol=1e-4)


@pytest.mark.parametrize("name", ["GradCAM", "HiResCAM", "XGradCAM", "LayerCAM", "AblationCAM"])
def test_the_other_target_fails_the_comparison(name):
    with pytest.raises(AssertionError):
        assert_alike(ours(name, "normal"), theirs(name, "fracture")[0], None)


@pytest.mark.parametrize("name", ["GradCAM", "HiResCAM", "XGradCAM", "EigenGradCAM"])
def test_without_relu_what_they_show_is_something_else(name):
    got, shown = shown_as_theirs(ours(name, "fracture"), relu=False), theirs(name, "fracture")[1]
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(got, shown, atol=1e-4)


def test_without_the_normalisation_of_masks_score_cam_is_something_else(
    same_interpolation, monkeypatch
):
    from msa_flax.saliency import perturbation

    monkeypatch.setattr(perturbation, "_unit_range", lambda maps: maps)
    with pytest.raises(AssertionError):
        assert_alike(ours.__wrapped__("ScoreCAM", "fracture"), *theirs("ScoreCAM", "fracture"))
