r"""Attention that scores contents and places apart. Knows nothing of layers and padding.

.. math:: s_{ij} = \frac{q_i k_j + q_i K_{\delta(i,j)} + Q_{\delta(i,j)} k_j}{\sqrt{3 K}}

Rows K and Q are projections of one table of relative positions; a text may leave out either of the two last terms, and
the divisor counts those that are there. Source: He et al., 2021, https://arxiv.org/abs/2006.03654.

Axes: B texts, T tokens, D hidden size, H heads, K head size, R rows of relative positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.config import FieldError
from sparse_encoder.backbone.dropout import Dropout
from sparse_encoder.backbone.relative_bias import where_visible

LARGEST_DISTANCE = 1 << 16
CPU_SCORE_BYTES, SCORE_BYTES = 1 << 23, 1 << 28
"""Without gradients, texts are attended in parts whose scores of places take no more than this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DisentangledConfig:
    """Describe the table of relative positions and what is scored with it.

    Raises:
        FieldError: If a value is out of range, or nothing is scored.
    """

    content_to_position: bool
    """Score queries of tokens against keys of places."""
    position_to_content: bool
    """Score queries of places against keys of tokens."""
    max_distance: int
    """In tokens. Without buckets, the farthest place with a row of its own, to either side."""
    num_buckets: int = 0
    """Rows to either side: half of them for a place each, the others widen logarithmically up to ``max_distance``.
    0: one row for each place."""
    norm: bool = False
    """Normalise the table before use."""
    shared_projections: bool = False
    """Project places with the matrices of the tokens."""
    dropout: float = 0.0
    """On the table, in every layer anew."""

    def __post_init__(self) -> None:
        """Check every value."""
        if not (self.content_to_position or self.position_to_content):
            raise FieldError("must be given, or position_to_content: nothing is scored", "content_to_position")
        if not 1 <= self.max_distance <= LARGEST_DISTANCE:
            raise FieldError(f"must be between 1 and {LARGEST_DISTANCE}, got {self.max_distance}", "max_distance")
        if self.num_buckets % 2 or not 0 <= self.num_buckets <= LARGEST_DISTANCE:
            raise FieldError(f"must be even and at most {LARGEST_DISTANCE}, got {self.num_buckets}", "num_buckets")
        if not 0 <= self.dropout < 1:
            raise FieldError(f"must be at least 0 and below 1, got {self.dropout}", "dropout")

    @property
    def span(self) -> int:
        """Rows of the table to either side."""
        return self.num_buckets or self.max_distance

    @property
    def num_terms(self) -> int:
        """Terms of a score, that of the contents included."""
        return 1 + self.content_to_position + self.position_to_content


def position_rows(offsets: Tensor, config: DisentangledConfig) -> Tensor:
    """Say which row of the table a signed distance takes.

    Beyond ``max_distance`` the outermost row counts, and so it does where buckets leave nothing to widen.

    Args:
        offsets: Place of the query less that of the key, int64, any shape.
        config: Size of the table.

    Returns:
        Row numbers from 0 to 2 span - 1, same shape.
    """
    rows, exact = offsets, config.num_buckets // 2
    if config.num_buckets and config.max_distance - 1 > exact:
        widest = torch.log(torch.tensor((config.max_distance - 1) / exact, dtype=torch.float32))
        spread = torch.log(offsets.abs().clamp(min=exact).float() / exact) / widest.item() * (exact - 1)
        rows = torch.where(offsets.abs() <= exact, offsets, offsets.sign() * (spread.ceil().long() + exact))
    return (rows + config.span).clamp(0, 2 * config.span - 1)


class RelativeRows(NamedTuple):
    """What the layers of one forward pass share."""

    rows: Tensor
    """Of the table, normalised, (R, D)."""
    row_of: Tensor
    """Which of them a query (first axis) and a key take, (T, T)."""


class RelativePositions(nn.Module):
    """Own the table of relative positions.

    Args:
        config: Its size.
        hidden_size: Width of its rows, D.
        norm: Applied to the rows; None leaves them as they are.
    """

    def __init__(self, config: DisentangledConfig, hidden_size: int, norm: nn.Module | None) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(2 * config.span, hidden_size)
        self.norm = norm

    def num_rows(self, num_tokens: int) -> int:
        """Return how many rows texts of T tokens need; for short ones those are fewer than the table has."""
        return min(2 * num_tokens - 1, self.table.num_embeddings)

    def forward(self, num_tokens: int) -> RelativeRows:
        """Return the rows that texts of T tokens need."""
        places = torch.arange(num_tokens, device=self.table.weight.device)
        offsets = places[:, None] - places  # (T, T)
        if self.num_rows(num_tokens) < self.table.num_embeddings:
            distances = torch.arange(1 - num_tokens, num_tokens, device=places.device)
            rows, row_of = self.table(position_rows(distances, self.config)), offsets + (num_tokens - 1)
        else:
            rows, row_of = self.table.weight, position_rows(offsets, self.config)
        return RelativeRows(rows if self.norm is None else self.norm(rows), row_of)


