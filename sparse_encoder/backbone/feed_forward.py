"""The feed-forward block: up, activation, down. Knows nothing of residuals and norms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_gelu_tanh = partial(F.gelu, approximate="tanh")

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}
"""By the names that config files use; the tanh forms are one function written three ways."""


class FeedForward(nn.Module):
    r"""Widen, activate, narrow.

    .. math:: W_2\, a(W_1 x) \quad\text{or, gated,}\quad W_2 (a(g) \odot u),\; [g, u] = W_1 x

    Source: Shazeer, 2020, https://arxiv.org/abs/2002.05202 (gated form).

    Args:
        hidden_size: Width of what comes in and goes out, D.
        intermediate_size: Width in between, I.
        activation: A name in :data:`ACTIVATIONS`.
        gated: Whether the first matrix makes a gate as well, (2I, D), gate first.
        bias: Whether the two matrices have a bias.
        dropout: Applied in between.
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        *,
        activation: str = "gelu",
        gated: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.up = nn.Linear(hidden_size, intermediate_size * (2 if gated else 1), bias=bias)
        self.down = nn.Linear(intermediate_size, hidden_size, bias=bias)
        self.activate = ACTIVATIONS[activation]
        self.gated = gated
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform every token by itself.

        Args:
            hidden: Hidden states, (B, T, D).

        Returns:
            Hidden states, (B, T, D).
        """
        inner: Tensor = self.up(hidden)  # (B, T, I), gated (B, T, 2I)
        if self.gated:
            gate, inner = inner.chunk(2, dim=-1)
            inner = torch.mul(self.activate(gate), inner)
        else:
            inner = self.activate(inner)
        output: Tensor = self.down(self.dropout(inner))
        return output
