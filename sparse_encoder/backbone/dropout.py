"""Dropout whose mask is cheap to draw and small to keep. It knows nothing of what is dropped.

On the CPU most of the time of torch's dropout goes into random numbers, and it keeps its mask in the tensor's own
dtype. Here one 64-bit random number decides four entries, and the mask is kept in one byte each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 65_536
"""A share is drawn in steps of one part in so many: 16 random bits decide an entry."""


def dropped_share(dropout: float) -> float:
    """Round a share in [0, 1) to one that can be drawn, still below 1."""
    return min(round(dropout * STEPS), STEPS - 1) / STEPS


def keep_mask(shape: tuple[int, ...], dropout: float) -> Tensor:
    """Draw on the CPU which entries are kept, from torch's generator.

    Args:
        shape: Of the mask.
        dropout: Share that is dropped, in [0, 1), rounded as :func:`dropped_share` does.

    Returns:
        True where an entry is kept, of the given shape.
    """
    count = torch.Size(shape).numel()
    drawn = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    threshold = int(dropped_share(dropout) * STEPS) - STEPS // 2
    return (drawn.view(torch.int16)[:count] >= threshold).view(shape)


class Dropout(nn.Dropout):
    """Drop entries in training and scale up the rest, so that the mean stays; on other devices torch's own."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Return ``hidden`` with a share of its entries dropped; any shape."""
        if not self.training or self.p == 0:
            return hidden
        if hidden.device.type != "cpu":
            return F.dropout(hidden, self.p)
        scaled = hidden * (1 / (1 - dropped_share(self.p)))
        return scaled.masked_fill(~keep_mask(tuple(hidden.shape), self.p), 0)