class PlaceVectors(NamedTuple):
    """Places as the heads of one layer see them, already divided; None for a term that is left out."""

    keys: Tensor | None
    """Scored against the queries of tokens, (H, R, K)."""
    queries: Tensor | None
    """Scored against the keys of tokens, (H, R, K)."""


class PositionScores(nn.Module):
    """Score contents against places, in one layer.

    Args:
        config: Which terms there are.
        hidden_size: Width of the table's rows, D.
    """

    def __init__(self, config: DisentangledConfig, hidden_size: int) -> None:
        super().__init__()
        own = not config.shared_projections
        self.config = config
        self.dropout = Dropout(config.dropout)
        self.k = nn.Linear(hidden_size, hidden_size) if own and config.content_to_position else None
        self.q = nn.Linear(hidden_size, hidden_size) if own and config.position_to_content else None

    @property
    def factor(self) -> float:
        """What the scores of a plain attention are multiplied by, so that all terms together have its spread."""
        return float(self.config.num_terms**-0.5)

    def project(self, rows: Tensor, q: nn.Linear, k: nn.Linear, head_size: int) -> PlaceVectors:
        """Turn rows of the table into vectors of places, divided as the scores will be.

        Args:
            rows: Of the table, (R, D).
            q: Makes queries of tokens; used where projections are shared.
            k: Makes keys of tokens.
            head_size: K.
        """
        rows, scale = self.dropout(rows), head_size**-0.5
        keys = queries = None
        if self.config.content_to_position:
            keys = self._by_head((self.k or k)(rows), head_size) * scale  # the queries it meets have the factor
        if self.config.position_to_content:
            queries = self._by_head((self.q or q)(rows), head_size) * (scale * self.factor)
        return PlaceVectors(keys, queries)

    @staticmethod
    def _by_head(projected: Tensor, head_size: int) -> Tensor:
        return projected.view(len(projected), -1, head_size).transpose(0, 1)  # (H, R, K)

    def forward(self, q: Tensor, k: Tensor, places: PlaceVectors, row_of: Tensor) -> Tensor:
        """Score places.

        Args:
            q: Queries of tokens, multiplied by the factor, (B, H, T, K).
            k: Keys of tokens, (B, H, T, K).
            places: Of :meth:`project`.
            row_of: Which of the R places a query and a key take, (T, T).

        Returns:
            What is added to the scores of the contents, (B, H, T, T).
        """
        shape = (*q.shape[:3], q.shape[2])
        scores: Tensor | None = None
        if places.keys is not None:
            scores = _products(q, places.keys).gather(-1, row_of.expand(shape))
        if places.queries is not None:
            by_key = _products(k, places.queries).gather(-1, row_of.mT.expand(shape)).mT
            scores = by_key if scores is None else scores + by_key
        assert scores is not None
        return scores


def _products(tokens: Tensor, places: Tensor) -> Tensor:
    """Multiply (B, H, T, K) by (H, R, K), one matrix a head over all texts; (B, H, T, R).

    torch's own way would copy the places for every text, and in float64 a text alone would get other bits.
    """
    num_texts, num_heads, num_tokens, _ = tokens.shape
    by_head = tokens.transpose(0, 1).flatten(1, 2) @ places.mT  # (H, B T, R)
    return by_head.view(num_heads, num_texts, num_tokens, -1).transpose(0, 1)


def attend_with_scores(
    attend: Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    dropout: float,
    *,
    score: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Attend with scores that are made for some texts at a time, where no gradient needs them afterwards.

    Args:
        attend: Makes attended values of queries, keys, values, what is added to their scores, and a dropout.
        q: Queries, (B, H, T, K).
        k: Keys, (B, H, T, K).
        v: Values, (B, H, T, K).
        bias: 0 where a token may look, (B, 1 or H, 1 or T, T).
        dropout: Share of the attention probabilities that is dropped.
        score: Makes the scores, (b, H, T, T), of the queries and keys of b texts.

    Returns:
        Attended values, (B, H, T, K).
    """
    if torch.is_grad_enabled():
        return attend(q, k, v, where_visible(score(q, k), bias), dropout)
    limit = CPU_SCORE_BYTES if q.device.type == "cpu" else SCORE_BYTES
    step = max(1, limit // (q.shape[1] * q.shape[2] ** 2 * q.element_size()))
    parts = zip(*(torch.split(tensor, step) for tensor in (q, k, v, bias)), strict=True)
    mixed = [
        attend(q_part, k_part, v_part, where_visible(score(q_part, k_part), hidden), dropout)
        for q_part, k_part, v_part, hidden in parts
    ]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)
