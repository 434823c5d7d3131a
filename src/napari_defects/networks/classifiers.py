"""Networks that give a small picture one class: a light one for patches, and ResNet-18 of any width."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from .base import Described
from .zoo import check_architecture


def _convolution(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]


class PatchNetwork(Described):
    """Three times two 3 x 3 convolutions, each level half as large and twice as wide as the one before.

    Parameters
    ----------
    n_classes : int
    channels : int
        Of the first level.
    inputs : int
        Channels of the picture: one or two windows, or two and those of the typical cell.
    side_px : int
        Side of the picture it was made for.
    """

    def __init__(
        self, n_classes: int, *, kind: str = "patches", channels: int = 16, inputs: int = 2, side_px: int = 20
    ):
        super().__init__()
        self.architecture = check_architecture(
            {"kind": kind, "channels": channels, "inputs": inputs, "side_px": side_px}
        )
        self.n_classes = n_classes
        width = [channels, 2 * channels, 4 * channels]
        layers: list[nn.Module] = []
        for level, (n_in, n_out) in enumerate(zip([inputs, *width], width, strict=False)):
            layers += [nn.MaxPool2d(2)] if level else []
            layers += _convolution(n_in, n_out) + _convolution(n_out, n_out)
        self.features = nn.Sequential(*layers)
        side = side_px // 4
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(width[-1] * side * side, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (picture, class) of pictures (picture, inputs, y, x)."""
        logits: torch.Tensor = self.head(self.dropout(self.features(x).flatten(1)))
        return logits


class ResNet18(Described):
    """The residual network of 18 layers of He et al., CVPR 2016; 64 channels make the original.

    Parameters
    ----------
    n_classes, inputs, side_px
        As for `PatchNetwork`.
    channels : int
        Of the first stage; the original has 64.
    """

    def __init__(
        self, n_classes: int, *, kind: str = "resnet18", channels: int = 64, inputs: int = 2, side_px: int = 224
    ):
        super().__init__()
        self.architecture = check_architecture(
            {"kind": kind, "channels": channels, "inputs": inputs, "side_px": side_px}
        )
        self.n_classes = n_classes
        stem = [nn.Conv2d(inputs, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        stages: list[nn.Module] = []
        n_in = channels
        for stage in range(4):
            n_out, stride = channels * 2**stage, 2 if stage else 1
            past = (
                nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)) if stage else None
            )
            stages += [BasicBlock(n_in, n_out, stride, past), BasicBlock(n_out, n_out)]
            n_in = n_out
        self.features = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1), *stages)
        self.head = nn.Linear(n_in, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (picture, class) of pictures (picture, inputs, y, x)."""
        logits: torch.Tensor = self.head(self.features(x).mean((2, 3)))
        return logits
