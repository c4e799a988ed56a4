"""The networks in PyTorch: a backbone, paper 1's attention, one logit."""

import torch
from torch import nn
from torch_backbones import BACKBONES


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
    """A backbone, attention or none, global average pooling, one logit; by default paper 1's."""

    def __init__(self, backbone: str = "mobilenet_v1", *, attention: bool = True) -> None:
        super().__init__()
        make, channels = BACKBONES[backbone]
        self.backbone = make()
        self.attention = Attention() if attention else nn.Identity()
        self.logit = nn.Linear(channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns one logit per image, [b], of images [b, 3, h, w]."""
        return self.logit(self.attention(self.backbone(x)).mean((2, 3)))[:, 0]
