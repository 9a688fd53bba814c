"""Norms over the last axis of hidden states. Knows nothing of layers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NormKind = Literal["layer", "rms"]
"""Around the mean and with a bias, or by the root mean square alone."""


class RMSNorm(nn.Module):
    r"""Divide by the root of the mean square.

    .. math:: \frac{x}{\sqrt{\operatorname{mean}(x^2) + \epsilon}} \odot w

    Computed in float32 under 16-bit weights. Source: Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467.

    Args:
        size: Width of the last axis.
        eps: Keeps the root away from zero.
    """

    def __init__(self, size: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def reset_parameters(self) -> None:
        """Let the norm scale nothing."""
        nn.init.ones_(self.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return normalised hidden states, same shape and dtype; those of more bits than the weight take on its own."""
        if hidden.dtype == torch.float32 and self.weight.dtype in (torch.float16, torch.bfloat16):
            return F.rms_norm(hidden, self.weight.shape, eps=self.eps).to(self.weight.dtype) * self.weight
        return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)
