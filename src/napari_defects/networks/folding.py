"""A network made ready to predict: the same maps by less work.

Every batch normalization goes into the convolution before it. And where a coarse level joins a finer one, nothing is
enlarged and joined: a 3 x 3 convolution of an image whose pixels were doubled is a transposed convolution with 4 x 4
weights, of which each output sees 2 x 2, and a 1 x 1 convolution commutes with the doubling.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from .models import Block, Network


def folded(network: Network) -> Network:
    """Return a copy of a network for prediction."""
    network = copy.deepcopy(network).eval()
    for block in (*network.down, *network.up):
        for conv, norm in (("conv1", "norm1"), ("conv2", "norm2")):
            setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm)))
            setattr(block, norm, nn.Identity())
    if network.skips:
        network.up = nn.ModuleList(Joined(block) for block in network.up)  # type: ignore[arg-type]
    return network


class Joined(nn.Module):
    """What a folded `Up` of a residual network does, without enlarging what comes from the coarse level."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        fine = block.conv2.out_channels
        coarse = block.conv1.in_channels - fine
        assert block.past is not None
        with torch.no_grad():
            first, past = block.conv1.weight, block.past.weight
            self.lift = nn.ConvTranspose2d(coarse, fine, 4, stride=2, padding=1, bias=False)
            doubled = _doubled(_doubled(first[:, :coarse]).transpose(2, 3)).transpose(2, 3)
            self.lift.weight = nn.Parameter(doubled.transpose(0, 1).contiguous())
            self.conv1 = nn.Conv2d(fine, fine, 3, padding=1)
            self.conv1.weight, self.conv1.bias = nn.Parameter(first[:, coarse:].contiguous()), block.conv1.bias
            self.lift_past, self.past = (nn.Conv2d(n, fine, 1, bias=False) for n in (coarse, fine))
            self.lift_past.weight = nn.Parameter(past[:, :coarse].contiguous())
            self.past.weight = nn.Parameter(past[:, coarse:].contiguous())
        self.conv2 = block.conv2

    def forward(self, x: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """(batch, coarse, y / 2, x / 2) and (batch, fine, y, x) to (batch, fine, y, x)."""
        y = self.conv2(F.relu(self.lift(x) + self.conv1(fine), inplace=True)) + self.past(fine)
        return F.relu(y + F.interpolate(self.lift_past(x), scale_factor=2.0, mode="nearest"), inplace=True)


def _doubled(weight: torch.Tensor) -> torch.Tensor:
    """Weights (..., 3) on doubled pixels as those of a transposed convolution (..., 4)."""
    before, here, after = weight.unbind(-1)
    return torch.stack([after, here + after, before + here, before], dim=-1)
