"""What every network of this package can say of itself: its architecture and its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Described(nn.Module):
    """A network that is fully described by `architecture` and the number of its classes."""

    architecture: dict[str, Any]
    n_classes: int

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the tensors that make up the network, on the CPU; batch counters left out."""
        state = self.state_dict().items()
        return {k: v.detach().cpu().contiguous() for k, v in state if not k.endswith("num_batches_tracked")}
