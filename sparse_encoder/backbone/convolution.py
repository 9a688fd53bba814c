"""A convolution over neighbouring tokens beside the first layer. Knows nothing of attention.

Axes: B texts, T tokens, D hidden size, W tokens that one result sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_encoder.backbone.config import FieldError
from sparse_encoder.backbone.dropout import Dropout
from sparse_encoder.backbone.feed_forward import ACTIVATIONS

LARGEST_WINDOW = 1 << 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvolutionConfig:
    """Describe a convolution.

    Raises:
        FieldError: If a value is out of range.
    """

    window: int = 3
    """Tokens that one result sees, itself in the middle."""
    groups: int = 1
    """Parts of the hidden states that do not mix."""
    activation: str = "tanh"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check every value."""
        if self.window % 2 == 0 or not 1 <= self.window <= LARGEST_WINDOW:
            raise FieldError(f"must be odd and between 1 and {LARGEST_WINDOW}, got {self.window}", "window")
        if self.groups < 1:
            raise FieldError(f"must be at least 1, got {self.groups}", "groups")
        if self.activation not in ACTIVATIONS:
            raise FieldError(f"must be one of {sorted(ACTIVATIONS)}, got {self.activation!r}", "activation")
        if not 0 <= self.dropout < 1:
            raise FieldError(f"must be at least 0 and below 1, got {self.dropout}", "dropout")


class Convolution(nn.Module):
    r"""Add what the neighbours of a token say to what the first layer made of it.

    .. math:: n(h + a(W * e + b))

    with the embeddings e and the first layer's result h. Neighbours that are padding, or beyond an end, count as zero.

    Args:
        config: Which convolution.
        hidden_size: D, a multiple of the groups.
        norm: Applied to the sum, n.
    """

    def __init__(self, config: ConvolutionConfig, hidden_size: int, norm: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.convolution = nn.Conv1d(hidden_size, hidden_size, config.window, groups=config.groups)
        self.dropout = Dropout(config.dropout)
        self.norm = norm

    def forward(self, embeddings: Tensor, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return hidden states, (B, T, D).

        Args:
            embeddings: What went into the first layer, (B, T, D).
            hidden: What came out of it, (B, T, D).
            attention_mask: 1 for a token, 0 for padding, (B, T).
        """
        is_token = attention_mask.bool().unsqueeze(-1)
        local = self._convolve(embeddings.masked_fill(~is_token, 0)).masked_fill(~is_token, 0)
        activated = ACTIVATIONS[self.config.activation].new(self.dropout(local))
        output: Tensor = self.norm(hidden + activated)
        return output

    def _convolve(self, states: Tensor) -> Tensor:
        """Multiply windows by matrices: torch's convolution gives a text other bits alone than among others."""
        reach = self.config.window // 2
        windows = F.pad(states, (0, 0, reach, reach)).unfold(1, self.config.window, 1)  # (B, T, D, W)
        kernels, bias = self.convolution.weight, self.convolution.bias  # (D, D / groups, W), (D,)
        parts = (
            F.linear(window.flatten(2), kernel.flatten(1))
            for window, kernel in zip(
                windows.chunk(self.config.groups, dim=2), kernels.chunk(self.config.groups), strict=True
            )
        )
        joined = torch.cat(list(parts), dim=-1)
        return joined if bias is None else joined + bias
