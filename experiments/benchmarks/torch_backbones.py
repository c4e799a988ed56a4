"""The backbones of the papers in PyTorch, with Keras's constants, padding and biases."""

import functools
import itertools

import torch
from inceptions import INCEPTIONS
from torch import nn
from torch.nn import functional

# (output channels, stride), one row per separable block: Howard et al. 2017, Table 1
SEPARABLE = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)
# expansion, channels, blocks, stride: Sandler et al. 2018, Table 2
INVERTED = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# blocks, channels, stride: He et al. 2016, Table 1
BOTTLENECKS = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
# kernel, blocks, channels, expansion, stride: Tan and Le 2019, Table 1
EXCITED = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
# channels, blocks: Liu et al. 2022, Table 9
CONVNEXT = ((96, 3), (192, 3), (384, 9), (768, 3))


def conv(
    channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = True
) -> nn.Sequential:
    """Returns a convolution; stride 2 pads below and to the right more, as Keras at even sizes."""
    pad = kernel // 2
    uneven = stride == 2 and kernel > 1
    padding = [nn.ZeroPad2d((pad - 1, pad, pad - 1, pad))] if uneven else []
    inside = 0 if uneven else pad
    return nn.Sequential(
        *padding, nn.Conv2d(channels, out, kernel, stride, inside, groups=groups, bias=bias)
    )


def unit(
    channels: int,
    out: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    *,
    activation: type[nn.Module] = nn.ReLU6,
    momentum: float = 0.01,
) -> nn.Sequential:
    """Returns convolution, BatchNorm and activation; PyTorch's momentum is 1 - Keras's."""
    end = [] if activation is nn.Identity else [activation(inplace=True)]
    norm = nn.BatchNorm2d(out, eps=1e-3, momentum=momentum)
    return nn.Sequential(conv(channels, out, kernel, stride, groups, bias=False), norm, *end)


