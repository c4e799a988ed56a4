"""The saliency methods against Captum, on a PyTorch network with the same weights."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compilation import QUICK

from msa_flax.saliency import interface
from msa_flax.saliency.cam import gradcam
from msa_flax.saliency.gradients import integrated_gradients, smoothgrad
from msa_flax.saliency.perturbation import occlusion

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what third parties deprecate is not of interest here
    torch = pytest.importorskip("torch")
    attr = pytest.importorskip("captum.attr")

pytestmark = pytest.mark.filterwarnings("ignore")

SHARE = 1e-4  # of the largest value: float32 sums of two libraries, each in its own order
both_targets = pytest.mark.parametrize(("target", "sign"), [("fracture", 1), ("normal", -1)])


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


KERNELS, LINEAR = (draw(1, 3, 3, 1, 4), draw(2, 3, 3, 4, 6)), draw(3, 6)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 12, 10)).astype(np.float32)


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def features_fn(x):
    return jax.nn.relu(convolve(jnp.tanh(convolve(x[..., None] / 255, KERNELS[0])), KERNELS[1]))


def head_fn(features):
    return jnp.sin(features.mean(axis=(1, 2)) @ LINEAR)


class Twin(torch.nn.Module):
    """The same network; its output is the score of one target."""

    def __init__(self, sign):
        super().__init__()
        kernels = [torch.tensor(kernel.transpose(3, 2, 0, 1)) for kernel in KERNELS]
        self.first, self.second = (
            torch.nn.Conv2d(*kernel.shape[1::-1], 3, bias=False) for kernel in kernels
        )
        for layer, kernel in zip((self.first, self.second), kernels, strict=True):
            layer.weight = torch.nn.Parameter(kernel)
        self.relu, self.sign = torch.nn.ReLU(), sign

    def forward(self, x):
        x = self.relu(self.second(torch.tanh(self.first(x / 255))))
        return self.sign * torch.sin(x.mean(dim=(2, 3)) @ torch.tensor(LINEAR))


def inputs():
    return torch.tensor(IMAGES[:, None])


def ours(method, target, **keywords):
    bound = functools.partial(method, features_fn, head_fn, target=target, **keywords)
    return np.asarray(jax.jit(bound, compiler_options=QUICK)(IMAGES))


def assert_same(got, theirs):
    expected = theirs.detach().numpy()[:, 0]
    assert expected.max() > 0
    np.testing.assert_allclose(got, expected, atol=SHARE * abs(expected).max())


def compare_integrated_gradients(target, sign, steps=32, theirs=32):
    expected = attr.IntegratedGradients(Twin(sign)).attribute(
        inputs(), baselines=40.0, n_steps=theirs, method="gausslegendre"
    )
    assert_same(ours(integrated_gradients, target, baseline=40.0, steps=steps), expected)


def test_the_networks_are_the_same():
    expected = Twin(1)(inputs()).detach().numpy()
    np.testing.assert_allclose(head_fn(features_fn(IMAGES)), expected, atol=1e-5)  # roundings


@both_targets
def test_integrated_gradients(target, sign):
    compare_integrated_gradients(target, sign)


def test_with_half_the_steps_integrated_gradients_differ():
    with pytest.raises(AssertionError):
        compare_integrated_gradients("fracture", 1, steps=16)


@both_targets
def test_smoothgrad_without_noise(target, sign):
    saliency = attr.NoiseTunnel(attr.Saliency(Twin(sign)))
    expected = saliency.attribute(
        inputs(), nt_type="smoothgrad", nt_samples=3, stdevs=0.0, abs=False
    )
    assert_same(ours(smoothgrad, target, samples=3, noise=0.0), expected)


def test_the_size_of_the_gradient():
    expected = attr.Saliency(Twin(1)).attribute(inputs(), abs=True)
    assert_same(ours(smoothgrad, "fracture", samples=1, noise=0.0, absolute=True), expected)


@both_targets
@pytest.mark.parametrize(("patch", "stride"), [(3, 2), (4, 4), (5, 3), (1, 1)])
def test_occlusion(target, sign, patch, stride):
    expected = attr.Occlusion(Twin(sign)).attribute(
        inputs(),
        sliding_window_shapes=(1, patch, patch),
        strides=(1, stride, stride),
        baselines=100.0,
    )
    assert_same(ours(occlusion, target, patch=patch, stride=stride, fill=100.0), expected)


@both_targets
def test_grad_cam(target, sign):
    twin = Twin(sign)
    expected = attr.LayerGradCam(twin, twin.relu).attribute(inputs(), relu_attributions=True)
    assert_same(ours(gradcam, target), expected)


@pytest.mark.parametrize(
    "compare",
    [
        test_integrated_gradients,
        test_smoothgrad_without_noise,
        functools.partial(test_occlusion, patch=3, stride=2),
        test_grad_cam,
    ],
)
def test_with_one_sign_for_both_targets_the_comparisons_fail(monkeypatch, compare):
    monkeypatch.setattr(interface, "SIGNS", {"fracture": 1.0, "normal": 1.0})
    with pytest.raises(AssertionError):
        compare("normal", -1)
