"""Attention biases by distance, one table for all layers. Knows nothing of layers and masks.

Axes: B texts, H heads, T tokens that look, P tokens of the past, which are looked at as well.
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
    bidirectional: bool = True
    """Whether keys behind the query have rows of their own; false for decoders, which see none of them."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.num_buckets % 4 or not 4 <= self.num_buckets <= 1 << 16:
            raise FieldError(f"must be a multiple of 4 up to {1 << 16}, got {self.num_buckets}", "num_buckets")
        if not self.num_exact < self.max_distance <= LARGEST_DISTANCE:
            rule = f"must be above {self.num_exact} and at most {LARGEST_DISTANCE}, got {self.max_distance}"
            raise FieldError(rule, "max_distance")

    @property
    def num_rows_per_side(self) -> int:
        """Rows for the keys before the query."""
        return self.num_buckets // 2 if self.bidirectional else self.num_buckets

    @property
    def num_exact(self) -> int:
        """Distances that have a row each."""
        return self.num_rows_per_side // 2


def distance_buckets(
    num_queries: int, config: RelativeBiasConfig, device: torch.device, *, num_keys: int | None = None, past: int = 0
) -> Tensor:
    """Say which row of the table every pair of places takes.

    Short distances have a row each, longer ones share rows that widen logarithmically; keys behind the query take
    the second half of the rows, or the row of distance 0 where they are not to be seen.

    Source: Raffel et al., 2020, https://arxiv.org/abs/1910.10683.

    Args:
        num_queries: T.
        config: Size of the table and where it ends.
        device: Of the result.
        num_keys: Places that are looked at, from the first one on; None means as many as queries.
        past: Place of the first query.

    Returns:
        Row numbers, query first: (T, keys), int64.
    """
    per_side, exact = config.num_rows_per_side, config.num_exact
    distances = torch.arange(num_queries if num_keys is None else num_keys, device=device)
    spread = torch.log(distances.clamp(min=exact).float() / exact) / log(config.max_distance / exact)
    shared = exact + (spread * (per_side - exact)).long()
    rows = torch.where(distances < exact, distances, shared.clamp(max=per_side - 1))  # by distance
    queries = torch.arange(num_queries, device=device) + past
    offsets = distances - queries[:, None]  # (T, keys), positive for keys behind the query
    if not config.bidirectional:
        return rows[(-offsets).clamp(min=0)]
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

    def forward(self, bias: Tensor, num_queries: int | None = None, past: int = 0) -> Tensor:
        """Put the biases where a token may look.

        Args:
            bias: Of the padding, 0 where a token may look, (B, 1, 1 or T, P + T).
            num_queries: Tokens that look, T; None means all.
            past: Tokens before them, P. Keys may be more than both together, when a cache is longer than its content.

        Returns:
            Both in one, (B, H, T, P + T).
        """
        num_keys = bias.shape[-1]
        rows = distance_buckets(
            num_keys if num_queries is None else num_queries, self.config, bias.device, num_keys=num_keys, past=past
        )
        by_head = self.table(rows).permute(2, 0, 1).to(bias.dtype)  # (H, T, P + T)
        return where_visible(by_head, bias)


def where_visible(scores: Tensor, bias: Tensor) -> Tensor:
    """Keep scores where a token may look; elsewhere the bias stays, which a sum could take out of range.

    Args:
        scores: (H, T, P + T) or (B, H, T, P + T).
        bias: 0 where a token may look, (B, 1, 1 or T, P + T), of the same dtype.

    Returns:
        Tensor of shape (B, H, T, P + T).
    """
    return torch.where(bias == 0, scores, bias)