class Residual(nn.Module):
    """The sum of a branch and what is beside it, then an activation."""

    def __init__(self, branch: nn.Module, beside: nn.Module, end: nn.Module) -> None:
        super().__init__()
        self.branch, self.beside, self.end = branch, beside, end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the sum."""
        return self.end(self.beside(x) + self.branch(x))


def added(branch: nn.Module) -> Residual:
    """Returns the branch with its input added."""
    return Residual(branch, nn.Identity(), nn.Identity())


def mobilenet_v1() -> nn.Sequential:
    """Returns the backbone without top."""
    layers, channels = [unit(3, 32, 3, 2)], 32
    for out, stride in SEPARABLE:
        layers += [unit(channels, channels, 3, stride, channels), unit(channels, out, 1)]
        channels = out
    return nn.Sequential(*layers)


def mobilenet_v2() -> nn.Sequential:
    """Returns the backbone without top."""
    slow, channels = functools.partial(unit, momentum=0.001), 32
    layers: list[nn.Module] = [slow(3, 32, 3, 2)]
    for expansion, out, blocks, first in INVERTED:
        for stride in (first, *[1] * (blocks - 1)):
            wide = expansion * channels
            block = [slow(channels, wide, 1)] if expansion > 1 else []
            block += [slow(wide, wide, 3, stride, wide)]
            block += [slow(wide, out, 1, activation=nn.Identity)]
            branch = nn.Sequential(*block)
            layers += [added(branch) if stride == 1 and channels == out else branch]
            channels = out
    return nn.Sequential(*layers, slow(channels, 1280, 1))


def resnet50() -> nn.Sequential:
    """Returns the backbone without top; its convolutions have biases, as Keras's have."""

    def normed(channels: int, out: int, kernel: int, stride: int = 1, *, end: bool = True) -> list:
        # The stem pads by three on each side.
        made = nn.Conv2d(channels, out, kernel, stride, kernel // 2)
        norm = nn.BatchNorm2d(out, eps=1.001e-5, momentum=0.01)
        return [made, norm, *([nn.ReLU(inplace=True)] if end else [])]

    layers: list[nn.Module] = [*normed(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for blocks, narrow, first in BOTTLENECKS:
        for stride in (first, *[1] * (blocks - 1)):
            wide = 4 * narrow
            branch = normed(channels, narrow, 1, stride) + normed(narrow, narrow, 3)
            branch += normed(narrow, wide, 1, end=False)
            beside: nn.Module = nn.Identity()
            if channels != wide:
                beside = nn.Sequential(*normed(channels, wide, 1, stride, end=False))
            layers += [Residual(nn.Sequential(*branch), beside, nn.ReLU(inplace=True))]
            channels = wide
    return nn.Sequential(*layers)


class Scaled(nn.Module):
    """Keras's ``Rescaling`` and ``Normalization``, whose mean, variance and count are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("variance", torch.ones(1, 3, 1, 1))
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the images scaled."""
        return (x / 255 - self.mean) / self.variance.sqrt()


class Excitation(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(channels, narrow, 1), nn.Conv2d(narrow, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x, each channel weighted."""
        gate = functional.silu(self.narrow(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.wide(gate))


class Dropped(nn.Module):
    """Drops a branch for whole images in training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x, zero for some images."""
        if not self.training or not self.rate:
            return x
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


def efficientnet_b0() -> nn.Sequential:
    """Returns the backbone without top."""
    swish = functools.partial(unit, activation=nn.SiLU)
    layers: list[nn.Module] = [Scaled(), swish(3, 32, 3, 2)]
    channels, done, total = 32, 0, sum(row[1] for row in EXCITED)
    for kernel, blocks, out, expansion, first in EXCITED:
        for stride in (first, *[1] * (blocks - 1)):
            wide = expansion * channels
            block = [swish(channels, wide, 1)] if expansion > 1 else []
            block += [swish(wide, wide, kernel, stride, wide)]
            block += [Excitation(wide, channels // 4)]
            block += [unit(wide, out, 1, activation=nn.Identity)]
            if stride == 1 and channels == out:
                layers += [added(nn.Sequential(*block, Dropped(0.2 * done / total)))]
            else:
                layers += [nn.Sequential(*block)]
            channels, done = out, done + 1
    return nn.Sequential(*layers, swish(channels, 1280, 1))


class PixelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x normalised."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """A residual block with products over the channels last, as its authors write it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.wide, self.narrow = (
            nn.Linear(channels, 4 * channels),
            nn.Linear(4 * channels, channels),
        )
        self.scale = nn.Parameter(1e-6 * torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the output of the block."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(functional.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext_tiny() -> nn.Sequential:
    """Returns the backbone without top, which ends in a normalisation, as Keras's does."""
    layers: list[nn.Module] = [nn.Conv2d(3, 96, 4, 4), PixelNorm(96, eps=1e-6)]
    for (channels, blocks), (after, _) in zip(CONVNEXT, (*CONVNEXT[1:], (0, 0)), strict=True):
        layers += [ConvNeXtBlock(channels) for _ in range(blocks)]
        if after:
            layers += [PixelNorm(channels, eps=1e-6), nn.Conv2d(channels, after, 2, 2)]
    return nn.Sequential(*layers, PixelNorm(CONVNEXT[-1][0], eps=1e-6))


class Inception(nn.Module):
    """Four branches, concatenated."""

    def __init__(self, channels: int, row: tuple[int, ...]) -> None:
        super().__init__()
        direct, reduce_3, conv_3, reduce_5, conv_5, projected = row
        self.direct = rectified(channels, direct, 1)
        self.three = nn.Sequential(
            *rectified(channels, reduce_3, 1), *rectified(reduce_3, conv_3, 3)
        )
        self.five = nn.Sequential(
            *rectified(channels, reduce_5, 1), *rectified(reduce_5, conv_5, 5)
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), *rectified(channels, projected, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns all channels."""
        return torch.cat([self.direct(x), self.three(x), self.five(x), self.pooled(x)], 1)


def rectified(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Returns a convolution and a ReLU."""
    return nn.Sequential(conv(channels, out, kernel, stride), nn.ReLU(inplace=True))


def googlenet() -> nn.Sequential:
    """Returns the backbone without top; its windows at even sizes lie as Keras's do."""
    lrn = nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)  # PyTorch divides alpha by the size itself
    pool = lambda: [nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2)]  # noqa: E731
    layers: list[nn.Module] = [*rectified(3, 64, 7, 2), *pool(), lrn]
    layers += [*rectified(64, 64, 1), *rectified(64, 192, 3), lrn]
    channels = 192
    for stage in INCEPTIONS:
        layers += pool()
        for row in stage:
            layers += [Inception(channels, row)]
            channels = row[0] + row[2] + row[4] + row[5]
    return nn.Sequential(*layers)


class Subsample(nn.Module):
    """The sum of 2 x 2 pixels, times a gain, plus a bias (LeCun et al. 1998)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((1, channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the map at half its size."""
        return 4 * functional.avg_pool2d(x, 2) * self.gain + self.bias


class Squash(nn.Module):
    """LeNet-5's scaled hyperbolic tangent."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the activation."""
        return 1.7159 * torch.tanh(x * (2 / 3))


class LeNetAlexNet(nn.Module):
    """The last maps of AlexNet and of LeNet-5, side by side."""

    def __init__(self) -> None:
        super().__init__()
        lrn, pool = nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0), nn.MaxPool2d(3, 2)
        first = [nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(3, 96, 11, 4), nn.ReLU(inplace=True)]
        layers: list[nn.Module] = [*first, lrn, pool, *rectified(96, 256, 5), lrn, pool]
        layers += [*rectified(256, 384, 3), *rectified(384, 384, 3), *rectified(384, 256, 3), pool]
        self.deep = nn.Sequential(*layers)
        found = []
        for before, after in itertools.pairwise((1, 6, 16, 120)):
            found += [nn.Conv2d(before, after, 5), Squash()]
            found += [Subsample(after), Squash()] if after < 120 else []
        self.shallow = nn.Sequential(*found)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns both maps."""
        deep = self.deep(x)
        side = [28 + 4 * cells for cells in deep.shape[2:]]
        grey = x.mean(1, keepdim=True)
        grey = functional.interpolate(grey, side, mode="bilinear", antialias=True)
        return torch.cat([deep, self.shallow(grey)], 1)


# name of the backbone -> how it is made, and its last channels
BACKBONES = {
    "mobilenet_v1": (mobilenet_v1, 1024),
    "mobilenet_v2": (mobilenet_v2, 1280),
    "resnet50": (resnet50, 2048),
    "efficientnet_b0": (efficientnet_b0, 1280),
    "convnext_tiny": (convnext_tiny, 768),
    "googlenet": (googlenet, 1024),
    "lenet_alexnet": (LeNetAlexNet, 376),
}
