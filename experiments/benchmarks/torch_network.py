"""Paper 1's network in PyTorch, with Keras's constants and padding."""

import torch
from torch import nn

# (output channels, stride), one row per separable block: Howard et al. 2017, Table 1
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


def unit(channels: int, out: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    """Returns convolution, BatchNorm and ReLU6.

    Stride 2 pads below and to the right, as Keras does at even sizes.
    """
    pad = [nn.ZeroPad2d((0, 1, 0, 1))] if stride == 2 else []
    padding = kernel // 2 if stride == 1 else 0
    return nn.Sequential(
        *pad,
        nn.Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out, eps=1e-3, momentum=0.01),  # PyTorch's momentum is 1 - Keras's
        nn.ReLU6(inplace=True),
    )


class Attention(nn.Module):
    """Multi-scale spatial attention (paper 1, Eq. 1-6)."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(2, 1, k, padding=k // 2) for k in (3, 5, 7)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the sum of the features weighted by each scale's map."""
        descriptor = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        first, second, third = (x * torch.sigmoid(conv(descriptor)) for conv in self.convs)
        return first + second + third


class Network(nn.Module):
    """MobileNetV1 at alpha 1, attention, global average pooling, one logit."""

    def __init__(self) -> None:
        super().__init__()
        layers, channels = [unit(3, 32, 3, 2)], 32
        for out, stride in BLOCKS:
            layers += [unit(channels, channels, 3, stride, channels), unit(channels, out, 1, 1)]
            channels = out
        self.backbone, self.attention = nn.Sequential(*layers), Attention()
        self.logit = nn.Linear(channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns one logit per image, [b], of images [b, 3, h, w]."""
        return self.logit(self.attention(self.backbone(x)).mean((2, 3)))[:, 0]
