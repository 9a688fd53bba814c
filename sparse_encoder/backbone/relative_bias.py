"""Attention biases by distance, one table for all layers. Knows nothing of layers and masks.

Axes: B texts, H heads, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.config import FieldError

LARGEST_DISTANCE = 1 << 24


@dataclass(frozen=True, kw_only=True, slots=True)
class RelativeBiasConfig:
    """Describe a table of attention biases.

    Raises:
        FieldError: If a value is out of range.
    """

    num_buckets: int = 32
    """Rows of the table: half of them for keys behind the query, and of those one half for a distance each."""
    max_distance: int = 128
    """In tokens; from here on all distances share a row."""

    def __post_init__(self) -> None:
        """Check both."""
        if self.num_buckets % 4 or not 4 <= self.num_buckets <= 1 << 16:
            raise FieldError(f"must be a multiple of 4 up to {1 << 16}, got {self.num_buckets}", "num_buckets")
        if not self.num_buckets // 4 < self.max_distance <= LARGEST_DISTANCE:
            rule = f"must be above {self.num_buckets // 4} and at most {LARGEST_DISTANCE}, got {self.max_distance}"
            raise FieldError(rule, "max_distance")


def distance_buckets(num_tokens: int, config: RelativeBiasConfig, device: torch.device) -> Tensor:
    """Say which row of the table every pair of places takes.

    Short distances have a row each, longer ones share rows that widen logarithmically; keys behind the query take
    the second half of the rows.

    Source: Raffel et al., 2020, https://arxiv.org/abs/1910.10683.

    Args:
        num_tokens: T.
        config: Size of the table and where it ends.
        device: Of the result.

    Returns:
        Row numbers, (T, T), query first.
    """
    per_side = config.num_buckets // 2
    exact = per_side // 2
    distances = torch.arange(num_tokens, device=device)
    spread = torch.log(distances.clamp(min=exact).float() / exact) / log(config.max_distance / exact)
    shared = exact + (spread * (per_side - exact)).long()
    rows = torch.where(distances < exact, distances, shared.clamp(max=per_side - 1))  # (T,) by distance
    offsets = distances - distances[:, None]  # (T, T), positive for keys behind the query
    return rows[offsets.abs()] + (offsets > 0) * per_side


class RelativeBias(nn.Module):
    """Give every head a bias for every distance, the same in all layers.

    Args:
        config: The table's size.
        num_heads: Heads, H.
    """

    def __init__(self, config: RelativeBiasConfig, num_heads: int) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.num_buckets, num_heads)

    def forward(self, bias: Tensor) -> Tensor:
        """Put the biases where a token may look.

        Args:
            bias: Of the padding, 0 where a token may look, (B, 1, 1 or T, T).

        Returns:
            Both in one, (B, H, T, T).
        """
        rows = distance_buckets(bias.shape[-1], self.config, bias.device)
        by_head = self.table(rows).permute(2, 0, 1).to(bias.dtype)  # (H, T, T)
        return where_visible(by_head, bias)


def where_visible(scores: Tensor, bias: Tensor) -> Tensor:
    """Keep scores where a token may look; elsewhere the bias stays, which a sum could take out of range.

    Args:
        scores: (H, T, T) or (B, H, T, T).
        bias: 0 where a token may look, (B, 1, 1 or T, T), of the same dtype.

    Returns:
        Tensor of shape (B, H, T, T).
    """
    return torch.where(bias == 0, scores, bias)
